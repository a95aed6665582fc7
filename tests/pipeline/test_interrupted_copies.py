"""For every layout: an interrupted copy is detected, and leftovers of a copy next to the complete file are
ignored.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from aml_mirror.core.errors import DataError, MirrorError, UsageError
from aml_mirror.layouts import find_run
from aml_mirror.pipeline.select import SelectedCheckpoint, choose
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree

RUNS = Path(__file__).parents[1] / "data" / "runs"
NAMES = sorted(path.name for path in RUNS.iterdir() if path.is_dir())
LEFTOVERS = (".azDownload-3f2b1c9a-1111-2222-3333-444455556666-{}", ".{}.Xy12Ab", "{}_.gstmp")


def final(folder: Path, strict: bool = False) -> tuple[str, SelectedCheckpoint]:
    """Return the run's path and its final checkpoint."""
    source = LocalSource(folder)
    whole = Tree(source, source.scan())
    found = find_run(whole)
    (chosen,) = choose(whole.below(found.root), found.read(whole), "final", strict)
    return found.root, chosen


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_file_of_the_final_checkpoint_that_was_not_copied_whole(name: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(RUNS / name, tmp_path / "input", symlinks=True))
    root, before = final(folder)
    path = (folder / root / before.checkpoint.weights[0]).resolve()
    leftover = path.with_name(LEFTOVERS[0].format(path.name))
    data = path.read_bytes()
    leftover.write_bytes(data[: len(data) // 2])
    path.unlink()
    try:
        _, after = final(folder)
    except MirrorError as error:
        # Data is missing. Or only the copy distinguished two models, and the user must choose.
        assert isinstance(error, DataError | UsageError), error.message
        assert leftover.name in f"{error.message} {error.hint}"
        return
    if not after.passed_over:
        # A complete copy of it exists.
        assert any((folder / root / weight).read_bytes() == data for weight in after.checkpoint.weights)
        return
    assert after.checkpoint.path != before.checkpoint.path
    assert any(leftover.name in why for _, why in after.passed_over), after.passed_over
    with pytest.raises(DataError, match="azDownload"):
        final(folder, strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_leftovers_beside_whole_files_change_nothing(name: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(RUNS / name, tmp_path / "input", symlinks=True))
    before = final(folder)
    for path in [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]:
        for pattern in LEFTOVERS:
            path.with_name(pattern.format(path.name)).write_bytes(b"half")
    assert final(folder, strict=True) == before
