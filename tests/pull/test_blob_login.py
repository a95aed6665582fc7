"""The login of an artifact store in Azure blobs, from the variables of MLflow's own client.

tests/registries/test_mlflow_object_stores.py pulls with one of them.
"""

from __future__ import annotations

from urllib.parse import parse_qs

import pytest

from aml_mirror.core.errors import ConfigurationError
from aml_mirror.pull.blob_login import ACCESS_KEY, CONNECTION_STRING, blob_login

URL = "https://lab.blob.core.windows.net"
KEY = "a2V5LW9mLWEtdGVzdA=="


@pytest.fixture(autouse=True)
def no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (CONNECTION_STRING, ACCESS_KEY):
        monkeypatch.delenv(name, raising=False)


def test_without_a_variable_it_is_the_login_of_this_program() -> None:
    assert blob_login(URL) == (URL, "")


def test_a_key_becomes_a_signature_that_can_only_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ACCESS_KEY, KEY)
    url, signature = blob_login(URL)
    assert url == URL and KEY not in signature
    assert parse_qs(signature)["sp"] == ["rl"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"AccountName=other;AccountKey={KEY}", "https://other.blob.core.windows.net"),
        (
            f"AccountName=o;AccountKey={KEY};EndpointSuffix=core.chinacloudapi.cn",
            "https://o.blob.core.chinacloudapi.cn",
        ),
        (f"AccountName=o;AccountKey={KEY};BlobEndpoint=http://127.0.0.1:1/o/;", "http://127.0.0.1:1/o"),
    ],
)
def test_a_connection_string_names_the_account(
    monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    monkeypatch.setenv(CONNECTION_STRING, text)
    url, signature = blob_login(URL)
    assert url == expected and parse_qs(signature)["sp"] == ["rl"]


def test_a_connection_string_with_a_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONNECTION_STRING, f"BlobEndpoint={URL};SharedAccessSignature=sv=1&sig=c2ln")
    assert blob_login("https://x.blob.core.windows.net") == (URL, "sv=1&sig=c2ln")


@pytest.mark.parametrize("name", [CONNECTION_STRING, ACCESS_KEY])
def test_what_is_no_key(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "AccountName=lab;AccountKey=%%%" if name == CONNECTION_STRING else "%%%")
    with pytest.raises(ConfigurationError, match=f"{name} has no usable key") as refused:
        blob_login(URL)
    assert "%%%" not in refused.value.message
