"""Concurrent changes of a version: numbers with two writers, archived versions, and mirrors that were
paused.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from azure.ai.ml import MLClient

from azure_emulator.client import Azure
from builders.runs import huggingface_run
from mirroring import Mirroring, assert_exactly_once, complete_versions, files_of, wait_until_asked

POINTS = 20


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return huggingface_run(tmp_path / "run-7", steps=(20,), points=POINTS)


@pytest.mark.parametrize("changed", ["accepted", "ignored", "refused"])
def test_two_writers_that_found_one_number_free(
    azure: Azure, mirroring: Mirroring, tmp_path: Path, changed: str
) -> None:
    azure.set_workspace(changed_properties=changed)
    runs = [huggingface_run(tmp_path / f"run-{index}", steps=(index + 1,), points=2) for index in range(2)]
    # The first is slow between finding a free number and taking it.
    azure.fault("stall", match=r"PUT .*/models/reach/versions/1\?", seconds=60)
    first = mirroring.start("--source", runs[0], "--model-name", "reach")
    wait_until_asked(azure, first, "/models/reach/versions/1?")
    second = mirroring.mirror(runs[1], "reach").json
    azure.clear_faults()
    out, err = first.communicate(timeout=600)
    assert first.returncode == 0, err
    assert {json.loads(out)["model_version"], second["model_version"]} == {"1", "2"}
    found = complete_versions(azure, "reach")
    assert {version["properties"]["osmo.run_id"] for version in found.values()} == {"run-0", "run-1"}
    for version in found.values():
        assert set(files_of(azure, version)) == {"model.safetensors", "config.json"}


def test_many_deleted_numbers_are_passed_at_once(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    azure.seed_versions("reach", 80, properties={"identity": "another {n}"})
    for number in range(1, 81):
        azure.call("DELETE", f"models/reach/{number}")
    azure.forget_requests()
    assert mirroring.mirror(run, "reach").json["model_version"] == "81"
    assert len(azure.requests("/models/reach/versions/")) < 10


@pytest.mark.parametrize("what", ["version", "model"])
def test_an_archived_version_stays_archived_and_is_told(
    azure: Azure, mirroring: Mirroring, ml: MLClient, run: Path, what: str
) -> None:
    # Killed before its last tag is written.
    azure.fault("kill", match=r"PUT https://management.*/versions/", nth=2)
    mirroring.mirror(run, "reach", code=None)
    azure.clear_faults()
    ml.models.archive("reach", "1" if what == "version" else None)
    assert mirroring.mirror(run, "reach").code == 0
    assert list(complete_versions(azure, "reach")) == ["1"]
    again = mirroring.mirror(run, "reach").json
    assert again["outcome"] == "already-mirrored"
    assert any("is archived" in warning for warning in again["warnings"])
    told = mirroring("status", "--run-id", "run-7", "--model-name", "reach", "--json").json
    assert told["versions"][0]["archived"] is True
    assert mirroring("verify", "reach:1", "--json").json["archived"] is True


def test_a_version_that_became_another_is_not_tagged(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    azure.fault("stall", match="runs/update", seconds=60)
    process = mirroring.start("--source", run, "--model-name", "reach")
    wait_until_asked(azure, process, "runs/update")
    azure.call("DELETE", "models/reach/1")
    azure.seed_versions("reach", 1, properties={"identity": "another"}, tags={"mine": "yes"})
    azure.clear_faults()
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 65, out
    assert "was replaced" in json.loads(out)["error"]
    assert azure.models()["reach"]["1"]["tags"] == {"mine": "yes"}


# The requests where a mirror is stopped: a sample of its stages, or every request with STOPS=all.
STOPS = (2, 14, 22, 27, 38, 50)


def stopped(azure: Azure, mirroring: Mirroring, run: Path, number: int, model: str) -> None:
    """Freeze a mirror at a request for longer than its lease, let another finish, and wake it."""
    azure.fault("stall", nth=number, seconds=60)
    process = mirroring.start("--source", run, "--model-name", model)
    deadline = time.monotonic() + 600
    while not any(fault["acted"] for fault in azure.faults()) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if process.poll() is not None:
        return
    os.kill(process.pid, signal.SIGSTOP)
    azure.clear_faults()
    try:
        other = mirroring.mirror(run, model)
        before = json.dumps([azure.models()[model], sorted(azure.blobs("aml-mirror/"))], sort_keys=True)
        azure.forget_requests()
    finally:
        os.kill(process.pid, signal.SIGCONT)
    process.communicate(timeout=600)
    assert other.code == 0
    assert process.returncode in (0, 75), process.returncode
    after = json.dumps([azure.models()[model], sorted(azure.blobs("aml-mirror/"))], sort_keys=True)
    assert after == before
    assert not [
        one
        for one in azure.requests("log-batch")
        if one["status"] == 200 and b"metrics" in repr(one).encode()
    ]


@pytest.mark.parametrize("number", range(1, 70) if os.environ.get("STOPS") == "all" else STOPS)
def test_a_mirror_that_was_frozen_changes_nothing(
    azure: Azure, mirroring: Mirroring, run: Path, number: int
) -> None:
    azure.set_workspace(metric_rows="kept")
    stopped(azure, mirroring, run, number, "reach")
    assert_exactly_once(azure, "reach", run, POINTS)
