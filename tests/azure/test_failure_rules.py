"""What a failed request or login means, whatever error of a client it arrives in. No request is sent."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from azure.core import exceptions as core
from requests import Response
from requests import exceptions as http

from aml_mirror.core.errors import (
    ConfigurationError,
    DataError,
    MirrorError,
    NameNotFound,
    NotAllowed,
    ServiceUnavailable,
)
from aml_mirror.storage import azure_cloud, azure_errors, azure_login, network_errors
from aml_mirror.storage.azure_errors import chain, code_of, first_line, reason_of, translate
from builders.blobs import refusal

WHERE = "container runs of account lab"


def answered(status: int) -> http.HTTPError:
    response = Response()
    response.status_code = status
    return http.HTTPError("no", response=response)


def login(said: str) -> core.ClientAuthenticationError:
    return core.ClientAuthenticationError(said)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (core.IncompleteReadError("cut"), ServiceUnavailable),
        (core.DecodeError("cut"), ServiceUnavailable),
        (json.JSONDecodeError("cut", "", 0), ServiceUnavailable),
        (core.HttpResponseError("no answer"), ServiceUnavailable),
        *((answered(status), ServiceUnavailable) for status in (408, 429, 500, 502, 503, 504, 507)),
        *((answered(status), ConfigurationError) for status in (400, 404)),
        (http.RetryError("too many"), ServiceUnavailable),
        (http.ProxyError("refused"), ServiceUnavailable),
        *(
            (error("no"), ConfigurationError)
            for error in (http.InvalidURL, http.MissingSchema, http.InvalidSchema)
        ),
        *(
            (error("x"), ServiceUnavailable)
            for error in (http.ConnectionError, http.Timeout, ConnectionError)
        ),
        *((error("x"), ServiceUnavailable) for error in (TimeoutError, http.ChunkedEncodingError)),
        *(
            (error("x"), ServiceUnavailable)
            for error in (core.ServiceRequestError, core.ServiceResponseError)
        ),
        (ValueError("never seen"), ConfigurationError),
        (refusal(403, "", "AADSTS700016: unknown"), NotAllowed),
        (refusal(400, "", "AADSTS90033: busy"), ServiceUnavailable),
        (refusal(403, "AuthorizationPermissionMismatch"), NotAllowed),
        (login("AADSTS50196: loop"), ServiceUnavailable),
        (login("AADSTS7000222: expired"), NotAllowed),
        (login("Identity not found"), ConfigurationError),
        (login("not configured to acquire tokens for tenant x"), NotAllowed),
        (login("No such file or directory: '/var/run/token'"), ConfigurationError),
        (login("Permission denied: '/var/run/token'"), ConfigurationError),
        (login("Max retries exceeded: timed out"), ServiceUnavailable),
        (login("Unexpected content type from Microsoft Entra ID"), ServiceUnavailable),
        (login("DefaultAzureCredential failed to retrieve a token"), ConfigurationError),
        (login("something else"), NotAllowed),
    ],
)
def test_what_an_error_of_a_client_means(error: Exception, kind: type[MirrorError]) -> None:
    failure = translate(error, WHERE)
    assert type(failure) is kind, failure.message
    assert failure.message and failure.hint and "\n" not in f"{failure.message}{failure.hint}"


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("[Errno 111] Connection refused", ServiceUnavailable, "refused"),
        ("Network is unreachable", ServiceUnavailable, "no route"),
        ("No route to host", ServiceUnavailable, "no route"),
        ("Read timed out.", ServiceUnavailable, "no answer in time"),
        ("Temporary failure in name resolution", ServiceUnavailable, "name service"),
        ("nodename nor servname provided", NameNotFound, "cannot be resolved"),
        ("Name does not resolve", NameNotFound, "cannot be resolved"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED]", ConfigurationError, "not trusted"),
        ("certificate verify failed", ConfigurationError, "not trusted"),
        ("certificate is for x: hostname doesn't match", ConfigurationError, "another name"),
        *((f"Tunnel connection failed: {code} no", ServiceUnavailable, code) for code in ("500", "502")),
        *((f"Tunnel connection failed: {code} no", ServiceUnavailable, code) for code in ("503", "504")),
        *((f"Tunnel connection failed: {code} no", ConfigurationError, code) for code in ("403", "407")),
        ("it broke", ServiceUnavailable, "dropped"),
    ],
)
def test_a_request_without_an_answer(said: str, kind: type[MirrorError], words: str) -> None:
    failure = network_errors.translate(said, WHERE)
    assert type(failure) is kind and words in failure.message


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        *((code, "federated credential") for code in ("70021", "700211", "700212", "700213", "50013")),
        *((code, "AZURE_CLIENT_ID") for code in ("700016", "90002", "900023", "900021", "7000229")),
        *((code, "AZURE_CLIENT_SECRET") for code in ("7000215", "7000222")),
        *((code, "az login") for code in ("50076", "50079", "50173", "700082", "70043")),
        ("700024", "clock"),
        ("500011", "AZUREML_CURRENT_CLOUD"),
        ("53003", "administrator"),
        ("99999", "look the code up"),
    ],
)
def test_a_refusal_of_entra_says_what_to_do(code: str, hint: str) -> None:
    failure = translate(login(f"x AADSTS{code}: words Trace ID: 1 Timestamp: 2"), WHERE)
    assert type(failure) is NotAllowed and hint in str(failure.hint) and f"AADSTS{code}" in failure.message
    assert "Trace ID" not in failure.message


def test_which_variable_of_a_pod_is_missing_is_told() -> None:
    said = "DefaultAzureCredential failed. Missing required arguments: 'tenant_id', 'token_file_path'."
    failure = translate(login(said), WHERE)
    assert "AZURE_TENANT_ID, AZURE_FEDERATED_TOKEN_FILE not set" in failure.message
    tried = "DefaultAzureCredential failed\n\tEnvironmentCredential: nothing\n\tAzureCliCredential: no az"
    assert (
        "EnvironmentCredential (nothing); AzureCliCredential (no az)"
        in translate(login(tried), WHERE).message
    )


def test_the_first_specific_error_of_a_chain_decides() -> None:
    def raised(outer: Exception, inner: Exception, by_context: bool = False) -> Exception:
        setattr(outer, "__context__" if by_context else "__cause__", inner)
        return outer

    refused = refusal(403, "AuthorizationPermissionMismatch")
    for by_context in (False, True):
        assert type(translate(raised(ValueError("x"), refused, by_context=by_context), WHERE)) is NotAllowed
    ours = DataError("ours", "")
    assert translate(raised(RuntimeError("x"), ours), WHERE) is ours
    inner: Any = RuntimeError("x")
    inner.inner_exception = refused
    assert type(translate(inner, WHERE)) is NotAllowed
    # A chain that bites its tail ends.
    one, other = ValueError("a"), ValueError("b")
    one.__cause__, other.__cause__ = other, one
    assert list(chain(one)) == [one, other]


def test_the_code_and_the_reason_of_an_answer() -> None:
    assert code_of(refusal(404, "BlobNotFound")) == "BlobNotFound"
    error: Any = SimpleNamespace(error_code=SimpleNamespace(value="Own"))
    assert code_of(error) == "Own" and code_of(None) == "" == code_of(ValueError("x"))

    def nested(depth: int) -> Any:
        found: Any = SimpleNamespace(code="Deep", message="the cause", details=None)
        for _ in range(depth):
            found = SimpleNamespace(code="Generic", message="invalid", details=[found])
        return SimpleNamespace(error=found)

    assert reason_of(nested(1)) == reason_of(nested(3)) == ("Deep", "the cause")
    assert reason_of(nested(0)) == ("", "") and reason_of(None) == ("", "")
    assert first_line(ValueError("one\nRequestId: 5")) == "one" and first_line(ValueError("")) == "ValueError"


def test_how_long_a_service_asks_to_wait_is_kept() -> None:
    error = refusal(503, "ServerBusy")
    error.response.headers["Retry-After"] = "7"
    failure = translate(error, WHERE)
    assert isinstance(failure, ServiceUnavailable) and failure.retry_after == 7
    assert type(translate(refusal(507), WHERE)) is ServiceUnavailable
    assert "no space left" in translate(refusal(507), WHERE).message
    assert "redirects elsewhere" in translate(refusal(307), WHERE).message
    assert "holds a lease" in translate(refusal(412, "LeaseIdMissing"), WHERE).message
    assert "another tenant" in translate(refusal(403, "X", "The tenant does not match"), WHERE).message


class Fresh:
    """The login, which counts how often it is renewed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.renewed = 0
        monkeypatch.setattr(azure_login, "credential", lambda: self)

    def renew(self) -> None:
        self.renewed += 1


def test_a_refused_token_is_asked_for_anew_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    login, left = Fresh(monkeypatch), [refusal(401)] * 2

    def operation() -> str:
        if left:
            raise left.pop()
        return "done"

    assert azure_login.with_fresh_login(operation) == "done" and login.renewed == 2
    for error, renewals in (
        (refusal(401), azure_login.RENEWALS),
        # Entra itself refused, and would refuse again; a role is missing; a bug.
        (refusal(401, "", "AADSTS700016"), 0),
        (refusal(403), 0),
        (ValueError("x"), 0),
    ):
        login.renewed = 0

        def fail(error: Exception = error) -> None:
            raise error

        with pytest.raises(type(error)):
            azure_login.with_fresh_login(fail)
        assert login.renewed == renewals, error


def token(**claims: object) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"head.{body}.signature"


def test_the_claims_of_a_token() -> None:
    for name in ("a", "ab", "abc", "abcd"):
        assert azure_login.claims_of(token(oid=name)) == {"oid": name}
    for text in ("", "a", "a.b.c", f"a.{base64.urlsafe_b64encode(b'[1]').decode()}.c"):
        assert azure_login.claims_of(text) == {}


def test_a_token_file_that_is_missing_or_expired_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(path))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        azure_login.token_file()
    path.write_text(token(exp=1, sub="system:serviceaccount:a:b"))
    with pytest.raises(ConfigurationError, match="expired"):
        azure_login.token_file()
    path.write_text(token(exp=1 << 40, sub="system:serviceaccount:a:b"))
    assert "subject system:serviceaccount:a:b" in azure_login.token_file()
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", "")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "")
    with pytest.raises(ConfigurationError, match="has no workload identity"):
        azure_login.token_file()
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
    assert "not needed here" in azure_login.token_file()


def test_in_a_pod_only_workload_identity_is_tried_unless_a_person_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def chosen(**given: str) -> tuple[str | None, str | None]:
        environment = dict(given)
        monkeypatch.setattr(azure_login.os, "environ", environment)
        azure_login._choose_credentials()
        return environment.get("AZURE_TOKEN_CREDENTIALS"), environment.get("AZURE_AUTHORITY_HOST")

    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    assert chosen(**pod) == ("WorkloadIdentityCredential", None)
    assert chosen(**pod, AZURE_TOKEN_CREDENTIALS="dev") == ("dev", None)
    assert chosen() == (None, None)
    assert chosen(AZUREML_CURRENT_CLOUD="AzureUSGovernment")[1] == "https://login.microsoftonline.us"
    given = {"AZUREML_CURRENT_CLOUD": "AzureUSGovernment", "AZURE_AUTHORITY_HOST": "https://own"}
    assert chosen(**given)[1] == "https://own"


def test_hosts_of_container_registries() -> None:
    for host in ("lab.azurecr.io", "lab.azurecr.cn", "lab.azurecr.us"):
        assert azure_cloud.is_container_registry(host)
    for host in ("labazurecr.io", "lab.azurecr.io.example", "azurecr.io", "ghcr.io"):
        assert not azure_cloud.is_container_registry(host)


def test_damage_of_either_checksum_is_sent_again() -> None:
    for code in ("Md5Mismatch", "Crc64Mismatch", "InvalidMd5"):
        assert azure_errors.is_damage(refusal(400, code))
