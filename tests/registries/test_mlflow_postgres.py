"""PostgreSQL as the tracking URI itself, without a server in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from builders import postgres
from builders.program import Call
from builders.runs import huggingface_run


@pytest.fixture(scope="module")
def uri() -> Iterator[str]:
    server = postgres.start()
    try:
        # Create its tables, and an experiment with an artifact location.
        MlflowClient(server.uri, server.uri).search_experiments(max_results=1)
        yield server.uri
    finally:
        server.stop()


def test_a_database_has_no_artifact_root(uri: str, aml_mirror: Call, tmp_path: Path) -> None:
    run = huggingface_run(tmp_path / "run-d", points=2)
    client = MlflowClient(uri, uri)
    for more in ((), ("--artifacts-on-this-host",)):
        target = ("--model-name", "none", "--tracking-uri", uri, *more)
        refused = aml_mirror("mirror", run, *target, "--json", code=78).json
        assert "has no artifact root" in refused["error"] and "--artifact-location" in refused["hint"]
        assert "has no artifact root" in aml_mirror("doctor", run, *target, code=78).out
    assert client.get_experiment_by_name("none") is None


def test_an_experiment_with_a_path(uri: str, aml_mirror: Call, tmp_path: Path) -> None:
    run = huggingface_run(tmp_path / "run-d", points=2)
    MlflowClient(uri, uri).create_experiment("path", f"file://{tmp_path}/root")
    target = ("--model-name", "path", "--tracking-uri", uri, "--json")
    refused = aml_mirror("mirror", run, *target, code=78).json
    assert f"{tmp_path}/root" in refused["error"] and "--artifacts-on-this-host" in refused["hint"]
    assert not (tmp_path / "root").exists()
    told = (*target, "--artifacts-on-this-host")
    assert aml_mirror("mirror", run, *told).json["outcome"] == "mirrored"
    assert aml_mirror("mirror", run, *told).json["outcome"] == "already-mirrored"
    aml_mirror("verify", "path:1", "--tracking-uri", uri, "--artifacts-on-this-host")
