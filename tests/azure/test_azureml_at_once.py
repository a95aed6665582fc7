"""Several mirrors at the same time, into Azure ML: of one run, and of many runs into one model."""

from __future__ import annotations

import hashlib
import json
import signal
from pathlib import Path

import pytest

from azure_emulator.client import Azure
from builders.runs import huggingface_run
from mirroring import Mirroring, assert_exactly_once, complete_versions, files_of, runs_of, wait_until_asked

POINTS = 450


@pytest.fixture
def mirroring(azure: Azure, tmp_path: Path) -> Mirroring:
    azure.set_workspace(metric_rows="kept")
    return Mirroring(azure, tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return huggingface_run(tmp_path / "run-k", points=POINTS)


@pytest.mark.parametrize("count", [2, 10])
def test_many_mirrors_of_one_run(mirroring: Mirroring, run: Path, count: int) -> None:
    processes = [mirroring.start("--source", run, "--model-name", "reach") for _ in range(count)]
    outcomes = []
    for process in processes:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        outcomes.append(json.loads(out)["outcome"])
    assert sorted(outcomes) == ["already-mirrored"] * (count - 1) + ["mirrored"]
    assert_exactly_once(mirroring.azure, "reach", run, POINTS)


@pytest.mark.parametrize("count", [2, 10])
def test_many_runs_into_one_model(mirroring: Mirroring, tmp_path: Path, count: int) -> None:
    azure = mirroring.azure
    runs = [huggingface_run(tmp_path / f"run-{index}", steps=(index + 1,)) for index in range(count)]
    processes = [mirroring.start("--source", run, "--model-name", "reach") for run in runs]
    for process in processes:
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
    found = complete_versions(azure, "reach")
    assert len(found) == len(azure.models()["reach"]) == count
    assert len(runs_of(azure, "reach")) == count
    assert {version["properties"]["osmo.run_id"] for version in found.values()} == {run.name for run in runs}
    for version in found.values():
        folder = tmp_path / version["properties"]["osmo.run_id"] / version["properties"]["checkpoint"]
        assert files_of(azure, version) == {
            name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
            for name in ("model.safetensors", "config.json")
        }


@pytest.mark.parametrize("others", [1, 3])
def test_a_winner_that_is_killed_is_followed_by_another(mirroring: Mirroring, run: Path, others: int) -> None:
    azure = mirroring.azure
    azure.fault("stall", match=r"PUT https://[^?]*/model\.safetensors", seconds=60)
    first = mirroring.start("--source", run, "--model-name", "reach")
    wait_until_asked(azure, first, "/model.safetensors")
    after = [mirroring.start("--source", run, "--model-name", "reach") for _ in range(others)]
    # Other notices may come before.
    assert any("waiting for it" in line for line in iter(after[0].stderr.readline, ""))
    first.kill()
    assert first.wait(600) == -signal.SIGKILL
    azure.clear_faults()
    outcomes = []
    for process in after:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        outcomes.append(json.loads(out)["outcome"])
    assert sorted(outcomes) == ["already-mirrored"] * (others - 1) + ["mirrored"]
    assert_exactly_once(azure, "reach", run, POINTS)
