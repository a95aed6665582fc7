"""library_internals.py: each test fails if the library internals that it uses change."""

from __future__ import annotations

import argparse
import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from azure.core.credentials import AccessToken
from azure.identity import ChainedTokenCredential
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.service_pb2 import LogBatch
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

from aml_mirror.support.library_internals import (
    StatusOfAnswers,
    actions_of,
    call_endpoint,
    flags_of_command,
    headers_behind,
    host_credentials,
    metric_history_page,
    s3_client,
    send_whole_from_now_on,
    sends_in_parts,
    successful_credential,
)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that answers everything with 503 and asks to wait for 7 seconds."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.send_header("Retry-After", "7")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"no")

        do_POST = do_GET

        def log_message(self, *arguments: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def test_a_body_of_our_own_arrives_and_a_page_of_a_history_is_read(mlflow_url: str) -> None:
    client = MlflowClient(mlflow_url, mlflow_url)
    run = client.create_run("0")
    metrics = [{"key": "loss", "value": 0.5, "timestamp": 1, "step": step} for step in range(3)]
    body = {"run_id": run.info.run_id, "metrics": metrics, "tags": [{"key": "a", "value": "b"}]}
    call_endpoint(client, LogBatch, json.dumps(body))
    assert client.get_run(run.info.run_id).data.tags["a"] == "b"
    assert [row.step for row in metric_history_page(client, run.info.run_id, "loss", 2)] == [0, 1]


def test_an_artifact_repository_knows_the_server_and_its_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    repository = HttpArtifactRepository("http://mlflow.example:5000/api/2.0/mlflow-artifacts/artifacts/1")
    found = host_credentials(repository)
    assert (found.host, found.token) == (repository.artifact_uri, "t0ken")


def test_a_chain_knows_which_credential_gave_the_token() -> None:
    class Fixed:
        def get_token(self, *scopes: str, **more: object) -> AccessToken:
            return AccessToken("t", 1 << 40)

    one = Fixed()
    chain = ChainedTokenCredential(one)  # type: ignore[arg-type]
    assert successful_credential(chain) is None
    chain.get_token("scope")
    assert successful_credential(chain) is one


def test_urllib3_logs_the_status_of_every_answer(answers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    handler = StatusOfAnswers(told.append)
    logger = logging.getLogger("urllib3.connectionpool")
    logger.addHandler(handler)
    monkeypatch.setattr(logger, "level", logging.DEBUG)
    logger.manager._clear_cache()  # type: ignore[attr-defined]
    try:
        requests.get(answers, timeout=600)
    finally:
        logger.removeHandler(handler)
        logger.manager._clear_cache()  # type: ignore[attr-defined]
    assert told == [503]


@pytest.mark.parametrize("method", ["search_experiments", "get_run"])
def test_the_headers_of_the_answer_are_behind_the_exception(answers: str, method: str) -> None:
    client = MlflowClient(answers, answers)
    with pytest.raises(MlflowException) as caught:
        getattr(client, method)(*(["r"] if method == "get_run" else []))
    headers = headers_behind(caught.value)
    assert headers is not None and headers["Retry-After"] == "7"
    assert headers_behind(ValueError("no answer at all")) is None


def test_a_parser_tells_its_arguments_and_those_of_its_commands() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    commands.add_parser("go").add_argument("--far", "-f")
    parser.add_argument("--quiet")
    assert [action.option_strings for action in actions_of(parser)][-1] == ["--quiet"]
    assert flags_of_command(parser, "go") == ["--help", "--far"]
    assert flags_of_command(parser, "none") == []


def test_an_artifact_repository_can_be_kept_from_sending_in_parts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "true")
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", "10")
    (tmp_path / "small").write_bytes(b"x")
    (tmp_path / "large").write_bytes(b"x" * 10)
    repository = MlflowArtifactsRepository("mlflow-artifacts:/1", "http://mlflow.example:5000")
    assert not sends_in_parts(repository, str(tmp_path / "small"))
    assert sends_in_parts(repository, str(tmp_path / "large"))
    send_whole_from_now_on(repository)
    assert not sends_in_parts(repository, str(tmp_path / "large"))


def test_a_repository_in_s3_has_a_client_of_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    found = s3_client(S3ArtifactRepository("s3://bucket/root"))
    assert found.meta.endpoint_url == "http://127.0.0.1:9"
    assert found.exceptions.NoSuchKey
