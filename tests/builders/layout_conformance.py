"""The conformance suite of layouts: what every layout must do.

``check_layout`` is the suite. The tests run it with every built-in layout and with that of the package in
tests/plugins/third_party. A package with its own layout can run it with a run of its framework.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from aml_mirror.layouts.base import Checkpoint, Layout, Run
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from builders.torch_zip import cut


def tree_of(folder: Path) -> Tree:
    source = LocalSource(folder)
    return Tree(source, source.scan())


def check_layout(layout: Layout, run: Path, scratch: Path) -> None:
    """Check a layout with a run of its framework.

    Args:
        layout: the layout to check.
        run: a folder with exactly one run of the layout, which contains its final checkpoint.
        scratch: an empty folder to write into.
    """
    assert re.fullmatch("[a-z][a-z0-9_]*", layout.name)
    _finds_one_run(layout, run)
    _finds_it_deeper_down(layout, run, scratch / "deeper")
    _finds_nothing_elsewhere(layout, scratch / "nothing")
    _survives_damage(layout, run, scratch / "damaged")


def _finds_one_run(layout: Layout, folder: Path) -> None:
    tree = tree_of(folder)
    roots = layout.find(tree)
    assert len(roots) == 1, roots
    run = tree.below(roots[0])
    first, second = layout.read(run), layout.read(run)
    # The same answer each time: mirror does what plan says.
    assert first == second
    assert first.checkpoints and not first.undecided
    check_run(run, first)


def check_run(tree: Tree, run: Run) -> None:
    """Check a layout's description of a run."""
    roles = [item.role for item in run.checkpoints]
    assert all(role in ("final", "unknown") for role in roles[:1])
    assert all(role in ("periodic", "unknown") for role in roles[1:])
    assert run.best is None or run.best.role == "best"
    paths = [item.path for item in run.checkpoints]
    assert len(set(paths)) == len(paths)
    for item in [*run.checkpoints, *([run.best] if run.best else [])]:
        _check_checkpoint(tree, item)
    assert set(run.choices) <= set(paths)
    assert all(path in tree.files for path in run.logs)
    assert all(isinstance(text, str) and text for text in run.warnings)


def _check_checkpoint(tree: Tree, item: Checkpoint) -> None:
    assert item.step is None or (type(item.step) is int and item.step >= 0)
    assert list(item.files) == sorted(set(item.files))
    assert set(item.weights) <= set(item.files) or item.problem
    assert not {path for path, _ in item.left_out} & set(item.files)
    if not item.problem:
        assert item.weights
        # Every file exists, through links too. Otherwise opening it would fail later.
        for path in item.files:
            assert tree.entry(path)
    is_file = item.path in item.files
    assert is_file or item.path == "." or item.problem or tree.has_folder(tree.resolve(item.path))


def _finds_it_deeper_down(layout: Layout, run: Path, scratch: Path) -> None:
    (root,) = layout.find(tree_of(run))
    shutil.copytree(run, scratch / "some where/ünï", symlinks=True)
    deeper = tree_of(scratch)
    assert layout.find(deeper) == ["/".join(filter(None, ("some where/ünï", root)))]
    # Two copies are two runs.
    shutil.copytree(run, scratch / "two", symlinks=True)
    found = layout.find(tree_of(scratch))
    assert len(found) == 2 and found == sorted(found)


def _finds_nothing_elsewhere(layout: Layout, scratch: Path) -> None:
    scratch.mkdir(parents=True)
    assert layout.find(tree_of(scratch)) == []
    for path, data in (
        ("data/episode_000001.hdf5", b"x"),
        ("src/train.py", b"print()"),
        ("videos/chunk-000/episode_000000.mp4", b"x"),
        ("notes.txt", b"model_100.pt"),
    ):
        (scratch / path).parent.mkdir(parents=True, exist_ok=True)
        (scratch / path).write_bytes(data)
    assert layout.find(tree_of(scratch)) == []


def _survives_damage(layout: Layout, run: Path, scratch: Path) -> None:
    """Cut and empty each file of a run in turn. A layout never raises, and its answers stay consistent."""
    shutil.copytree(run, scratch, symlinks=True)
    files = sorted(path for path in scratch.rglob("*") if path.is_file() and not path.is_symlink())
    for path in files[:40]:
        path.chmod(0o644)
        data = path.read_bytes()
        for damage in (lambda path=path: cut(path), lambda path=path: path.write_bytes(b"")):
            damage()
            tree = tree_of(scratch)
            for root in layout.find(tree):
                below = tree.below(root)
                check_run(below, layout.read(below))
            path.write_bytes(data)
