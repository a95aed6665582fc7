"""Generated labs: every run is found exactly once, nothing else is found, and a second pass does nothing.

``make test-labs`` tests 1,000. ``AML_MIRROR_LABS=1000`` sets their number, ``AML_MIRROR_LABS=400-600``
selects a part, and without it a sample runs. Each lab has its own database, so that the parts can run on
different machines.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aml_mirror.backfill.discovery import candidates
from aml_mirror.sources.local import LocalSource
from builders.backfills import backfill
from builders.labs import Lab, lab

LABS = os.environ.get("AML_MIRROR_LABS", "")


def seeds(sample: int) -> range:
    """The selected labs, or else a sample."""
    start, _, end = (LABS or str(sample)).rpartition("-")
    return range(int(start or 0), int(end))


FOUND, REGISTERED = seeds(60), seeds(3)


def check_found(made: Lab) -> None:
    found: list[str] = []
    told = []
    for item in candidates(LocalSource(made.root), "", lambda path, newest: ""):
        assert item.failure is None, (item.path, item.failure)
        if item.found is not None:
            found.append(item.path)
        elif item.refused:
            told.append(item.path)
    assert len(found) == len(set(found))
    # A truncated run may not be recognised as a run any more.
    assert set(found) - made.broken == made.runs, (set(found) ^ made.runs) - made.broken
    assert not set(told) & made.runs


@pytest.mark.parametrize("start", FOUND[::20])
def test_every_run_is_found_once_and_nothing_else(tmp_path: Path, start: int) -> None:
    for seed in range(start, min(start + 20, FOUND.stop)):
        made = lab(tmp_path / str(seed), seed)
        try:
            check_found(made)
        except AssertionError as error:
            raise AssertionError(f"lab {seed}: {error}") from error


@pytest.mark.parametrize("seed", REGISTERED)
def test_every_run_is_registered_once_and_a_second_pass_does_nothing(
    tmp_path: Path, seed: int, database: str
) -> None:
    made = lab(tmp_path / "lab", seed)
    given = ("--source", made.root, "--model-name", f"lab-{seed}", "--tracking-uri", database)
    first = backfill(*given)
    mirrored = [one.run_id for one in first.receipts if one.outcome == "mirrored"]
    assert sorted(map(str, mirrored)) == sorted(made.runs)
    assert {one.run_id for one in first.receipts if one.outcome == "failed"} <= made.broken
    again = backfill(*given)
    assert not [one.run_id for one in again.receipts if one.outcome == "mirrored"]
    assert again.summary.already == len(made.runs)
    assert again.summary.exit_code in ((0, 65) if made.broken else (0,))
