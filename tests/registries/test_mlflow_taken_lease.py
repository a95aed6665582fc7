"""A mirror whose lease another one has now writes nothing more to an MLflow server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from aml_mirror.core.errors import ServiceUnavailable
from aml_mirror.registries import keys
from aml_mirror.registries.mlflow.run_lease import Keeper, Lease
from aml_mirror.registries.mlflow.tracking_server import MlflowRegistry
from aml_mirror.registries.mlflow.writer import MlflowWriter
from aml_mirror.registries.records import Upload
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree

MODEL = "policy"
OF_VERSION = {keys.MODEL_NAME: MODEL, keys.IDENTITY: "i" * 64, keys.ROLE: "final"}
TAGS = {**OF_VERSION, keys.STATE: keys.INCOMPLETE}


@pytest.fixture
def registry(database: str) -> MlflowRegistry:
    return MlflowRegistry(database, 30, lambda text: None)


@pytest.fixture
def writer(registry: MlflowRegistry) -> Iterator[MlflowWriter]:
    found = registry.begin(MODEL, "run", TAGS)
    assert isinstance(found, MlflowWriter)
    yield found
    found.abort("FAILED", "the test is over")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "w").write_bytes(b"weights")
    source = LocalSource(tmp_path / "run")
    return Tree(source, source.scan())


def take(registry: MlflowRegistry, writer: MlflowWriter) -> str:
    """Be another mirror that took the lease after the last renewal."""
    note = Keeper().note()
    registry.client.set_tag(writer.run_id, keys.LEASE, note)
    return note


def versions(client: MlflowClient) -> list[dict[str, str]]:
    return [dict(one.tags) for one in client.search_model_versions(f"name = '{MODEL}'")]


def test_a_lease_that_was_taken_is_noticed_before_the_version_is_registered(
    registry: MlflowRegistry, writer: MlflowWriter
) -> None:
    theirs = take(registry, writer)
    with pytest.raises(ServiceUnavailable, match="another mirror took over"):
        writer.register("", OF_VERSION)
    assert versions(registry.client) == [] and registry.client.search_registered_models() == []
    # The new holder keeps its lease, and the run stays open for it.
    writer.abort("FAILED", "it was taken over")
    run = registry.client.get_run(writer.run_id)
    assert (run.data.tags[keys.LEASE], run.info.status) == (theirs, "RUNNING")


def test_a_lease_that_was_lost_ends_every_write(
    registry: MlflowRegistry, writer: MlflowWriter, tree: Tree
) -> None:
    version = writer.register("", OF_VERSION)
    writer._keeper.lost = True
    writes: list[Callable[[], object]] = [
        lambda: writer.log_params({"lr": "1"}),
        lambda: writer.log_metrics(lambda: iter([("loss", 1.0, 1, 1)]), lambda count: None),
        lambda: writer.put_files(tree, [Upload("w", "model/w", 7)], lambda count: None),
        lambda: writer.register("", OF_VERSION),
        lambda: writer.finish(version),
    ]
    for write in writes:
        with pytest.raises(ServiceUnavailable, match="another mirror took over"):
            write()
    run = registry.client.get_run(writer.run_id)
    assert (run.data.params, run.data.metrics, run.info.status) == ({}, {}, "RUNNING")
    assert registry.client.list_artifacts(writer.run_id) == []
    assert run.data.tags[keys.STATE] == versions(registry.client)[0][keys.STATE] == keys.INCOMPLETE


def test_a_mirror_that_gives_up_releases_its_lease_and_closes_the_run(
    registry: MlflowRegistry, writer: MlflowWriter
) -> None:
    held = Lease.parse(registry.client.get_run(writer.run_id).data.tags[keys.LEASE])
    assert held is not None and not held.owner_is_gone
    writer.abort("KILLED", "AccountKey=abcdefgh12345678==")
    run = registry.client.get_run(writer.run_id)
    assert (run.data.tags[keys.LEASE], run.info.status) == ("", "KILLED")
    assert run.data.tags["mirror.error"] == "AccountKey=***" and run.data.tags[keys.STOPPED]


def test_of_several_versions_of_one_identity_the_first_stays(
    registry: MlflowRegistry, writer: MlflowWriter
) -> None:
    client = registry.client
    client.create_registered_model(MODEL)
    for tags in (TAGS, {**TAGS, keys.IDENTITY: "j" * 64}, TAGS):
        client.create_model_version(MODEL, "runs:/r/model", tags={**tags, keys.MLFLOW_RUN_ID: writer.run_id})
    found = writer.register("", {**OF_VERSION, keys.QUICK_KEY: "now", keys.NOTE: "of the run"})
    assert found.number == "1"
    assert sorted(tags[keys.IDENTITY][0] for tags in versions(client)) == ["i", "j"]
    # What changes from one attempt to the next is the newest one's.
    first = dict(client.get_model_version(MODEL, "1").tags)
    assert first[keys.QUICK_KEY] == "now" and keys.NOTE not in first


def test_the_run_is_complete_before_its_version_and_the_lease_is_released(
    registry: MlflowRegistry, writer: MlflowWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = writer.register("", OF_VERSION)
    assert not version.complete
    real, states = MlflowClient.set_model_version_tag, []

    def mark(client: MlflowClient, model: str, number: str, key: str, value: str) -> None:
        if key == keys.STATE:
            run = client.get_run(writer.run_id)
            states.append((run.data.tags[keys.STATE], run.info.status))
        real(client, model, number, key, value)

    monkeypatch.setattr(MlflowClient, "set_model_version_tag", mark)
    writer.finish(version)
    assert states == [(keys.COMPLETE, "FINISHED")]
    assert versions(registry.client)[0][keys.STATE] == keys.COMPLETE
    assert registry.client.get_run(writer.run_id).data.tags[keys.LEASE] == ""
