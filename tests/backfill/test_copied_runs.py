"""Runs that are copies of each other are reported. With ``--skip-copies`` only one of them is registered."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from builders.backfills import backfill
from builders.saved import safetensors, write_json


def small_run(root: Path, seed: int) -> Path:
    safetensors(root / "checkpoint-1" / "model.safetensors", seed=seed)
    write_json(root / "checkpoint-1" / "trainer_state.json", {"global_step": 1, "log_history": []})
    return root


@pytest.fixture
def base(tmp_path: Path) -> Path:
    run = small_run(tmp_path / "base" / "run", 1)
    for copy in ("run (1)", "run_bak", "old/run"):
        shutil.copytree(run, tmp_path / "base" / copy)
    small_run(tmp_path / "base" / "other", 2)
    return tmp_path / "base"


def test_copies_are_reported(base: Path, database: str) -> None:
    found = backfill("--source", base, "--tracking-uri", database, "--model-name", "m")
    assert set(found.outcomes.values()) == {"mirrored"}
    told = [one.run_id for one in found.receipts if any("--skip-copies" in text for text in one.warnings)]
    assert told == ["run", "run (1)", "run_bak"]
    assert found.summary.copies == 3 and '"copies":3' in found.summary.line()
    assert "its files are those of old/run" in found.summary.table()
    assert found.summary.exit_code == 0


def test_one_of_them_is_registered(base: Path, database: str) -> None:
    given = ("--source", base, "--tracking-uri", database, "--model-name", "m", "--skip-copies")
    planned = backfill(*given, "--dry-run").outcomes
    found = backfill(*given)
    expected = {
        "old/run": "mirrored", "other": "mirrored", "run": "skipped", "run (1)": "skipped",
        "run_bak": "skipped",
    }  # fmt: skip
    assert found.outcomes == expected
    assert planned == {**expected, "old/run": "planned", "other": "planned"}
    assert "those of old/run" in found.receipt("run").warnings[0]
    again = backfill(*given)
    assert again.outcomes == {**expected, "old/run": "already-mirrored", "other": "already-mirrored"}


def test_a_copy_that_comes_first_is_known_by_the_registry(base: Path, database: str) -> None:
    given = ("--source", base, "--tracking-uri", database, "--model-name", "m", "--skip-copies")
    backfill(*given, "--match", "run_bak")
    found = backfill(*given)
    assert found.outcomes == {
        "old/run": "skipped", "other": "mirrored", "run": "skipped", "run (1)": "skipped",
        "run_bak": "already-mirrored",
    }  # fmt: skip
