"""``.pth.tar``: files of torch.save with the name from PyTorch's ImageNet example."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest

from aml_mirror.core.errors import DataError, UsageError
from aml_mirror.layouts import find_run
from aml_mirror.pipeline.select import choose
from builders.numbered_runs import plain, planned, rsl_rl, tree_of, write_numbered
from builders.saved import write_bytes
from builders.torch_zip import cut

# The first three pickles of torch.save before 1.6: magic number, protocol version, machine.
LEGACY = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))


def newest(root: Path):
    tree, run, _ = planned(root)
    (chosen,) = choose(tree, run, "final")
    return run, chosen


@pytest.mark.parametrize("suffix", ["pth.tar", "pt.tar", "ckpt.tar", "PTH.TAR"])
def test_numbered_ones_are_checkpoints(tmp_path, suffix):
    write_numbered(tmp_path, f"checkpoint_{{}}.{suffix}", [10, 20])
    plain(tmp_path / f"model_best.{suffix}", 10)
    run, chosen = newest(tmp_path)
    assert (chosen.checkpoint.path, chosen.checkpoint.step) == (f"checkpoint_20.{suffix}", 20)
    assert run.best.path == f"model_best.{suffix}"


def test_legacy_pickles_are_whole_and_a_cut_zip_is_not(tmp_path):
    write_bytes(tmp_path / "checkpoint_10.pth.tar", LEGACY + pickle.dumps({"epoch": 10}, 2) + bytes(600))
    plain(tmp_path / "checkpoint_20.pth.tar", 20)
    cut(tmp_path / "checkpoint_20.pth.tar")
    _, chosen = newest(tmp_path)
    assert chosen.checkpoint.step == 10
    assert [path for path, _ in chosen.passed_over] == ["checkpoint_20.pth.tar"]


def test_an_archive_of_tar_is_no_checkpoint(tmp_path):
    shutil.make_archive(str(tmp_path / "policy_20.pth"), "tar", tmp_path)
    tree, run, _ = planned(tmp_path)
    with pytest.raises(DataError, match="not a file of torch"):
        list(choose(tree, run, "final"))


def test_the_one_name_of_the_example_is_asked_about(tmp_path):
    """checkpoint.pth.tar is overwritten each epoch, and model_best.pth.tar is a copy of the best."""
    for name in ("checkpoint", "model_best"):
        plain(tmp_path / f"{name}.pth.tar", len(name))
    with pytest.raises(UsageError) as raised:
        find_run(tree_of(tmp_path))
    for name in ("checkpoint", "model_best"):
        assert f"--checkpoint {name}.pth.tar" in raised.value.hint


def test_an_end_beside_a_framework_that_saves_pt(tmp_path):
    write_numbered(tmp_path, "model_{}.pt", [10, 20], rsl_rl)
    rsl_rl(tmp_path / "model_final.pth.tar", 30, 7)
    _, chosen = newest(tmp_path)
    assert chosen.checkpoint.path == "model_final.pth.tar"
