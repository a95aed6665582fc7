"""Where a server stores its files: a path on its own disk, a store whose package is missing, nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from builders import mlflow_servers
from builders.program import Call
from builders.proxy import Proxy
from builders.runs import huggingface_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A small run."""
    return huggingface_run(tmp_path / "run-a", points=3)


@pytest.fixture(scope="module")
def path_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mlflow_servers.Server]:
    """A server whose artifact root is a path on its disk, which every client accesses directly."""
    folder = tmp_path_factory.mktemp("path-server")
    with mlflow_servers.server(
        folder / "server", "--no-serve-artifacts", "--default-artifact-root", str(folder / "root")
    ) as running:
        yield running


def nothing_sent(proxy: Proxy) -> bool:
    """Whether no run was created and no file sent."""
    return not [path for _, path in proxy.seen if "runs/" in path or "mlflow-artifacts" in path]


def test_a_path_is_refused_before_anything_is_sent(
    path_server: mlflow_servers.Server, run: Path, model_name: str, aml_mirror: Call
) -> None:
    root = path_server.folder.parent / "root"
    with Proxy(path_server.url) as proxy:
        target = ("--model-name", model_name, "--tracking-uri", proxy.url)
        refused = aml_mirror("mirror", run, *target, "--json", code=78)
        assert nothing_sent(proxy)
    assert str(root) in refused.json["error"]
    assert "--serve-artifacts" in refused.json["hint"]
    assert "--artifacts-on-this-host" in refused.json["hint"]
    assert not root.exists()
    # Nothing is left that would prevent the use of a corrected server.
    client = MlflowClient(path_server.url, path_server.url)
    assert client.get_experiment_by_name(model_name) is None
    target = ("--model-name", model_name, "--tracking-uri", path_server.url)
    assert str(root) in aml_mirror("doctor", run, *target, code=78).out


def test_a_path_of_an_experiment_that_exists(
    path_server: mlflow_servers.Server, run: Path, model_name: str, aml_mirror: Call
) -> None:
    MlflowClient(path_server.url, path_server.url).create_experiment(model_name, "file:///nowhere/else")
    with Proxy(path_server.url) as proxy:
        refused = aml_mirror(
            "mirror", run, "--model-name", model_name, "--tracking-uri", proxy.url, "--json", code=78
        )
        assert nothing_sent(proxy)
    assert "file:///nowhere/else" in refused.json["error"]


def test_a_path_on_this_host_where_the_person_says_so(
    path_server: mlflow_servers.Server, run: Path, model_name: str, aml_mirror: Call
) -> None:
    target = ("--tracking-uri", path_server.url, "--artifacts-on-this-host", "--json")
    assert aml_mirror("mirror", run, "--model-name", model_name, *target).json["outcome"] == "mirrored"
    assert list((path_server.folder.parent / "root").rglob("model.safetensors"))
    assert aml_mirror("verify", f"{model_name}:1", *target).json["outcome"] == "verified"
    # Without the flag it is unknown whether the files are missing or elsewhere.
    aml_mirror("verify", f"{model_name}:1", "--tracking-uri", path_server.url, code=78)


def test_a_store_whose_package_is_missing(
    mlflow_url: str, client: MlflowClient, run: Path, model_name: str, aml_mirror: Call
) -> None:
    client.create_experiment(model_name, "gs://bucket/root")
    with Proxy(mlflow_url) as proxy:
        target = ("--model-name", model_name, "--tracking-uri", proxy.url)
        refused = aml_mirror("mirror", run, *target, "--json", code=78)
        assert nothing_sent(proxy)
        assert "google" in refused.json["error"]
        assert "gs://bucket/root" in refused.json["error"]
        told = aml_mirror("doctor", run, *target, code=78).out
        assert "google" in told


def test_a_server_that_no_longer_serves_artifacts(
    tmp_path: Path, run: Path, model_name: str, aml_mirror: Call
) -> None:
    options = ("--no-serve-artifacts", "--default-artifact-root", "mlflow-artifacts:/")
    with mlflow_servers.server(tmp_path / "server", *options) as running, Proxy(running.url) as proxy:
        refused = aml_mirror(
            "mirror", run, "--model-name", model_name, "--tracking-uri", proxy.url, "--json", code=78
        )
        assert not [path for _, path in proxy.seen if "runs/" in path]
    assert "--serve-artifacts" in refused.json["error"]


def test_an_artifact_store_that_nobody_knows(
    mlflow_url: str, client: MlflowClient, run: Path, model_name: str, aml_mirror: Call
) -> None:
    client.create_experiment(model_name, "oss://bucket/root")
    refused = aml_mirror(
        "mirror", run, "--model-name", model_name, "--tracking-uri", mlflow_url, "--json", code=78
    )
    assert "oss://bucket/root" in refused.json["error"]
    assert "plugin" in refused.json["hint"]
