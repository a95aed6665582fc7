"""The conformance suite for every layout: the built-in ones and one from another package."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from aml_mirror.layouts import find_run, known_layouts
from aml_mirror.layouts.base import Layout
from builders.layout_conformance import check_layout, tree_of
from builders.torch_zip import save
from builders.toy_run import toy_run

TESTS = Path(__file__).parents[1]
RUNS = sorted(path for path in (TESTS / "data" / "runs").iterdir() if path.is_dir())


@pytest.mark.parametrize("run", RUNS, ids=lambda path: path.name)
def test_a_built_in_layout(run: Path, tmp_path: Path) -> None:
    check_layout(find_run(tree_of(run)).layout, run, tmp_path)


def test_the_generic_layout(tmp_path: Path) -> None:
    for step in (10, 20):
        save(tmp_path / f"run/checkpoints/model_{step}.pt", {"a": step})
    check_layout(find_run(tree_of(tmp_path / "run")).layout, tmp_path / "run", tmp_path / "scratch")


def test_the_layout_of_another_package(tmp_path: Path) -> None:
    module = runpy.run_path(str(TESTS / "plugins/third_party/aml_mirror_example/layout.py"))
    layout: Layout = module["TOY_RL"]
    check_layout(layout, toy_run(tmp_path / "run"), tmp_path / "scratch")


def test_every_built_in_layout_has_a_run() -> None:
    names = {find_run(tree_of(run)).layout.name for run in RUNS}
    assert names == {layout.name for layout in known_layouts()} - {"generic"}
