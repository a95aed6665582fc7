"""Artifacts in object stores: S3, Azure blobs and Data Lake accessed directly, and S3 through the server."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient
from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from aml_mirror.core.errors import MirrorError
from aml_mirror.registries.mlflow.artifact_store import ArtifactStores
from aml_mirror.registries.mlflow.file_parts import PART_BYTES, parts_of
from aml_mirror.registries.mlflow_errors import translate
from aml_mirror.support.retry import Retry
from builders import mlflow_servers
from builders.data_lake import DataLake, data_lake
from builders.object_stores import ACCOUNT, azurite, s3, s3_client
from builders.program import Call
from builders.proxy import Page, Proxy
from builders.runs import huggingface_run

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@dataclass(frozen=True)
class Store:
    """A store that the program accesses directly: its root, the variables that it needs, and its own
    client.
    """

    root: str
    variables: dict[str, str]
    blobs: Any

    def names(self, below: str) -> list[str]:
        """The names of the objects below a prefix."""
        if isinstance(self.blobs, DataLake):
            return [name for name in self.blobs.files if name.startswith(below)]
        if isinstance(self.blobs, BlobServiceClient):
            container = self.blobs.get_container_client("container")
            return list(container.list_blob_names(name_starts_with=below))
        found = self.blobs.list_objects_v2(Bucket="bucket", Prefix=below)
        return [item["Key"] for item in found.get("Contents", [])]

    def delete(self, name: str) -> None:
        """Delete one object."""
        if isinstance(self.blobs, DataLake):
            del self.blobs.files[name]
            return
        if isinstance(self.blobs, BlobServiceClient):
            self.blobs.get_blob_client("container", name).delete_blob()
        else:
            self.blobs.delete_object(Bucket="bucket", Key=name)

    def put(self, name: str) -> None:
        """Write one object."""
        if isinstance(self.blobs, DataLake):
            self.blobs.files[name] = b"somebody's"
        elif isinstance(self.blobs, BlobServiceClient):
            self.blobs.get_blob_client("container", name).upload_blob(b"somebody's")
        else:
            self.blobs.put_object(Bucket="bucket", Key=name, Body=b"somebody's")


@pytest.fixture(scope="module")
def s3_variables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with s3(tmp_path_factory.mktemp("s3")) as variables:
        yield variables


@pytest.fixture(scope="module")
def azure_variables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with azurite(tmp_path_factory.mktemp("azurite")) as variables:
        yield variables


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataLake]:
    with data_lake(tmp_path_factory.mktemp("lake")) as running:
        yield running


@pytest.fixture(params=["s3", "wasbs", "abfss"])
def store(request: pytest.FixtureRequest) -> Store:
    if request.param == "s3":
        variables = request.getfixturevalue("s3_variables")
        return Store("s3://bucket", variables, s3_client(variables))
    if request.param == "abfss":
        running = request.getfixturevalue("lake")
        return Store(running.root, running.variables, running)
    variables = request.getfixturevalue("azure_variables")
    text = variables["AZURE_STORAGE_CONNECTION_STRING"]
    root = f"wasbs://container@{ACCOUNT}.blob.core.windows.net"
    return Store(root, variables, BlobServiceClient.from_connection_string(text))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return huggingface_run(tmp_path / "run-o", points=3)


def test_a_version_in_an_object_store(
    store: Store, client: MlflowClient, mlflow_url: str, run: Path, model_name: str, aml_mirror: Call,
    tmp_path: Path,
) -> None:  # fmt: skip
    client.create_experiment(model_name, f"{store.root}/{model_name}")
    target = ("--model-name", model_name, "--tracking-uri", mlflow_url)
    assert all(
        line.startswith("ok")
        for line in aml_mirror("doctor", run, *target, "--probe", **store.variables).out.splitlines()
    )
    first = aml_mirror("mirror", run, *target, "--json", **store.variables).json
    assert first["outcome"] == "mirrored"
    verify = ("verify", f"{model_name}:1", "--tracking-uri", mlflow_url, "--json")
    assert aml_mirror(*verify, **store.variables).json["outcome"] == "verified"
    pull = ("pull", f"{model_name}:1", tmp_path / "pulled", "--tracking-uri", mlflow_url, "--retry-for", "5s")
    assert aml_mirror(*pull, **store.variables).json["outcome"] == "pulled"
    # Somebody tidies up the store.
    (weights,) = [name for name in store.names(model_name) if name.endswith("/model.safetensors")]
    store.delete(weights)
    lost = aml_mirror(*verify, code=65, **store.variables).json
    assert (lost["outcome"], lost["missing"]) == ("differs", ["model.safetensors"])
    again = aml_mirror("mirror", run, *target, "--json", **store.variables).json
    assert (again["outcome"], again["model_version"]) == ("mirrored", "1")
    assert aml_mirror(*verify, **store.variables).json["outcome"] == "verified"
    again = aml_mirror("mirror", run, *target, "--json", **store.variables).json
    assert again["outcome"] == "already-mirrored"


def test_repair_deletes_what_was_added_and_nothing_else(
    store: Store, client: MlflowClient, mlflow_url: str, run: Path, model_name: str, aml_mirror: Call
) -> None:
    client.create_experiment(model_name, f"{store.root}/{model_name}")
    uri, variables = ("--tracking-uri", mlflow_url), store.variables
    aml_mirror("mirror", run, "--model-name", model_name, *uri, **variables)
    (config,) = [name for name in store.names(model_name) if name.endswith("/model/config.json")]
    folder = config.removesuffix("config.json")
    store.put(f"{folder}extra")
    store.put(f"{folder}extra.txt")
    repair = ("repair", f"{model_name}:1", "--source", run, *uri)
    can_delete = not isinstance(store.blobs, DataLake)
    done = aml_mirror(*repair, code=0 if can_delete else 65, **variables)
    if not can_delete:
        assert "extra does not belong to the version, and was left: MLflow's client cannot" in done.err
        for name in ("extra", "extra.txt"):
            store.delete(folder + name)
    # MLflow's client deletes every object whose name begins like this.
    store.put(f"{folder}config")
    done = aml_mirror(*repair, code=65, **variables)
    assert "config does not belong to the version, and was left: MLflow's client might delete" in done.err
    assert config in store.names(model_name)
    store.delete(f"{folder}config")
    aml_mirror("verify", f"{model_name}:1", *uri, **variables)


def test_a_file_is_read_in_parts(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in store.variables.items():
        monkeypatch.setenv(name, value)
    require_read_in_parts(get_artifact_repository(f"{store.root}/parts"), tmp_path, monkeypatch)


@pytest.mark.parametrize("server", ["mlflow_url", "mlflow2_url"])
def test_a_file_of_a_server_is_read_in_parts(
    server: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = request.getfixturevalue(server)
    require_read_in_parts(
        get_artifact_repository("mlflow-artifacts:/parts", tracking_uri=url), tmp_path, monkeypatch
    )


def require_read_in_parts(repository: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a large file and read it, without a place for temporary files and without all of it in memory."""
    large = tmp_path / "large.bin"
    large.write_bytes(b"0123456789abcdef" * (2 * PART_BYTES // 16) + b"end")
    repository.log_artifact(str(large), "model")
    # No temporary folder can be created, so nothing may go through one.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    digest, longest, count = hashlib.sha256(), 0, 0
    for part in parts_of(repository, "model/large.bin"):
        digest.update(part)
        longest, count = max(longest, len(part)), count + 1
    assert digest.digest() == hashlib.sha256(large.read_bytes()).digest()
    assert longest <= PART_BYTES and count >= 3
    assert list(parts_of(repository, "model/nothing.bin")) == []


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({**dict.fromkeys(KEYS, ""), "AWS_EC2_METADATA_DISABLED": "true"}, 77, "login"),
        ({"MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:9"}, 75, "does not answer"),
    ],
)  # fmt: skip
def test_a_store_that_lets_nobody_in(
    s3_variables: dict[str, str], client: MlflowClient, mlflow_url: str, run: Path, model_name: str,
    aml_mirror: Call, change: dict[str, str], code: int, said: str,
) -> None:  # fmt: skip
    client.create_experiment(model_name, "s3://bucket/refused")
    with Proxy(mlflow_url) as proxy:
        words = ("mirror", run, "--model-name", model_name, "--tracking-uri", proxy.url)
        variables = {**s3_variables, **change}
        done = aml_mirror(*words, "--json", "--retry-for", "0", code=code, **variables).json
        assert not [path for _, path in proxy.seen if "runs/" in path]
    assert "s3://bucket/refused" in done["error"] and said in done["error"]


def checked(root: str) -> MirrorError:
    """The error of an artifact store that cannot be used, without retries of ours."""
    server = "http://127.0.0.1:9"
    retry = Retry(0.0, lambda error: translate(error, server), lambda text: None)
    with pytest.raises(MirrorError) as refused:
        ArtifactStores(MlflowClient(server, server), server, False, retry).check(root)
    return refused.value


def test_azure_is_asked_as_often_as_retry_for_says(
    lake: DataLake, azure_variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in lake.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(lake, "is_down", True)
    before = lake.asked
    assert f"{lake.root}/busy failed with" in checked(f"{lake.root}/busy").message
    assert lake.asked == before + 1
    text = azure_variables["AZURE_STORAGE_CONNECTION_STRING"]
    (endpoint,) = re.findall("BlobEndpoint=(http://[^/]+)", text)
    with Proxy(endpoint) as proxy:
        proxy.interfere = lambda number, moment, method, path: 503
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text.replace(endpoint, proxy.url))
        assert checked(f"wasbs://container@{ACCOUNT}.blob.core.windows.net/busy").exit_code == 75
        assert len(proxy.seen) == 1


@pytest.mark.parametrize(
    ("root", "variable"),
    [
        ("abfss://fs@lab.dfs.core.windows.net/root", "AZURE_STORAGE_SAS_TOKEN"),
        ("wasbs://fs@lab.blob.core.windows.net/root", "AZURE_STORAGE_CONNECTION_STRING"),
    ],
)
def test_azure_without_a_login(root: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    refused = checked(root)
    assert f"the artifact store {root} needs a login" in refused.message and variable in refused.hint


def test_a_bucket_that_is_not_there(
    s3_variables: dict[str, str], client: MlflowClient, mlflow_url: str, run: Path, model_name: str,
    aml_mirror: Call,
) -> None:  # fmt: skip
    client.create_experiment(model_name, "s3://no-such-bucket/root")
    words = ("mirror", run, "--model-name", model_name, "--tracking-uri", mlflow_url, "--json")
    done = aml_mirror(*words, code=78, **s3_variables).json
    assert "s3://no-such-bucket/root" in done["error"] and "bucket" in done["hint"]


@pytest.fixture(scope="module")
def s3_server(
    s3_variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[mlflow_servers.Server]:
    """A server that stores artifacts in S3 and lets clients upload large ones there in parts."""
    folder = tmp_path_factory.mktemp("s3-server")
    options = ("--artifacts-destination", "s3://bucket/served")
    with mlflow_servers.server(folder, *options, environment=s3_variables) as running:
        yield running


@pytest.mark.parametrize("offer", ["taken", "unknown", "unreachable"])
def test_large_files_go_in_parts_where_the_server_offers_it(
    s3_server: mlflow_servers.Server, model_name: str, aml_mirror: Call, tmp_path: Path, offer: str
) -> None:
    run = huggingface_run(tmp_path / "run-l", points=1, steps=(20,), size=1700)
    assert (run / "checkpoint-20" / "model.safetensors").stat().st_size > 11 << 20

    def interfere(number: int, moment: str, method: str, path: str) -> Page | None:
        if offer == "taken" or "/mpu/" not in path:
            return None
        if "mpu/abort" in path:
            return Page(200, "{}", {"Content-Type": "application/json"})
        if offer == "unknown":
            # An older server without this address.
            return Page(404, "<html>not found</html>")
        # An address in a network that the program cannot reach.
        away = {"url": "http://127.0.0.1:9/x?X-Amz-Signature=SECRET", "part_number": 1, "headers": {}}
        text = json.dumps({"upload_id": "1", "credentials": [away]})
        return Page(200, text, {"Content-Type": "application/json"})

    with Proxy(s3_server.url) as proxy:
        proxy.interfere = interfere
        target = ("--tracking-uri", proxy.url, "--json")
        parts = {"MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": str(8 << 20)}
        done = aml_mirror("mirror", run, "--model-name", model_name, *target, **parts)
        assert done.json["outcome"] == "mirrored"
        assert "SECRET" not in done.out + done.err
        whole = [path for method, path in proxy.seen if method == "PUT" and "model.safetensors" in path]
        finished = [path for _, path in proxy.seen if "mpu/complete" in path]
        assert (len(whole), len(finished)) == ((0, 1) if offer == "taken" else (1, 0))
        assert aml_mirror("verify", f"{model_name}:1", *target).json["outcome"] == "verified"
        # A file that an unsigned version does not have: a server in front of a store may answer 500.
        pull = ("pull", f"{model_name}:1", tmp_path / "pulled", *target, "--retry-for", "5s")
        assert aml_mirror(*pull).json["outcome"] == "pulled"
