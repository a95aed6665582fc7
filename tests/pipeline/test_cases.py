"""Runs from reports, planned by the program. The ``case.json`` of each says what is right.

A case is a folder of ``tests/data/cases`` with ``run/`` and ``case.json``: ``why``, and ``outcomes``, each
with the ``arguments`` of ``plan`` and the expected result. Only ``exit`` is required:

- ``exit``: the exit code
- ``framework``, ``step``, ``role``, ``best``, ``checkpoint`` (a path below the source, or its beginning)
- ``keeps``, ``drops``: files that are in the version; parts of paths that none of its files has
- ``warns``: regular expressions, each of which a warning matches
- ``names``: regular expressions that the error with its hint matches; ``picks``: paths that the hint names
with ``--checkpoint``. Each is then selected
- ``points``: the number of points that are read
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import Any

import pytest

from builders.program import Call

CASES = Path(__file__).parents[1] / "data" / "cases"


def names() -> list[str]:
    return sorted(path.parent.name for path in CASES.glob("*/case.json"))


def plan(call: Call, run: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Return the exit code, the plan (empty if there is none), and the error with its hint."""
    done = call("plan", "--source", run, "--model-name", "m", "--json", *arguments, code=None)
    return done.code, done.json if done.code == 0 else {}, "" if done.code == 0 else done.err


@pytest.mark.parametrize("name", names())
def test_what_is_right_for_a_case(aml_mirror: Call, tmp_path: Path, name: str) -> None:
    case = json.loads((CASES / name / "case.json").read_text())
    # Copied to a path with a name that proves nothing.
    run = Path(shutil.copytree(CASES / name / "run", tmp_path / "input", symlinks=True))
    for outcome in case["outcomes"]:
        expected = dict(outcome)
        code, answer, error = plan(aml_mirror, run, *expected.pop("arguments", []))
        assert code == expected.pop("exit"), (case["why"], error, answer.get("warnings"))
        check(aml_mirror, run, expected, answer, error)


def check(call: Call, run: Path, expected: dict[str, Any], answer: dict[str, Any], error: str) -> None:
    root = PurePosixPath(answer.get("run_root") or ".")
    files = {str(root / item["path"]) for item in answer.get("files", ())}
    checkpoint, best = answer.get("checkpoint") or {}, answer.get("best")
    for key, value in expected.items():
        if key == "framework":
            assert answer[key] == value
        elif key in ("step", "role"):
            assert checkpoint[key] == value
        elif key == "checkpoint":
            path = str(root / checkpoint["path"])
            assert path == value or (value != "." and path.startswith(value + "/"))
        elif key == "best":
            assert (best and str(root / best["path"])) == value
        elif key == "keeps":
            assert files >= set(value)
        elif key == "drops":
            assert not [path for path in files for part in value if part in path]
        elif key == "warns":
            for pattern in value:
                assert any(re.search(pattern, warning) for warning in answer["warnings"]), pattern
        elif key == "names":
            for pattern in value:
                assert re.search(pattern, error), pattern
        elif key == "picks":
            for path in value:
                assert f"--checkpoint {quote(path)}" in error
                code, picked, why = plan(call, run, "--checkpoint", path)
                assert (code, why) == (0, "")
                assert picked["checkpoint"]["path"] == path
        elif key == "points":
            assert answer["metrics"]["points_read"] == value
        else:
            raise AssertionError(f"a case has no {key!r}")


def test_there_are_cases() -> None:
    assert len(names()) >= 9
