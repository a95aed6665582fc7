"""It is not known whether Azure ML accepts start and end times in the past. A mirror succeeds with either
answer.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from azure_emulator.client import Azure
from builders.runs import WALL_TIME, huggingface_run
from mirroring import Mirroring, assert_exactly_once, runs_of

POINTS = 20
BEGUN = int(WALL_TIME * 1000)


@pytest.mark.parametrize("past_times", ["taken", "ignored", "refused"])
def test_a_run_shows_when_it_was_trained(
    azure: Azure, mirroring: Mirroring, tmp_path: Path, past_times: str
) -> None:
    azure.set_workspace(past_times=past_times, list_lag=0)
    run = huggingface_run(tmp_path / "run-7", points=POINTS)
    # The answer to the creation is lost: the first of two runs counts, whatever times they show.
    azure.fault("drop", match="runs/create", when="after", nth=2 if past_times == "refused" else 1)
    done = mirroring.mirror(run, "reach")
    receipt = done.json
    assert_exactly_once(azure, "reach", run, POINTS)
    (found,) = runs_of(azure, "reach")
    warned = [text for text in receipt["warnings"] if "mirror.trained" in text]
    assert "mirror.trained" in found.data.tags and "mirror.began" in found.data.tags
    assert "mirror.trained" not in azure.models()["reach"]["1"]["tags"]
    if past_times == "taken":
        assert (found.info.start_time, found.info.end_time) == (BEGUN, BEGUN + 1000 * (POINTS - 1))
        assert not warned
    else:
        assert BEGUN + 86_400_000 < found.info.start_time <= found.info.end_time
        # A refusal is a warning. Ignored times are reported once, because they do not concern this run.
        assert len(warned) == (past_times == "refused")
        assert ("keeps its own times" in done.err) == (past_times == "ignored")
    again = mirroring.mirror(run, "reach").json
    assert (again["outcome"], again["mlflow_run_id"]) == ("already-mirrored", receipt["mlflow_run_id"])
