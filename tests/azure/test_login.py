"""Our identity, the cloud's storage address, and the errors of failed logins, with the real
azure-identity.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aml_mirror.core.errors import ConfigurationError, MirrorError, NotAllowed, ServiceUnavailable
from aml_mirror.storage import azure_errors as azure_errors
from aml_mirror.storage import azure_login
from aml_mirror.storage.azure_cloud import blob_suffix
from this_process import here  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("here")


def failure() -> MirrorError:
    with pytest.raises(MirrorError) as caught:
        azure_login.Login().identity()
    assert "\n" not in caught.value.message
    return caught.value


def test_says_who_we_are_and_never_the_token(azure: Any) -> None:
    found = azure_login.credential().identity()
    assert found.credential == "WorkloadIdentityCredential"
    assert found.object_id == azure.object_id
    assert found.client_id == azure.env()["AZURE_CLIENT_ID"]
    assert found.tenant == azure.env()["AZURE_TENANT_ID"]
    assert "eyJ" not in found.text


def test_there_is_one_login(azure: Any) -> None:
    assert azure_login.credential() is azure_login.credential()
    for _ in range(3):
        azure_login.credential().get_token(azure_login.STORAGE_SCOPE)
    assert len(azure.requests("/oauth2/v2.0/token")) == 1


def test_in_a_pod_only_workload_identity_is_tried(azure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    for name in ("AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_TOKEN_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    error = failure()
    monkeypatch.delenv("AZURE_TOKEN_CREDENTIALS", raising=False)
    assert isinstance(error, ConfigurationError)
    assert "DefaultAzureCredential failed" in error.message
    assert "AZURE_CLIENT_ID, AZURE_FEDERATED_TOKEN_FILE not set" in error.message
    assert 'azure.workload.identity/use: "true"' in error.hint
    assert "service account" in error.hint
    with pytest.raises(ConfigurationError, match="AZURE_FEDERATED_TOKEN_FILE is not set"):
        azure_login.token_file()


def test_a_lost_token_file(azure: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "WorkloadIdentityCredential")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "azure-identity-token"))
    error = failure()
    assert isinstance(error, ConfigurationError)
    assert str(tmp_path) in error.message
    with pytest.raises(ConfigurationError, match="cannot be read"):
        azure_login.token_file()


def test_an_expired_token_file(azure: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("e30.eyJleHAiOiAxNzAwMDAwMDAwfQ.x")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    with pytest.raises(ConfigurationError, match="expired"):
        azure_login.token_file()


def test_the_token_file_as_it_should_be(azure: Any) -> None:
    assert "can be read" in azure_login.token_file()


@pytest.mark.parametrize("variable", ["AZURE_CLIENT_ID", "AZURE_TENANT_ID"])
def test_wrong_ids_are_named(azure: Any, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "WorkloadIdentityCredential")
    monkeypatch.setenv(variable, "12345678-0000-0000-0000-000000000000")
    error = failure()
    assert isinstance(error, NotAllowed)
    assert "AADSTS" in error.message
    assert variable in error.hint


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        ({"action": "status", "status": 503}, ServiceUnavailable),
        ({"action": "status", "status": 429}, ServiceUnavailable),
        ({"action": "drop"}, ServiceUnavailable),
        ({"action": "cut", "when": "after"}, ServiceUnavailable),
    ],
    ids=["503", "429", "drop", "cut"],
)
def test_entra_is_down(
    azure: Any, monkeypatch: pytest.MonkeyPatch, trouble: dict[str, Any], kind: type[MirrorError]
) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "WorkloadIdentityCredential")
    azure.fault(match="/token", times=0, **trouble)
    assert isinstance(failure(), kind)


def test_a_certificate_that_is_not_trusted(azure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "WorkloadIdentityCredential")
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    error = failure()
    assert isinstance(error, ConfigurationError)
    assert "TLS certificate" in error.message
    assert "REQUESTS_CA_BUNDLE" in error.hint


@pytest.mark.parametrize("named", ["Nonsense", "InteractiveBrowserCredential"])
def test_no_prompt_is_ever_shown(azure: Any, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", named)
    with pytest.raises(ConfigurationError, match="AZURE_TOKEN_CREDENTIALS"):
        azure_login.Login()


def test_tokens_that_are_refused_are_asked_for_anew(azure: Any) -> None:
    kept = azure_login.credential().get_token(azure_login.STORAGE_SCOPE).token
    seen: list[str] = []

    def operation() -> str:
        seen.append(azure_login.credential().get_token(azure_login.STORAGE_SCOPE).token)
        if len(seen) == 1:
            error = Exception("no")
            error.status_code = 401  # type: ignore[attr-defined]
            raise error
        return "done"

    assert azure_login.with_fresh_login(operation) == "done"
    assert seen[0] == kept != seen[1]


@pytest.mark.parametrize(
    ("cloud", "suffix"),
    [
        ("", "core.windows.net"),
        ("AzureCloud", "core.windows.net"),
        ("AzureChinaCloud", "core.chinacloudapi.cn"),
        ("AzureUSGovernment", "core.usgovcloudapi.net"),
        ("AzureEmulator", "core.azure.test"),
    ],
)
def test_where_the_clouds_keep_blobs(
    azure: Any, monkeypatch: pytest.MonkeyPatch, cloud: str, suffix: str
) -> None:
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", cloud)
    assert [blob_suffix() for _ in range(3)] == [suffix] * 3
    assert len(azure.requests("/metadata/endpoints")) == (cloud == "AzureEmulator")


def test_a_cloud_that_nobody_knows(azure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "Nephelokokkygia")
    with pytest.raises(ConfigurationError, match="Nephelokokkygia"):
        blob_suffix()
    monkeypatch.delenv("ARM_CLOUD_METADATA_URL")
    with pytest.raises(ConfigurationError, match="names the unknown cloud"):
        blob_suffix()


def test_no_error_has_a_secret_or_a_second_line() -> None:
    error = Exception("failed: https://lab.blob.core.windows.net/c/b?sp=r&sig=S3CR3T%3D\nRequestId: 1")
    said = azure_errors.translate(error, "the account lab").message
    assert "S3CR3T" not in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("authority", "public"),
    [
        ("", True),
        ("login.microsoftonline.com", True),
        ("https://login.microsoftonline.us/", True),
        ("https://login.contoso.example", False),
        ("https://localhost:8443/", False),
    ],
)
def test_only_a_public_login_endpoint_is_looked_up(
    monkeypatch: pytest.MonkeyPatch, authority: str, public: bool
) -> None:
    """For any other authority, a client with a secret would ask login.microsoft.com whether it is genuine."""
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(azure_login, "DefaultAzureCredential", lambda **more: given.append(more))
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", authority)
    azure_login.Login()
    assert given[0].get("disable_instance_discovery", False) is not public
