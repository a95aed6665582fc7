"""Killed at any request and run again, into Azure ML: one run, one version, every byte, each point once.

The emulator kills the client process of a request (SIGKILL: nothing is cleaned up), before it acts, or after
it has acted and before it answers. `make test-kill` uses every request of a mirror, `make test` a sample from
all stages. It is not known whether Azure ML drops metric rows that arrive twice, so the tests use both kinds
of workspace.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from azure_emulator.client import Azure
from builders import matrix
from builders.runs import huggingface_run
from mirroring import (
    Mirroring,
    assert_exactly_once,
    assert_no_claim_is_held,
    complete_versions,
    files_of,
    points_of,
    runs_of,
)
from stages import STAGES, stage_of

POINTS = 250  # two batches per series, and more series than are sent at the same time
SERIES = ("train/loss", "train/grad_norm", "eval/reward", "eval/success", "train/lr")
WHOLE = os.environ.get("KILL") == "all"
PARTS = 8
MOMENTS = ("before", "after")
# Other unknown behaviour of the real service that differs between the two kinds of workspace.
MODES: dict[str, dict[str, Any]] = {
    # If a killed attempt created a run that its claim does not name, the run is retired once a search shows
    # it.
    "kept": {"changed_properties": "accepted", "artifact_references": "taken", "list_lag": 2},
    "dropped": {"changed_properties": "refused", "artifact_references": "404", "list_lag": 0},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that takes more than one request of each kind."""
    return huggingface_run(tmp_path_factory.mktemp("kill") / "run-k", points=POINTS, series=SERIES)


@pytest.fixture
def mirroring(azure: Azure, tmp_path: Path) -> Mirroring:
    found = Mirroring(azure, tmp_path)
    found.settles = False
    return found


def assert_nothing_reads_as_done_too_early(azure: Azure, model: str, run: Path) -> None:
    """Everything that is marked finished has every byte and every point."""
    done = [item for item in runs_of(azure, model) if item.info.status == "FINISHED"]
    done += [item for item in runs_of(azure, model) if item.data.tags.get("mirror.state") == "complete"]
    if not done and not complete_versions(azure, model):
        return
    (version,) = azure.models()[model].values()
    assert set(files_of(azure, version)) == {"model.safetensors", "config.json"}
    (found,) = {item.info.run_id for item in done}
    for name in SERIES:
        assert points_of(azure, found, name) == list(range(1, POINTS + 1)), name
    if complete_versions(azure, model):
        assert_exactly_once(azure, model, run, POINTS)


def kill_and_run_again(
    mirroring: Mirroring, run: Path, source: str | Path, name: str, number: int, moment: str
) -> tuple[str, str]:
    """Kill a mirror at a request and run it again; return the stage where it was killed, and the result."""
    azure = mirroring.azure
    azure.forget_requests()
    azure.fault("kill", nth=number, when=moment)
    first = mirroring.mirror(source, name, "--run-id", name, code=None)
    azure.clear_faults()
    struck = [one for one in azure.requests() if "closed" in one["faults"]]
    if not struck:  # this mirror sent one request fewer than the counted one
        assert first.code == 0, first.err
        return "none", "not reached"
    assert first.code == -signal.SIGKILL, (first.code, first.err)
    assert_nothing_reads_as_done_too_early(azure, name, run)
    was_done = bool(complete_versions(azure, name))
    again = mirroring.mirror(source, name, "--run-id", name, code=None)
    assert again.code == 0, (stage_of(struck[0]), moment, again.err)
    assert_exactly_once(azure, name, run, POINTS)
    # If it was killed when only the release of the claim was left, nobody waits for the lease, which expires.
    if not was_done:
        assert_no_claim_is_held(azure)
    return stage_of(struck[0]), str(again.json["outcome"])


CASES = [
    (where, rows, part)
    for where in ("local", "azure")
    for rows in ("kept", "dropped")
    for part in range(PARTS)
]
# Half of a cell's time is the real server's work on points, which the other mode covers.
MODES["kept"]["metric_store"] = "memory"
if not WHOLE:
    # The first request of each stage, alternating between the two moments, split into four parts.
    CASES = [("local", "kept", 0), ("azure", "kept", 1), ("local", "dropped", 2), ("azure", "dropped", 3)]


def places(stages: list[str], part: int) -> list[tuple[int, str]]:
    """The requests of a part, counted from 1, and whether it kills before or after them."""
    if WHOLE:
        return [(number, moment) for number in range(1, len(stages) + 1) for moment in MOMENTS][part::PARTS]
    firsts = [stages.index(stage) + 1 for stage in dict.fromkeys(stages)]
    return [(number, MOMENTS[(at // 4 + part) % 2]) for at, number in enumerate(firsts) if at % 4 == part]


@pytest.mark.parametrize(("where", "rows", "part"), CASES)
def test_killed_at_any_request(
    mirroring: Mirroring, run: Path, request: pytest.FixtureRequest, where: str, rows: str, part: int
) -> None:
    azure = mirroring.azure
    azure.set_workspace(metric_rows=rows, **MODES[rows])
    source = run if where == "local" else azure.seed(run, "runs/run-k", container="runs")
    azure.forget_requests()
    mirroring.mirror(source, "count")
    stages = [stage_of(one) for one in azure.requests()]
    assert len(stages) >= 40
    for number, moment in places(stages, part):
        name = f"run-{number}-{moment}"
        stage, outcome = kill_and_run_again(mirroring, run, source, name, number, moment)
        matrix.note(request, f"killed, into Azure ML from {where}, rows {rows}", stage, moment, outcome)


SIGNALS = [signal.SIGTERM, signal.SIGINT]
STOPPED = [
    (stage, signum)
    for at, stage in enumerate(["log-batch", "checkpoint", "own files", "version"])
    # `make test` uses each stage with one of the two, alternately.
    for signum in (SIGNALS if WHOLE else [SIGNALS[at % 2]])
]


@pytest.mark.parametrize(("stage", "signum"), STOPPED)
def test_stopped_by_a_signal(mirroring: Mirroring, run: Path, stage: str, signum: signal.Signals) -> None:
    """The run ends as KILLED, the claim is released, and the same command continues from there."""
    azure = mirroring.azure
    azure.set_workspace(metric_rows="kept")
    azure.fault("signal", match=STAGES[stage], signal=int(signum), seconds=1)
    stopped = mirroring.mirror(run, "reach", code=None)
    assert stopped.code == 128 + signum, stopped.err
    assert stopped.json["outcome"] == "failed"
    assert "Traceback" not in stopped.err
    (found,) = runs_of(azure, "reach")
    assert found.info.status == "KILLED"
    assert not complete_versions(azure, "reach")
    assert_no_claim_is_held(azure)
    azure.clear_faults()
    again = mirroring.mirror(run, "reach").json
    assert (again["outcome"], again["mlflow_run_id"]) == ("mirrored", found.info.run_id)
    assert_exactly_once(azure, "reach", run, POINTS)
