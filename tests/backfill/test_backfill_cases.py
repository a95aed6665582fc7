"""Labs that were once mirrored incorrectly: which runs are registered, under which ids and models."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from builders.backfills import backfill

CASES = Path(__file__).parents[1] / "data" / "backfill"


@pytest.mark.parametrize("case", sorted(path.name for path in CASES.iterdir()))
def test_a_handed_lab(tmp_path: Path, case: str, database: str) -> None:
    expect = json.loads((CASES / case / "expect.json").read_text())
    shutil.copytree(CASES / case / "lab", tmp_path / "lab", symlinks=True)
    name = [] if "--model-name" in expect["args"] else ["--model-name", "m"]
    given = ("--source", tmp_path / "lab", "--tracking-uri", database, *name, *expect["args"])
    mirrored = [one for one in backfill(*given).receipts if one.outcome == "mirrored"]
    assert len(mirrored) == expect["count"], expect["why"]
    for pattern in expect["ids"]:
        assert any(re.search(pattern, str(one.run_id)) for one in mirrored)
    if expect["models"]:
        assert Counter(one.model_name for one in mirrored) == expect["models"]
    again = backfill(*given)
    assert not [one for one in again.receipts if one.outcome == "mirrored"]
    assert again.summary.exit_code == 0


def test_what_is_left_out_for_lack_of_evidence_is_listed(tmp_path: Path, database: str) -> None:
    shutil.copytree(CASES / "optimizer-only-folder" / "lab", tmp_path / "lab")
    done = backfill("--source", tmp_path / "lab", "--tracking-uri", database, "--model-name", "m")
    (receipt,) = done.receipts
    assert (receipt.run_id, receipt.outcome) == ("runs/exp9/optim", "skipped")
    assert (
        "do not suggest a policy: optim" in receipt.warnings[0]
        and "aml-mirror mirror --source" in receipt.warnings[0]
    )
    assert "runs/exp9/optim" in done.summary.table()
    assert (done.summary.skipped, done.summary.exit_code) == (1, 0)
