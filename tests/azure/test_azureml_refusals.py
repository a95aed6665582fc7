"""Refusals by a service, a network or an owner: one line, a specific hint, the exit code, and no waiting.

The answers are from reports about the real services. `--retry-for` is ten minutes in each case: if waiting
cannot help, the program does not repeat a request.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from azure_emulator.client import Azure
from builders.runs import huggingface_run
from mirroring import Mirroring

PRIVATE_LINK = {
    "error": {
        "code": "Forbidden",
        "message": "Access to workspace was denied based on workspace private link configuration",
    }
}
NO_PATH = {
    "error": {
        "code": "UserError",
        "message": "The request is invalid.",
        "details": [
            {
                "code": "ModelAssetPathNotFoundInStorage",
                "message": "Nothing was found at runs/x.",
                "details": [],
            }
        ],
    }
}


@dataclass(frozen=True)
class Refusal:
    """Which request is refused and how, and what the user sees."""

    match: str
    status: int
    body: Any
    code: int
    said: str
    hint: str
    headers: dict[str, str] = field(default_factory=dict)


PRIVATE = (78, "private endpoint", "network that is linked")
MANAGEMENT = r"GET https://management\.[^?]*/workspaces/"
REFUSALS = {
    # azure-docs#90426 and azure-cli-extensions#6294.
    "private link, 502": Refusal(MANAGEMENT, 502, PRIVATE_LINK, *PRIVATE),
    "private link, 403": Refusal(MANAGEMENT, 403, PRIVATE_LINK, *PRIVATE),
    "private link, 403 of the runs": Refusal(
        "/mlflow/v2.0", 403, PRIVATE_LINK, *PRIVATE
    ),
    "private link, 502 of the runs": Refusal(
        "/mlflow/v2.0", 502, PRIVATE_LINK, *PRIVATE
    ),
    # Recorded envelope, azure-docs#103778.
    "a path without files": Refusal(
        r"PUT https://management\.[^?]*/versions/", 400, NO_PATH, 78,
        "400 ModelAssetPathNotFoundInStorage): Nothing was found at runs/x.", "",
    ),
    "a retention policy": Refusal(
        "PUT https://[^?]*/model/model.safetensors", 409, "", 78, "a retention policy or legal hold",
        "exempt the folder aml-mirror", {"x-ms-error-code": "BlobImmutableDueToPolicy"},
    ),
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return huggingface_run(tmp_path / "run-7", steps=(20,), points=3)


def refused(mirroring: Mirroring, run: Path, code: int, **environment: str) -> tuple[str, str]:
    """Mirror, which must fail; return the one line and the hint."""
    done = mirroring.mirror(run, "reach", "--retry-for", "10m", code=code, **environment)
    assert "Traceback" not in done.err
    assert len([line for line in done.err.splitlines() if line.startswith("error: ")]) == 1, done.err
    assert "trying again" not in done.err
    return str(done.json["error"]), str(done.json["hint"])


@pytest.mark.parametrize("name", REFUSALS)
def test_refused_for_good(azure: Azure, mirroring: Mirroring, run: Path, name: str) -> None:
    one = REFUSALS[name]
    body = one.body if isinstance(one.body, str) else json.dumps(one.body)
    azure.fault("status", match=one.match, status=one.status, times=0, body=body, headers=one.headers)
    said, hint = refused(mirroring, run, one.code)
    assert one.said in said
    assert one.hint in hint
    assert "role" not in said


@pytest.mark.parametrize(("status", "code"), [(407, 78), (403, 78)])
def test_a_proxy_that_refuses_connect(
    azure: Azure, mirroring: Mirroring, run: Path, status: int, code: int
) -> None:
    """azure-cli#25126: not a missing identity."""
    azure.set(proxy_status=status)
    said, hint = refused(mirroring, run, code)
    assert "the proxy on the way to" in said and str(status) in said
    assert "HTTPS_PROXY" in hint
    assert "identity" not in said


def test_the_default_datastores_container_is_missing(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    azure.set_datastore(container="gone")
    said, hint = refused(mirroring, run, 78)
    assert "container gone of storage account" in said and "ContainerNotFound" in said
    assert "default datastore" in hint


def test_a_deleted_experiment(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    azure.mlflow.delete_experiment(azure.mlflow.create_experiment("reach"))
    said, hint = refused(mirroring, run, 78)
    assert "the experiment 'reach' was deleted" in said
    assert "--experiment" in hint


class _NoIdentity(BaseHTTPRequestHandler):
    """The metadata endpoint of a machine without the identity (azure-sdk-for-python#38826)."""

    def do_GET(self) -> None:
        body = b'{"error":"invalid_request","error_description":"Identity not found"}'
        self.send_response(400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        return


@pytest.fixture
def metadata_endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _NoIdentity)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_an_identity_that_the_machine_does_not_have(
    mirroring: Mirroring, run: Path, metadata_endpoint: str
) -> None:
    said, hint = refused(
        mirroring, run, 78,
        AZURE_TOKEN_CREDENTIALS="ManagedIdentityCredential", AZURE_FEDERATED_TOKEN_FILE="",
        AZURE_POD_IDENTITY_AUTHORITY_HOST=metadata_endpoint,
    )  # fmt: skip
    assert "no such managed identity (Identity not found)" in said
    assert "AZURE_CLIENT_ID" in hint


def test_senders_that_meet_the_same_trouble_say_it_once(
    azure: Azure, mirroring: Mirroring, tmp_path: Path
) -> None:
    names = ("train/loss", "train/grad_norm", "eval/reward", "eval/success", "train/lr")
    run = huggingface_run(tmp_path / "run-8", steps=(20,), points=250, series=names)
    azure.fault("status", match="runs/log-batch", nth=2, times=8, status=429, headers={"Retry-After": "1"})
    done = mirroring.mirror(run, "reach")
    assert done.err.count("failed with 429; trying again") == 1
