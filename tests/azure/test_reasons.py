"""Errors in one line: reasons below generic errors, networks that refuse, clouds identified by their
login.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from azure.core import exceptions as core
from azure.core.exceptions import ODataV4Format
from mlflow.exceptions import RestException

from aml_mirror.registries import mlflow_errors
from aml_mirror.storage import azure_cloud
from aml_mirror.storage.azure_errors import translate


def refused(status: int, body: dict[str, Any], code: str = "") -> core.HttpResponseError:
    """The error that the clients raise for an answer."""
    error = core.HttpResponseError(str((body.get("error") or {}).get("message", "")))
    error.status_code = status
    error.error = ODataV4Format(body["error"]) if "error" in body else None
    error.response = SimpleNamespace(headers={"x-ms-error-code": code} if code else {}, request=None)  # type: ignore[assignment]
    return error


def test_the_reason_below_a_generic_error_is_told() -> None:
    reason = {"code": "ModelAssetPathNotFoundInStorage", "message": "Path models/x was not found in storage."}
    body = {"error": {"code": "UserError", "message": "The request is invalid.", "details": [reason]}}
    failure = translate(refused(400, body), "the workspace")
    assert "400 ModelAssetPathNotFoundInStorage" in failure.message
    assert "Path models/x was not found in storage." in failure.message


@pytest.mark.parametrize("status", [502, 403])
def test_a_private_link_is_neither_a_role_nor_a_passing_fault(status: int) -> None:
    said = "Access to workspace was denied based on workspace private link configuration"
    failure = translate(refused(status, {"error": {"code": "Forbidden", "message": said}}), "the workspace")
    assert (failure.exit_code, "private endpoint" in failure.message) == (78, True)
    assert "role" not in failure.message


@pytest.mark.parametrize(
    ("answer", "code"), [("407 Proxy Authentication Required", 78), ("403 Forbidden", 78), ("503 Busy", 75)]
)
def test_a_proxy_that_refuses_to_connect(answer: str, code: int) -> None:
    said = f"Cannot connect to proxy. OSError('Tunnel connection failed: {answer}')"
    for error in (core.ServiceRequestError(said), core.ClientAuthenticationError(said)):
        failure = translate(error, "the workspace")
        assert failure.exit_code == code
        assert "the proxy on the way to" in failure.message
        assert answer[:3] in failure.message


def test_a_managed_identity_that_the_machine_does_not_have() -> None:
    said = (
        'DefaultAzureCredential failed: {"error":"invalid_request","error_description":"Identity not found"}'
    )
    failure = translate(core.ClientAuthenticationError(said), "the workspace")
    assert (failure.exit_code, "no such managed identity" in failure.message) == (78, True)


def test_a_retention_policy_is_not_another_writer() -> None:
    failure = translate(refused(409, {}, "BlobImmutableDueToPolicy"), "container runs")
    assert failure.exit_code == 78
    assert "retention policy" in failure.message


def test_nothing_is_cut_in_the_middle_of_a_word() -> None:
    words = " ".join(f"SomeLongErrorCode{number:04}" for number in range(40))
    failure = translate(refused(400, {"error": {"code": "X", "message": words}}), "the workspace")
    assert all(
        len(word) == len("SomeLongErrorCode0000")
        for word in failure.message.split()
        if word.startswith("Some")
    )


def test_no_ordinary_word_is_masked() -> None:
    said = "AADSTS50034: User account {EUII Hidden} does not exist in the directory. Trace ID: x"
    failure = translate(core.ClientAuthenticationError(said), "the workspace")
    assert "User account" in failure.message


def test_a_limit_of_mlflow_without_a_message_is_one_sentence() -> None:
    body = {
        "error_code": "INVALID_PARAMETER_VALUE",
        "error": {"code": "UserError", "message": "Field Parameters exceeded its limit of 200."},
    }
    failure = mlflow_errors.translate(RestException(body), "the workspace")
    assert "INVALID_PARAMETER_VALUE: Field Parameters exceeded its limit of 200." in failure.message
    assert json.dumps(body)[:20] not in failure.message
    assert "{" not in failure.message


@pytest.mark.parametrize(
    ("login", "manager", "suffix"),
    [
        (
            "https://login.microsoftonline.us/",
            "https://management.usgovcloudapi.net",
            "core.usgovcloudapi.net",
        ),
        ("https://login.chinacloudapi.cn/", "https://management.chinacloudapi.cn", "core.chinacloudapi.cn"),
        (
            "https://login.partner.microsoftonline.cn",
            "https://management.chinacloudapi.cn",
            "core.chinacloudapi.cn",
        ),
        ("https://login.microsoftonline.com/", "https://management.azure.com", "core.windows.net"),
        ("", "https://management.azure.com", "core.windows.net"),
    ],
)
def test_the_login_tells_the_cloud(
    monkeypatch: pytest.MonkeyPatch, login: str, manager: str, suffix: str
) -> None:
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", login)
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "")
    assert (azure_cloud.resource_manager(), azure_cloud.blob_suffix()) == (manager, suffix)
