"""Workflows submitted to the stub, which runs their tasks as OSMO would, with an emulated Azure ML."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from aml_mirror.core.errors import DataError
from aml_mirror.core.settings import Settings
from aml_mirror.sources.registry import open_source
from azure_emulator.client import Azure
from builders.program import ABSENT, PROGRAM
from builders.runs import huggingface_run
from mirroring import assert_exactly_once
from osmo_world import OsmoWorld
from this_process import here  # noqa: F401 - a fixture

WORKFLOWS = Path(__file__).parents[2] / "workflows"
POINTS = 30
ENDED = ("COMPLETED", "FAILED", "FAILED_CANCELED")


@pytest.fixture
def cluster(osmo: OsmoWorld, azure: Azure) -> OsmoWorld:
    """A control plane whose pods have both programs, and whose pod template has the coordinates."""
    with osmo.changed() as state:
        # OSMO appends its own folder to the image's PATH.
        state["pod_path"] = os.pathsep.join((str(Path(PROGRAM).parent), os.environ["PATH"], str(osmo.bin)))
        state["pod_env"] = azure.env(PYTHONPATH=ABSENT)
    return osmo


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return huggingface_run(tmp_path / "run", points=POINTS)


def submit(osmo: OsmoWorld, workflow: str, *values: str) -> str:
    """Submit a workflow as a user does, and return its id."""
    done = subprocess.run(
        ["osmo", "workflow", "submit", str(WORKFLOWS / workflow), "-t", "json", "--set-string", *values],
        env={**os.environ, **osmo.environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return str(json.loads(done.stdout)["name"])


def wait(osmo: OsmoWorld, name: str) -> dict[str, Any]:
    """Wait for a workflow's end, and return the workflow."""
    for _ in range(1200):
        found: dict[str, Any] = osmo.state["workflows"][name]
        if found["status"] in ENDED and not any(task.get("pid") for task in found["tasks"]):
            return found
        time.sleep(0.1)
    raise AssertionError(found)


def receipt_of(found: dict[str, Any], task: str = "mirror") -> dict[str, Any]:
    """The receipt in a task's log, whose lines start with a date and the task's name."""
    mark = f' [{task}] {{"schema":"aml-mirror/receipt/v1"'
    (line,) = [line for line in found["logs"] if mark in line]
    receipt = json.loads(line.partition(f" [{task}] ")[2])
    assert isinstance(receipt, dict)
    return receipt


def test_a_run_is_replayed_by_its_id_alone(cluster: OsmoWorld, azure: Azure, run: Path) -> None:
    """OSMO knows the location of the run, and the pod template names the target."""
    uri = azure.seed(run, "outputs/train-7")
    declared = uri.removesuffix("train-7") + "{{workflow_id}}"
    cluster.add("train-7", {"train": [declared]})

    found = wait(cluster, submit(cluster, "replay-azureml.yaml", "run_id=train-7", "model_name=reach"))

    log = "\n".join(found["logs"])
    assert found["status"] == "COMPLETED", log
    receipt = receipt_of(found)
    assert receipt["outcome"] == "mirrored"
    assert (receipt["run_id"], receipt["source"]) == ("train-7", uri)
    assert f"run train-7 declared its output in {uri}" in log
    run_id = assert_exactly_once(azure, "reach", run, POINTS)
    tags = azure.mlflow.get_run(run_id).data.tags
    assert (tags["osmo.run_id"], tags["osmo.replay"], tags["osmo.replay_source"]) == (
        "train-7",
        "true",
        "train-7",
    )

    # Mirrored again, by its UUID: still one run and one version.
    identifier = cluster.state["workflows"]["train-7"]["uuid"]
    found = wait(cluster, submit(cluster, "replay-azureml.yaml", f"run_id={identifier}", "model_name=reach"))
    assert receipt_of(found)["outcome"] == "already-mirrored"
    assert_exactly_once(azure, "reach", run, POINTS)


def test_a_training_and_its_mirror_in_one_workflow(cluster: OsmoWorld, azure: Azure, run: Path) -> None:
    """The mirror waits for the training's task, reads the spec of its own workflow, and mirrors."""
    uri = azure.seed(run, "outputs/train-and-mirror-1")
    name = submit(
        cluster,
        "train-and-mirror.yaml",
        f"outputs={uri.rpartition('/')[0]}",
        "model_name=reach",
        "train_command=sleep 2",
    )
    found = wait(cluster, name)
    assert (name, found["status"]) == ("train-and-mirror-1", "COMPLETED"), found["logs"]
    receipt = receipt_of(found)
    assert (receipt["outcome"], receipt["run_id"], receipt["source"]) == ("mirrored", name, uri)
    assert_exactly_once(azure, "reach", run, POINTS)


def test_a_mirror_that_fails_leaves_the_training_complete(cluster: OsmoWorld) -> None:
    found = wait(
        cluster, submit(cluster, "train-and-mirror.yaml", "outputs=azure://acct/runs", "train_command=true")
    )
    status = {task["name"]: (task["status"], task["exit_code"]) for task in found["tasks"]}
    assert status == {"train": ("COMPLETED", 0), "mirror": ("FAILED", 64)}
    assert found["status"] == "FAILED", "it shows"
    assert receipt_of(found)["error"] == "no model name: a version must be registered under one"


def test_a_backlog_is_mirrored_by_shards(
    osmo: OsmoWorld, tmp_path: Path, mlflow_url: str, model_name: str, client: MlflowClient
) -> None:
    """Parallel tasks, each in its own group, together mirror every run once."""
    for number in range(4):
        huggingface_run(tmp_path / "runs" / f"train-{number}", steps=(10,), points=3)
    with osmo.changed() as state:
        state["pod_path"] = os.pathsep.join((str(Path(PROGRAM).parent), os.environ["PATH"]))
    given = [f"source={tmp_path}/runs", f"model_name={model_name}", "shards=2"]
    given.append(f"flags=--tracking-uri {mlflow_url} --json")
    found = wait(osmo, submit(osmo, "backfill-azureml.yaml", *given))
    assert found["status"] == "COMPLETED", found["logs"]
    assert [(task["name"], task["exit_code"]) for task in found["tasks"]] == [("shard-0", 0), ("shard-1", 0)]
    for shard in ("shard-0", "shard-1"):
        assert [line for line in found["logs"] if f"[{shard}]" in line and "train-" in line], found["logs"]
    versions = client.search_model_versions(f"name = '{model_name}'")
    assert sorted(version.tags["osmo.run_id"] for version in versions) == [f"train-{n}" for n in range(4)]


@pytest.mark.usefixtures("here")
def test_complete_with_nothing_in_its_output(
    osmo: OsmoWorld, azure: Azure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OSMO shows COMPLETED even if every file of an upload failed."""
    for name, value in osmo.environment.items():
        monkeypatch.setenv(name, value)
    azure.seed({"other.txt": b"x"}, "outputs/other")
    osmo.add("train-7", {"train": [f"azure://{azure.account}/{azure.container}/outputs/{{{{workflow_id}}}}"]})
    given = Settings(run_id="train-7", retry_seconds=0)
    source = open_source(given)
    with pytest.raises(DataError) as caught:
        source.scan()
    assert caught.value.message.startswith("run train-7 is COMPLETED, but there is nothing below azure://")
    assert "osmo workflow logs" in caught.value.hint

    osmo.add("train-8", {"train": [f"azure://{azure.account}/no-container/x"]}, status="FAILED")
    given = Settings(run_id="train-8", retry_seconds=0, allow_failed=True)
    with pytest.raises(DataError, match="run train-8 is FAILED, but"):
        open_source(given).scan()
