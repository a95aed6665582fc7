"""Logs that grow: while they are sent, and after the run was mirrored."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from azure_emulator.client import Azure
from builders.runs import huggingface_run, write_events
from mirroring import Mirroring, complete_versions, points_of, runs_of, wait_until_asked

SERIES = ("train/loss", "train/lr", "eval/reward", "eval/success", "grad/norm")
SHORT, LONG = 211, 352


@pytest.fixture
def mirroring(azure: Azure, tmp_path: Path) -> Mirroring:
    azure.set_workspace(metric_rows="kept")
    return Mirroring(azure, tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return huggingface_run(tmp_path / "run-7", points=SHORT, series=SERIES)


def events(run: Path) -> Path:
    return next((run / "runs").rglob("events*"))


def grow(run: Path, points: int = LONG) -> None:
    """Append what the training logs next, without changing the existing bytes."""
    path, longer = events(run), run.parent / "longer"
    before = path.read_bytes()
    write_events(longer, [(name, step, 1.0 / step) for step in range(1, points + 1) for name in SERIES])
    whole = longer.read_bytes()
    assert whole.startswith(before)
    # A mirror may be reading the file, so it must never become shorter.
    with path.open("ab") as stream:
        stream.write(whole[len(before) :])


def assert_points(azure: Azure, run_id: str, last: int) -> None:
    for name in SERIES:
        assert points_of(azure, run_id, name) == list(range(1, last + 1)), name


def test_a_log_that_is_completed_later(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    first = mirroring.mirror(run, "reach").json
    assert_points(azure, first["mlflow_run_id"], SHORT)
    grow(run)
    done = mirroring.mirror(run, "reach").json
    assert (done["outcome"], done["exit_code"]) == ("updated", 0)
    assert (done["model_version"], done["mlflow_run_id"]) == ("1", first["mlflow_run_id"])
    assert done["points"] == (LONG - SHORT) * len(SERIES)
    assert_points(azure, first["mlflow_run_id"], LONG)
    # The longer file is stored too.
    stored = [azure.read(name) for name in azure.blobs("aml-mirror/") if "tfevents" in name]
    assert events(run).read_bytes() in stored
    azure.forget_requests()
    assert mirroring.mirror(run, "reach").json["outcome"] == "already-mirrored"
    assert not azure.requests(".blob.")
    grow(run, LONG + 10)
    assert mirroring.mirror(run, "reach").json["points"] == 10 * len(SERIES)
    assert_points(azure, first["mlflow_run_id"], LONG + 10)
    # A file that was only touched is read once, and recognised.
    os.utime(events(run))
    assert mirroring.mirror(run, "reach").json["outcome"] == "already-mirrored"
    azure.forget_requests()
    assert mirroring.mirror(run, "reach").json["outcome"] == "already-mirrored"
    assert not azure.requests(".blob.")
    assert len(runs_of(azure, "reach")) == len(complete_versions(azure, "reach")) == 1
    assert mirroring("verify", "reach:1", "--json").json["outcome"] == "verified"


@pytest.mark.parametrize("kind", ["changed", "cut", "of the same size"])
def test_a_log_whose_beginning_changed(azure: Azure, mirroring: Mirroring, run: Path, kind: str) -> None:
    first = mirroring.mirror(run, "reach").json
    data = events(run).read_bytes()
    changed = data[:100] + bytes([data[100] ^ 1]) + data[101:]
    after = {"changed": changed + b"more", "cut": data[:-40], "of the same size": changed}
    events(run).write_bytes(after[kind])
    done = mirroring.mirror(run, "reach", code=65).json
    assert "the beginning of" in done["error"]
    assert_points(azure, first["mlflow_run_id"], SHORT)


@pytest.mark.parametrize("match", ["runs/log-batch", r"PUT https://[^?]*tfevents", "versions/1"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_update_that_is_killed(
    azure: Azure, mirroring: Mirroring, run: Path, match: str, when: str
) -> None:
    """The log also grows again before the next attempt: each point is there once."""
    first = mirroring.mirror(run, "reach").json
    grow(run)
    azure.fault("kill", match=match, nth=2 if match == "runs/log-batch" else 1, when=when)
    killed = mirroring.mirror(run, "reach", code=None)
    azure.clear_faults()
    assert killed.code in (-signal.SIGKILL, 0), killed.err
    grow(run, LONG + 10)
    assert mirroring.mirror(run, "reach").json["outcome"] == "updated"
    assert_points(azure, first["mlflow_run_id"], LONG + 10)


@pytest.mark.parametrize("kill", [False, True])
def test_a_log_that_grows_while_it_is_sent(azure: Azure, mirroring: Mirroring, run: Path, kill: bool) -> None:
    azure.fault("stall", match="runs/log-batch", nth=3, seconds=60)
    process = mirroring.start("--source", run, "--model-name", "reach")
    wait_until_asked(azure, process, "runs/log-batch")
    grow(run)
    if not kill:
        azure.clear_faults()
    if kill:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(600)
        azure.clear_faults()
        assert mirroring.mirror(run, "reach").json["outcome"] == "mirrored"
    else:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        assert json.loads(out)["outcome"] == "mirrored"
    (found,) = runs_of(azure, "reach")
    assert_points(azure, found.info.run_id, SHORT)
    assert mirroring.mirror(run, "reach").json["outcome"] == "updated"
    assert_points(azure, found.info.run_id, LONG)


def test_a_session_that_restates_points_is_a_warning(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    first = mirroring.mirror(run, "reach").json
    path = events(run).with_name("events.out.tfevents.1760009999.host.2.0")
    write_events(path, [("train/loss", step, 2.0) for step in range(200, 231)])
    done = mirroring.mirror(run, "reach").json
    assert (done["outcome"], done["points"]) == ("updated", 230 - SHORT)
    assert any("repeats points of 1 series" in text for text in done["warnings"])
    assert points_of(azure, first["mlflow_run_id"], "train/loss") == list(range(1, 231))


def test_a_version_without_a_state_counts_as_unchanged(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    mirroring.mirror(run, "reach")
    version = azure.models()["reach"]["1"]
    tags = {name: text for name, text in version["tags"].items() if name != "mirror.logs"}
    assert tags != version["tags"]
    azure.seed_versions("grasp", 1, tags=tags, properties=version["properties"], modelUri=version["modelUri"])
    grow(run)
    told = mirroring(
        "status", "--run-id", "run-7", "--model-name", "grasp", "--experiment", "x", "--json"
    ).json
    assert told["versions"][0]["logs"] == "unknown"
    done = mirroring.mirror(run, "grasp", "--experiment", "x").json
    assert done["outcome"] == "already-mirrored"
