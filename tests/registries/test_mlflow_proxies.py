"""Proxies in front of a server: login pages, limits, certificates, and MLflow's own access control."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from azure_emulator.certificates import write_certificates
from builders import mlflow_servers
from builders.program import Call
from builders.proxy import Page, Proxy
from builders.runs import huggingface_run

HTML = "<!DOCTYPE html><html><head><title>Sign in</title></head><body><p>SECRET-IN-PAGE</p></body></html>"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A small run."""
    return huggingface_run(tmp_path / "run-p", points=3)


@pytest.mark.parametrize("path", ["experiments/get-by-name", "mlflow-artifacts", "log-batch"])
@pytest.mark.parametrize("redirected", [True, False])
def test_a_login_page(
    mlflow_url: str, run: Path, model_name: str, aml_mirror: Call, path: str, redirected: bool
) -> None:
    def interfere(number: int, moment: str, method: str, asked: str) -> Page | None:
        if asked.startswith("/login"):
            return Page(200, HTML)
        if path not in asked:
            return None
        if not redirected:
            return Page(200, HTML)
        return Page(302, HTML, {"Location": "/login?state=SECRET-IN-QUERY", "Content-Type": "text/html"})

    with Proxy(mlflow_url) as proxy:
        proxy.interfere = interfere
        done = aml_mirror(
            "mirror", run, "--model-name", model_name, "--tracking-uri", proxy.url, "--json",
            code=77 if redirected else 78,
        )  # fmt: skip
    assert "login page" in done.json["error"]
    assert ("/login" in done.json["error"]) == redirected
    assert "<" not in done.json["error"]
    assert "SECRET" not in done.out + done.err


@pytest.mark.parametrize(("status", "code"), [(401, 77), (403, 77), (404, 78), (413, 78), (502, 75)])
def test_html_is_never_quoted(
    mlflow_url: str, run: Path, model_name: str, aml_mirror: Call, status: int, code: int
) -> None:
    with Proxy(mlflow_url) as proxy:
        proxy.interfere = lambda number, moment, method, path: Page(status, HTML)
        done = aml_mirror(
            "mirror", run, "--model-name", model_name, "--tracking-uri", proxy.url, "--retry-for", "0",
            "--json", code=code,
        )  # fmt: skip
    assert "<" not in done.json["error"]
    assert "SECRET" not in done.out + done.err


def test_a_body_limit(mlflow_url: str, run: Path, model_name: str, aml_mirror: Call) -> None:
    with Proxy(mlflow_url) as proxy:
        proxy.interfere = lambda number, moment, method, path: Page(413, HTML) if method == "PUT" else None
        done = aml_mirror(
            "mirror", run, "--model-name", model_name, "--tracking-uri", proxy.url, "--json", code=78
        ).json
    assert "413" in done["error"]
    assert "client_max_body_size" in done["hint"]


def test_a_host_that_the_server_does_not_allow(
    tmp_path: Path, run: Path, model_name: str, aml_mirror: Call
) -> None:
    with mlflow_servers.server(tmp_path / "server", "--allowed-hosts", "mlflow.example") as running:
        done = aml_mirror(
            "mirror", run, "--model-name", model_name, "--tracking-uri", running.url, "--json", code=78
        ).json
    assert "Invalid Host header" in done["error"]
    assert f"--allowed-hosts {running.url.removeprefix('http://')}" in done["hint"]


def tls(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server-side TLS context with a certificate of an untrusted authority, and that certificate."""
    folder.mkdir()
    write_certificates(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server-key.pem")
    return context, folder / "ca.pem"


def test_an_untrusted_certificate(
    mlflow_url: str, run: Path, model_name: str, aml_mirror: Call, tmp_path: Path
) -> None:
    context, authority = tls(tmp_path / "tls")
    with Proxy(mlflow_url, context) as proxy:
        target = ("--model-name", model_name, "--tracking-uri", proxy.url, "--json")
        done = aml_mirror("mirror", run, *target, code=78).json
        assert "certificate" in done["error"]
        assert proxy.url in done["error"]
        assert "MLFLOW_TRACKING_SERVER_CERT_PATH" in done["hint"]
        trusted = aml_mirror("mirror", run, *target, MLFLOW_TRACKING_SERVER_CERT_PATH=str(authority))
        assert trusted.json["outcome"] == "mirrored"


def test_an_untrusted_certificate_behind_a_redirect(
    mlflow_url: str, run: Path, model_name: str, aml_mirror: Call, tmp_path: Path
) -> None:
    context, _ = tls(tmp_path / "tls")
    with Proxy(mlflow_url, context) as secure, Proxy(mlflow_url) as plain:
        plain.interfere = lambda number, moment, method, path: Page(
            301, "", {"Location": f"{secure.url}{path}"}
        )
        done = aml_mirror(
            "mirror", run, "--model-name", model_name, "--tracking-uri", plain.url, "--json", code=78
        ).json
    assert secure.url in done["error"]
    assert plain.url in done["error"]


def test_unchecked_certificates_are_told_once(
    mlflow_url: str, run: Path, model_name: str, aml_mirror: Call, tmp_path: Path
) -> None:
    context, _ = tls(tmp_path / "tls")
    with Proxy(mlflow_url, context) as proxy:
        done = aml_mirror(
            "mirror", run, "--model-name", model_name, "--tracking-uri", proxy.url, "--json",
            MLFLOW_TRACKING_INSECURE_TLS="true",
        )  # fmt: skip
    assert done.json["outcome"] == "mirrored"
    assert done.err.count("MLFLOW_TRACKING_INSECURE_TLS") == 1
    assert "InsecureRequestWarning" not in done.err


def test_a_redirect_to_another_address(mlflow_url: str, run: Path, model_name: str, aml_mirror: Call) -> None:
    with Proxy(mlflow_url) as proxy:
        proxy.interfere = lambda number, moment, method, path: Page(
            301, "", {"Location": f"{mlflow_url}{path}"}
        )
        done = aml_mirror(
            "mirror", run, "--model-name", model_name, "--tracking-uri", proxy.url, "--json", code=78
        ).json
    assert mlflow_url in done["error"]
    assert "--tracking-uri" in done["hint"]


@pytest.mark.parametrize(
    ("path", "missing"),
    [
        ("experiments/get-by-name", "READ on the experiment {model}"),
        ("model-versions/create", "EDIT on the model {model}"),
    ],
)
def test_a_missing_permission(
    mlflow_url: str, run: Path, model_name: str, aml_mirror: Call, path: str, missing: str
) -> None:
    # MLflow's basic-auth answers exactly this (mlflow/server/auth, make_forbidden_response).
    with Proxy(mlflow_url) as proxy:
        proxy.interfere = lambda number, moment, method, asked: (
            Page(403, "Permission denied", {"Content-Type": "text/html; charset=utf-8"})
            if path in asked
            else None
        )
        done = aml_mirror(
            "mirror", run, "--model-name", model_name, "--tracking-uri", proxy.url, "--json", code=77
        ).json
    assert missing.format(model=model_name) in done["error"]
