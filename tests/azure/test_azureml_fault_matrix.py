"""Every stage of a mirror into Azure ML, with everything that can go wrong in it.

A cell is one mirror with one fault at one stage. The mirror recovers, or it ends with one line and the right
exit code and leaves nothing that looks complete. Without the fault, the same command then completes. The
workspace keeps metric rows that arrive twice, so that duplicates show. `make test-faults` runs every cell.
`make test` runs every stage and every fault at least once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from azure_emulator.client import Azure
from builders import matrix
from builders.runs import huggingface_run
from mirroring import Mirroring, assert_exactly_once, complete_versions
from stages import STAGES

POINTS = 450
WHOLE = os.environ.get("FAULTS") == "all"


@dataclass(frozen=True)
class Trouble:
    """What goes wrong, how long the program retries, and how it may end."""

    action: str
    fields: dict[str, Any] = field(default_factory=dict)
    patience: str = "60s"
    codes: tuple[int, ...] = (0,)
    whole_only: bool = False


def status(number: int, times: int = 4, **headers: str) -> Trouble:
    """More often than the clients retry by themselves."""
    return Trouble("status", {"status": number, "times": times, "headers": headers})


TROUBLE = {
    "429": status(429, 2, **{"Retry-After": "1"}),
    "408": status(408),
    "500": status(500),
    "503": status(503),
    "dropped before": Trouble("drop", {"times": 4}),
    "answer lost": Trouble("drop", {"when": "after"}),
    "body cut": Trouble("cut", {"when": "after"}),
    "length +7": Trouble("length", {"when": "after", "delta": 7}),
    "length -7": Trouble("length", {"when": "after", "delta": -7}),
    "token expires": Trouble("expire-tokens"),
    "SAS expires": Trouble("expire-sas"),
    # A service that answers so for longer than the program may wait.
    "507 stays": Trouble("status", {"status": 507, "times": 0}, "2s", (75,)),
    # Tokens from the future, which every service refuses from then on.
    "clock +10 min": Trouble("skew", {"seconds": 600}, "2s", (0, 75, 77)),
    "clock -10 min": Trouble("skew", {"seconds": -600}),
    # Longer than the timeout for storage (60 s), shorter than those for MLflow and Entra.
    "stall 65 s": Trouble("stall", {"seconds": 65}, "4m", whole_only=True),
}
# The first metrics, not the parameters before them.
NTH = {"log-batch": 2}
FROM_BLOBS = ("source listing", "source bytes", "copy")
PLACES = [*(name for name in STAGES if name not in FROM_BLOBS), *FROM_BLOBS]
CELLS = [(stage, trouble) for stage in PLACES for trouble in TROUBLE]
if not WHOLE:
    # A diagonal: each stage with one trouble, each trouble at every fourteenth stage.
    CELLS = [
        (stage, trouble)
        for at, stage in enumerate(PLACES)
        for number, trouble in enumerate(TROUBLE)
        if (at + number) % 14 == 0 and not TROUBLE[trouble].whole_only
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return huggingface_run(tmp_path_factory.mktemp("faults") / "run-k", points=POINTS)


@pytest.fixture
def mirroring(azure: Azure, tmp_path: Path) -> Mirroring:
    azure.set_workspace(metric_rows="kept")
    return Mirroring(azure, tmp_path)


@pytest.mark.parametrize(("stage", "name"), CELLS)
def test_recovered_or_one_line_and_a_later_try_completes(
    mirroring: Mirroring, run: Path, request: pytest.FixtureRequest, stage: str, name: str
) -> None:
    azure, trouble = mirroring.azure, TROUBLE[name]
    source: Path | str = run
    if stage in FROM_BLOBS:
        source = azure.seed(run, "runs/run-k", container="runs")
    if stage == "artifact bytes":
        # If the service does not accept artifacts by reference, they are sent to the run.
        azure.set_workspace(artifact_references="404")
    if stage == "run":
        # One of two runs is retired as soon as a search shows both.
        azure.set_workspace(list_lag=2)
    match = STAGES["checkpoint" if stage == "copy" else stage]
    azure.fault(trouble.action, match=match, **{"nth": NTH.get(stage, 1), **trouble.fields})
    done = mirroring.mirror(source, "reach", "--retry-for", trouble.patience, code=None)
    acted = any(fault["acted"] for fault in azure.faults())
    azure.clear_faults()
    azure.set(skew=0)
    assert acted, "the trouble never came"
    assert done.code in trouble.codes, (done.code, done.err)
    assert "Traceback" not in done.err
    outcome = "ok"
    if done.code:
        outcome = f"{done.code}, ok"
        assert [line for line in done.err.splitlines() if line.startswith("error: ")] == [
            done.err.splitlines()[-1]
        ]
        assert not complete_versions(azure, "reach")
        mirroring.mirror(source, "reach")
    assert_exactly_once(azure, "reach", run, POINTS)
    title = "trouble on the way to Azure ML (ok: recovered; 75, ok: exit 75, then the same command completed)"
    matrix.note(request, title, stage, name, outcome)
