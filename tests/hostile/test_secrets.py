"""No secret leaves the program: each command runs with --debug on planted secrets, and its whole output is
searched.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from azure_emulator.client import Azure
from builders import torch_zip
from builders.program import Call
from builders.runs import write_events
from mirroring import Mirroring, artifacts_of

# Nothing in these values shows that they are secrets. Only their place does.
ENVIRONMENT = {
    "MLFLOW_TRACKING_TOKEN": "plantedtrackingtoken1",
    "AZURE_CLIENT_SECRET": "plantedclientsecret2",
    "WANDB_API_KEY": "plantedwandbkey3",
    "HF_TOKEN": "plantedhubtoken4",
    "AWS_SECRET_ACCESS_KEY": "plantedawssecret5",
    "DATABASE_PASSWORD": "plantedpassword6",
    "AZURE_STORAGE_CONNECTION_STRING": "AccountName=a;AccountKey=plantedaccountkey7;x=y",
    "BASE_MODEL": "https://user:plantedinaurl8@host.example/m?sv=2024&sig=plantedsas9%3D&x=1",
    "UNRELATED": "plantedunrelated10",
}
DOTENV = {"MLFLOW_TRACKING_PASSWORD": "planteddotenv11", "MY_SECRET": "planteddotenv12"}
CONFIG = {
    "hub_token": "plantedconfig13",
    "wandb": {"api_key": "plantedconfig14"},
    "data": "https://acct.blob.core.windows.net/c/d?sv=2024-11-04&se=2030&sig=plantedconfig15",
    "conn": "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=plantedconfig16==;EndpointSuffix=x",
    "arguments": ["--lr", "0.1", "--password", "plantedconfig17"],
    "header": "Authorization: Bearer plantedConfig18",
    "key": "A" * 40 + "planted19" + "b" * 37 + "==",
    "learning_rate": 0.001,
}
PLANTED = "planted"
COMMANDS = ("mirror", "plan", "status", "doctor", "backfill", "verify")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose configuration is read and not copied, so only its parameters could reveal a secret."""
    root = tmp_path / "runs" / "run-7"
    torch_zip.save(root / "model_200.pt", {"iter": 200})
    write_events(root / "events.out.tfevents.1760000000.host.1.0", [("Loss/value", 1, 0.5)])
    (root / "params").mkdir()
    # JSON is YAML.
    (root / "params" / "agent.yaml").write_text(json.dumps(CONFIG))
    return root


def given(command: str, run: Path, model: str) -> list[str]:
    """The command line, with secrets where users put them."""
    if command == "verify":
        return ["verify", f"{model}:1", "--debug"]
    where = run.parent if command == "backfill" else run
    line = [command, "--source", str(where), "--model-name", model, "--debug"]
    if command in ("mirror", "backfill"):
        line += ["--tag", "note=see https://h.example/?sig=plantedtag20", "--tag", "hub_token=plantedtag21"]
    return line


def dotenv(folder: Path) -> None:
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in DOTENV.items()))


def assert_nothing_planted(what: str, text: str) -> None:
    at = text.lower().find(PLANTED)
    assert at < 0, f"{what}: …{text[max(0, at - 80) : at + 60]}…"


@pytest.fixture
def echo() -> Iterator[tuple[str, dict[str, Any]]]:
    """A server that refuses everything, and whose answer contains the request and further secrets."""
    answer: dict[str, Any] = {"status": 400, "seen": 0}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer["seen"] += 1
            said = (
                f"refused: {dict(self.headers)} {self.headers.get('Authorization', '').partition(' ')[2]} "
                'sig=plantedechoed22&x AccountKey=plantedechoed23== {"access_token": "plantedechoed24"}'
            )
            body = json.dumps({"error_code": "INVALID_PARAMETER_VALUE", "message": said}).encode()
            self.send_response(answer["status"])
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        def log_message(self, *arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}", answer
    server.shutdown()
    server.server_close()


def test_what_a_mirror_leaves_on_an_mlflow_server(
    run: Path, aml_mirror: Call, mlflow_url: str, client: MlflowClient, model_name: str, tmp_path: Path
) -> None:
    dotenv(tmp_path)
    for command in COMMANDS:
        # The server accepts any credentials. The address contains some, too.
        target = mlflow_url.replace("://", "://robot:plantedinthetarget25@")
        line = [*given(command, run, model_name), "--tracking-uri", target, "--retry-for", "30s"]
        done = aml_mirror(*line, **ENVIRONMENT)
        assert_nothing_planted(command, done.out + done.err)
    experiment = client.get_experiment_by_name(model_name)
    assert experiment
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.data.params, "the configuration was read"
    assert "0.001" in found.data.params.values()
    assert_nothing_planted("run", str(found.to_dictionary()))
    version = client.get_model_version(model_name, "1")
    assert_nothing_planted("version", str(dict(version)))
    assert version.tags["note"].endswith("sig=***")
    (tmp_path / "got").mkdir()
    artifacts = Path(client.download_artifacts(found.info.run_id, "", str(tmp_path / "got")))
    ours = [path for path in artifacts.iterdir() if path.is_file()]
    assert len(ours) >= 5
    for path in ours:
        assert_nothing_planted(path.name, path.read_text())


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
def test_what_is_said_of_a_server_that_says_everything_back(
    run: Path, aml_mirror: Call, echo: tuple[str, dict[str, Any]], tmp_path: Path, status: int
) -> None:
    dotenv(tmp_path)
    host, answer = echo
    answer["status"] = status
    for command in COMMANDS:
        before = answer["seen"]
        target = f"http://robot:plantedinthetarget25@{host}"
        line = [*given(command, run, "m"), "--tracking-uri", target, "--retry-for", "0"]
        done = aml_mirror(*line, code=None, **ENVIRONMENT)
        assert_nothing_planted(f"{command} {status}", done.out + done.err)
        if command != "plan":
            assert done.code and answer["seen"] > before


@pytest.mark.parametrize(
    "name", ["--tag", "--retry-for", "--checkpoint", "--model-name", "--tracking-uri", "--source"]
)
def test_what_is_said_of_a_command_line_with_a_secret_in_the_wrong_place(
    run: Path, aml_mirror: Call, name: str
) -> None:
    secret = "https://u:plantedflag26@h.example/?sig=plantedflag27"
    line = [
        "--source",
        str(run),
        "--model-name",
        "m",
        "--tracking-uri",
        "http://127.0.0.1:9",
        "--retry-for",
        "0",
    ]
    done = aml_mirror(*line, name, secret, "--debug", code=None, **ENVIRONMENT)
    assert done.code
    assert_nothing_planted(name, done.out + done.err)


def test_what_a_mirror_leaves_in_azure(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    dotenv(mirroring.folder)
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "AZURE_CLIENT_SECRET"}
    tokens = Path(azure.env()["AZURE_FEDERATED_TOKEN_FILE"]).read_text()
    for command in COMMANDS:
        done = mirroring(*given(command, run, "reach"), **environment)
        assert_nothing_planted(command, done.out + done.err)
        assert tokens not in done.out + done.err
        assert "eyJ" not in done.out + done.err
        assert "sig=" not in (done.out + done.err).replace("sig=***", "")
    (version,) = azure.models()["reach"].values()
    assert_nothing_planted("version", json.dumps(version))
    experiment = azure.mlflow.get_experiment_by_name("reach")
    assert experiment
    (found,) = azure.mlflow.search_runs([experiment.experiment_id])
    assert found.data.params
    assert_nothing_planted("run", str(found.to_dictionary()))
    for path, data in artifacts_of(azure, found.info.run_id).items():
        if not path.startswith("tensorboard/"):
            assert_nothing_planted(path, data.decode())


@pytest.mark.parametrize("service", ["login", "management", "api.azureml", "blob.core"])
def test_what_is_said_of_an_azure_that_says_secrets(
    azure: Azure, mirroring: Mirroring, run: Path, service: str
) -> None:
    said = (
        "AADSTS7000215 secret plantedclientsecret2 https://a.example/c?sv=1&sig=plantedechoed22 "
        "AccountKey=plantedechoed23== Authorization: Bearer eyJplantedplanted.plantedechoed24.x"
    )
    body = json.dumps({"error": {"code": "Refused", "message": said}, "error_description": said})
    azure.fault(
        "status", match=service, status=403, body=body, times=0, headers={"Content-Type": "application/json"}
    )
    for command in ("mirror", "doctor", "status", "verify"):
        line = given(command, run, "reach") + ([] if command == "doctor" else ["--retry-for", "0"])
        done = mirroring(*line, code=None, WANDB_API_KEY="plantedclientsecret2")
        assert_nothing_planted(command, done.out + done.err)
