"""A real nginx in front of a real server: a path, a body limit, a login, a certificate, a page to log in."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from azure_emulator.certificates import write_certificates
from builders.nginx import nginx
from builders.program import Call
from builders.runs import huggingface_run

PAGE = "<!DOCTYPE html><html><body>Sign in SECRET-IN-PAGE</body></html>"


@pytest.fixture(scope="module")
def front(mlflow_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One nginx, with a different configuration for each path."""
    folder = tmp_path_factory.mktemp("nginx")
    hashed = subprocess.run(
        ["openssl", "passwd", "-apr1", "right"], capture_output=True, text=True, check=True
    ).stdout.strip()
    (folder / "users").write_text(f"robot:{hashed}\n")
    through = f"proxy_set_header Host {urlsplit(mlflow_url).netloc}; proxy_pass {mlflow_url}/;"
    locations = f"""
        location /mlflow/ {{ client_max_body_size 0; {through} }}
        location /small/ {{ client_max_body_size 8k; {through} }}
        location /user/ {{ auth_basic "MLflow"; auth_basic_user_file {folder}/users; {through} }}
        location /sso/ {{ return 302 /login?state=SECRET-IN-QUERY; }}
        location /login {{ default_type text/html; return 200 "{PAGE}"; }}
        location /down/ {{ proxy_pass http://127.0.0.1:9/; }}
    """
    with nginx(folder / "run", locations) as url:
        yield url


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return huggingface_run(tmp_path / "run-x", points=3)


def words(run: Path, model: str, url: str) -> tuple[str, ...]:
    return ("mirror", str(run), "--model-name", model, "--tracking-uri", url, "--json", "--retry-for", "0")


def test_below_a_path(front: str, run: Path, model_name: str, aml_mirror: Call) -> None:
    url = f"{front}/mlflow"
    assert aml_mirror(*words(run, model_name, url)).json["outcome"] == "mirrored"
    aml_mirror("verify", f"{model_name}:1", "--tracking-uri", url)
    assert aml_mirror(*words(run, model_name, f"{url}/")).json["outcome"] == "already-mirrored"


def test_a_body_limit(front: str, run: Path, model_name: str, aml_mirror: Call) -> None:
    done = aml_mirror(*words(run, model_name, f"{front}/small"), code=78).json
    assert "413" in done["error"] and "client_max_body_size" in done["hint"]
    # Once it is raised, the same command continues.
    done = aml_mirror(*words(run, model_name, f"{front}/mlflow")).json
    assert (done["outcome"], done["model_version"]) == ("mirrored", "1")


def test_a_login(front: str, run: Path, model_name: str, aml_mirror: Call) -> None:
    asked = words(run, model_name, f"{front}/user")
    for login in ({}, {"MLFLOW_TRACKING_USERNAME": "robot", "MLFLOW_TRACKING_PASSWORD": "wr0ng-secret"}):
        refused = aml_mirror(*asked, code=77, **login)
        assert "401" in refused.json["error"] and "<" not in refused.json["error"]
        assert "MLFLOW_TRACKING_USERNAME" in refused.json["hint"]
        assert "wr0ng-secret" not in refused.out + refused.err
    login = {"MLFLOW_TRACKING_USERNAME": "robot", "MLFLOW_TRACKING_PASSWORD": "right"}
    assert aml_mirror(*asked, **login).json["outcome"] == "mirrored"


def test_a_page_to_log_in(front: str, run: Path, model_name: str, aml_mirror: Call) -> None:
    # Without --retry-for it must not wait.
    asked = ("mirror", run, "--model-name", model_name, "--tracking-uri", f"{front}/sso", "--json")
    refused = aml_mirror(*asked, code=77)
    assert "login page" in refused.json["error"] and f"{front}/login" in refused.json["error"]
    assert "SECRET" not in refused.out + refused.err and "<" not in refused.json["error"]


def test_no_server_behind_it(front: str, run: Path, model_name: str, aml_mirror: Call) -> None:
    refused = aml_mirror(*words(run, model_name, f"{front}/down"), code=75).json
    assert "502" in refused["error"] and "<" not in refused["error"]


def test_a_certificate_that_nobody_trusts(
    mlflow_url: str, run: Path, model_name: str, aml_mirror: Call, tmp_path: Path
) -> None:
    folder = tmp_path / "tls"
    folder.mkdir()
    write_certificates(folder)
    lines = f"ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server-key.pem;"
    through = f"proxy_set_header Host {urlsplit(mlflow_url).netloc}; proxy_pass {mlflow_url}/;"
    with nginx(folder / "run", f"location / {{ {through} }}", lines, ssl=True) as url:
        refused = aml_mirror(*words(run, model_name, url), code=78).json
        assert "certificate" in refused["error"] and url in refused["error"]
        assert "MLFLOW_TRACKING_SERVER_CERT_PATH" in refused["hint"]
        trusted = {"MLFLOW_TRACKING_SERVER_CERT_PATH": str(folder / "ca.pem")}
        assert aml_mirror(*words(run, model_name, url), **trusted).json["outcome"] == "mirrored"
