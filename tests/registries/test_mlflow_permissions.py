"""A server with MLflow's own access control: the error names the missing permission and its object."""

from __future__ import annotations

import json
import sqlite3
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from werkzeug.security import generate_password_hash

from builders import mlflow_servers
from builders.program import Call
from builders.runs import huggingface_run

PASSWORD = "a-long-password-1"


@dataclass(frozen=True)
class Guarded:
    """A server with a login. Its administrator is ``admin``."""

    url: str

    def ask(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send a request as its administrator."""
        request = urllib.request.Request(f"{self.url}/api/{path}", json.dumps(body).encode(), method=method)
        request.add_header("Content-Type", "application/json")
        request.add_header("Authorization", "Basic " + b64encode(f"admin:{PASSWORD}".encode()).decode())
        with urllib.request.urlopen(request, timeout=600) as answer:
            found: dict[str, Any] = json.loads(answer.read() or b"{}")
        return found

    def grant(self, kind: str, name: str, permission: str) -> None:
        """Grant the user ``robot`` a permission on one object."""
        granted = {"username": "robot", "resource_type": kind, "resource_id": name, "permission": permission}
        self.ask("POST", "3.0/mlflow/users/permissions/grant", granted)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    config = folder / "auth.ini"
    config.write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/auth.db\n"
        f"admin_username = admin\nadmin_password = {PASSWORD}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    options = ("--app-name", "basic-auth")
    variables = {"MLFLOW_AUTH_CONFIG_PATH": str(config), "MLFLOW_FLASK_SERVER_SECRET_KEY": "only-for-tests"}
    with mlflow_servers.server(folder / "server", *options, environment=variables) as running:
        server = Guarded(running.url)
        server.ask("POST", "2.0/mlflow/users/create", {"username": "robot", "password": PASSWORD})
        _store_cheap_hashes(folder / "auth.db")
        yield server


def _store_cheap_hashes(database: Path) -> None:
    """Hash the passwords with a single round. The server checks one per request, which takes 0.1 s of CPU."""
    cheap = generate_password_hash(PASSWORD, method="pbkdf2:sha256:1")
    with closing(sqlite3.connect(database)) as connection, connection:
        assert connection.execute("UPDATE users SET password_hash = ?", (cheap,)).rowcount == 2


def test_what_a_login_lacks(guarded: Guarded, model_name: str, aml_mirror: Call, tmp_path: Path) -> None:
    run = huggingface_run(tmp_path / "run-a", points=2)
    robot = {"MLFLOW_TRACKING_USERNAME": "robot", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    target = ("--model-name", model_name, "--tracking-uri", guarded.url)
    # Somebody else created the experiment. Others may read it.
    made = guarded.ask("POST", "2.0/mlflow/experiments/create", {"name": model_name})["experiment_id"]
    refused = aml_mirror("mirror", run, *target, "--json", code=77, **robot).json
    assert "EDIT on the experiment" in refused["error"] and made in refused["error"]
    told = aml_mirror("doctor", run, *target, "--probe", code=77, **robot).out
    assert "EDIT on the experiment" in told
    guarded.grant("experiment", made, "EDIT")
    # The model belongs to somebody else, too.
    guarded.ask("POST", "2.0/mlflow/registered-models/create", {"name": model_name})
    refused = aml_mirror("mirror", run, *target, "--json", code=77, **robot).json
    assert f"EDIT on the model {model_name}" in refused["error"]
    told = aml_mirror("doctor", run, *target, "--probe", code=77, **robot).out
    assert f"EDIT on the model {model_name}" in told
    guarded.grant("registered_model", model_name, "EDIT")
    assert all(
        line.startswith("ok")
        for line in aml_mirror("doctor", run, *target, "--probe", **robot).out.splitlines()
    )
    done = aml_mirror("mirror", run, *target, "--json", **robot).json
    assert (done["outcome"], done["model_version"]) == ("mirrored", "1")
