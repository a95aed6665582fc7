"""Tokens: who gets one, and which service accepts it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from azure.identity import DefaultAzureCredential

from azure_emulator.client import Azure

ARM = "https://management.azure.test"
STORAGE = "https://storage.azure.com"


def claims(token: str) -> dict[str, Any]:
    middle = token.split(".")[1]
    found = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    assert isinstance(found, dict)
    return found


def test_tokens_say_for_whom_and_for_what(azure: Azure, credential: DefaultAzureCredential) -> None:
    for audience in (ARM, STORAGE):
        found = claims(credential.get_token(f"{audience}/.default").token)
        assert found["aud"] == audience
        assert found["oid"] == azure.object_id
        assert found["appid"] == azure.facts["identities"][0]["client_id"]
        assert found["tid"] == azure.facts["tenant"]
        assert found["iss"] == f"https://sts.windows.net/{azure.facts['tenant']}/"
        assert 3500 < found["exp"] - found["iat"] <= 3600


def test_discovery(azure: Azure, credential: DefaultAzureCredential) -> None:
    base = f"https://login.azure.test/{azure.facts['tenant']}"
    found = requests.get(f"{base}/v2.0/.well-known/openid-configuration", timeout=600).json()
    assert found["token_endpoint"] == f"{base}/oauth2/v2.0/token"
    assert requests.get(found["jwks_uri"], timeout=600).json()["keys"][0]["kty"] == "RSA"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"AZURE_CLIENT_ID": "11111111-1111-1111-1111-111111111111"}, "AADSTS700016"),
        ({"AZURE_TENANT_ID": "11111111-1111-1111-1111-111111111111"}, "AADSTS90002"),
    ],
)
def test_a_wrong_variable_is_named(
    azure: Azure,
    credential: DefaultAzureCredential,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str],
    code: str,
) -> None:
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ClientAuthenticationError, match=code):
        DefaultAzureCredential().get_token(f"{ARM}/.default")


@pytest.mark.parametrize(
    ("kind", "code"),
    [("garbage", "AADSTS50027"), ("expired", "AADSTS700024"), ("of another", "AADSTS700213")],
)
def test_a_bad_assertion(
    azure: Azure,
    credential: DefaultAzureCredential,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: str,
    code: str,
) -> None:
    token = {
        "garbage": lambda: "no token",
        "expired": lambda: azure.call("POST", "federated-token", {"seconds": -3600})["token"],
        "of another": lambda: Path(azure.new_identity()["token_file"]).read_text(),
    }[kind]()
    path = tmp_path / "token"
    path.write_text(token)
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(path))
    with pytest.raises(ClientAuthenticationError, match=code):
        DefaultAzureCredential().get_token(f"{ARM}/.default")


def test_scopes(credential: DefaultAzureCredential) -> None:
    with pytest.raises(ClientAuthenticationError, match="AADSTS500011"):
        credential.get_token("https://vault.azure.net/.default")
    with pytest.raises(ClientAuthenticationError, match="AADSTS1002012"):
        credential.get_token(ARM)


def test_a_token_for_another_service_is_refused(
    credential: DefaultAzureCredential, arm: Any, blobs: Any
) -> None:
    wrong = arm("GET", "?api-version=2024-10-01", token=credential.get_token(f"{STORAGE}/.default").token)
    assert wrong.status_code == 401
    assert wrong.json()["error"]["code"] == "InvalidAuthenticationTokenAudience"
    assert 'error="invalid_token"' in wrong.headers["WWW-Authenticate"]
    headers = {"Authorization": f"Bearer {credential.get_token(f'{ARM}/.default').token}"}
    wrong = requests.get(f"{blobs().url}?comp=list", headers=headers, timeout=600)
    assert wrong.status_code == 401
    assert wrong.headers["x-ms-error-code"] == "InvalidAuthenticationInfo"
    assert "Audience validation failed" in wrong.text
    assert "resource_id=https://storage.azure.com" in wrong.headers["WWW-Authenticate"]


def test_tokens_expire_in_the_middle(azure: Azure, arm: Any, blobs: Any, history: Any) -> None:
    container = blobs().get_container_client(azure.container)
    assert list(container.list_blobs()) == []
    assert arm("GET", "?api-version=2024-10-01").status_code == 200
    azure.expire("tokens")
    answer = arm("GET", "?api-version=2024-10-01")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "ExpiredAuthenticationToken")
    assert history("GET", "/experiments/1/runs/x/artifacts").status_code == 401
    with pytest.raises(
        HttpResponseError, match=r"Lifetime validation failed\. The token is expired"
    ) as error:
        list(container.list_blobs())
    assert error.value.status_code == 401


def test_a_short_life_is_told(azure: Azure, credential: DefaultAzureCredential) -> None:
    azure.set(token_seconds={"storage": 400})
    found = claims(credential.get_token(f"{STORAGE}/.default").token)
    assert found["exp"] - found["iat"] == 400
    assert claims(credential.get_token(f"{ARM}/.default").token)["exp"] - found["iat"] > 3000


def test_a_clock_ten_minutes_ahead(azure: Azure, arm: Any, blobs: Any) -> None:
    azure.set(skew=600)
    assert arm("GET", "?api-version=2024-10-01").status_code == 401
    with pytest.raises(HttpResponseError, match="The token is not yet valid"):
        list(blobs().list_containers())


def test_no_instance_metadata(azure: Azure, credential: DefaultAzureCredential, monkeypatch: Any) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
    monkeypatch.delenv("AZURE_FEDERATED_TOKEN_FILE")
    with pytest.raises(ClientAuthenticationError):
        DefaultAzureCredential().get_token(f"{ARM}/.default")
