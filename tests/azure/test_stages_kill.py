"""A promotion that is killed at any request: one version has the stage, and the next promotion completes
it.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from azure_emulator.client import Azure
from builders import matrix
from builders.gated import Gated
from mirroring import Mirroring

# Without the requests that only read: those of the change itself come last.
CHANGES = r"(PUT|DELETE) "


@pytest.mark.parametrize("part", matrix.PARTS)
def test_killed_at_any_request(
    azure: Azure, mirroring: Mirroring, tmp_path: Path, request: pytest.FixtureRequest, part: int
) -> None:
    gated = Gated(mirroring, tmp_path)
    for step in (20, 30):
        gated.evaluate(gated.mirror(step), 95, 100)
    gated.promote("1", stage="count")
    azure.forget_requests()
    gated.promote("2", stage="count")
    changes = [one for one in azure.requests() if one["method"] in ("PUT", "DELETE")]
    assert len(changes) >= 6
    for at in matrix.sample(len(changes), 4, part):
        stage = f"s{at.number}-{at.moment}"
        gated.promote("1", stage=stage)
        azure.forget_requests()
        azure.fault("kill", match=CHANGES, nth=at.number, when=at.moment)
        first = gated.promote("2", stage=stage, code=None)
        azure.clear_faults()
        struck = [one for one in azure.requests() if "closed" in one["faults"]]
        assert first.code == (-signal.SIGKILL if struck else 0), first.err
        # Wherever it was killed: exactly one of the two has the stage, and a reader sees which.
        held = gated.holder(stage)
        assert held in ("1", "2")
        again = gated.promote("2", stage=stage).json
        history = gated.history(stage)
        assert (again["outcome"], history["stages"][stage]) == ("pass", "2")
        if again["changed"]:
            tags = {number: version["tags"] for number, version in azure.models()["act"].items()}
            assert stage not in tags["1"].get("mirror.stage", "").split(",")
            assert f"mirror.stage.{stage}" not in tags["1"]
        done = [one["version"] for one in history["entries"] if one["carried_out"]]
        assert done == ["1", "2"]
        # The next change removes it from all others.
        gated.call("demote", f"act@{stage}")
        tags = {number: version["tags"] for number, version in azure.models()["act"].items()}
        assert not [number for number in tags if stage in tags[number].get("mirror.stage", "").split(",")]
        what = struck[0]["path"].partition("?")[0] if struck else "none"
        row = (
            "journal"
            if "/stages/" in what
            else "claim"
            if "/claims/" in what
            else "tags"
            if "/models/" in what
            else what
        )
        matrix.note(request, "killed, promote in Azure ML", row, at.moment, f"version {held}")
