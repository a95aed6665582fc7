"""The Diffusion Policy layout, against files that its own BaseWorkspace, TopKCheckpointManager and JsonLogger
wrote (with a small model instead of the real one)."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

from aml_mirror.layouts.diffusion_policy import DiffusionPolicy
from aml_mirror.layouts.lightning import Lightning
from builders.torch_zip import cut, save

DATA = Path(__file__).parents[1] / "data" / "runs" / "diffusion_policy"
LAYOUT = DiffusionPolicy()


def workspace(path: Path, step: int, epoch: int) -> Path:
    """A checkpoint as BaseWorkspace.save_checkpoint pickles it."""
    pickles = {"global_step": pickle.dumps(step), "epoch": pickle.dumps(epoch)}
    return save(path, {"cfg": {"epoch": 5}, "state_dicts": {}, "pickles": pickles})


def test_latest_is_the_end_and_its_step_the_global_one(tree):
    assert LAYOUT.find(tree(DATA)) == [""]
    run = LAYOUT.read(tree(DATA))
    assert [(item.path, item.step, item.role) for item in run.checkpoints] == [
        ("checkpoints/latest.ckpt", 426, "final"),
        ("checkpoints/epoch=0040-test_mean_score=0.910.ckpt", 286, "periodic"),
        ("checkpoints/epoch=0030-test_mean_score=0.880.ckpt", 216, "periodic"),
        ("checkpoints/epoch=0020-test_mean_score=0.910.ckpt", 146, "periodic"),
    ]
    assert run.logs == ["logs.json.txt"]
    assert run.params["checkpoint"]["topk"]["monitor_key"] == "test_mean_score"


def test_among_equal_scores_the_first_is_the_best(tree):
    best = LAYOUT.read(tree(DATA)).best
    assert (best.path, best.step) == ("checkpoints/epoch=0020-test_mean_score=0.910.ckpt", 146)


def test_a_latest_that_was_being_written_keeps_the_first_place(tree, tmp_path):
    """A thread writes it, so a stopped training leaves it truncated."""
    shutil.copytree(DATA, tmp_path / "run")
    cut(tmp_path / "run" / "checkpoints" / "latest.ckpt")
    assert LAYOUT.find(tree(tmp_path / "run")) == [""]
    run = LAYOUT.read(tree(tmp_path / "run"))
    assert (run.checkpoints[0].path, run.checkpoints[0].step) == ("checkpoints/latest.ckpt", None)
    assert run.checkpoints[1].step == 286


def test_where_a_file_cannot_be_read_the_log_gives_its_step(tree, tmp_path):
    shutil.copytree(DATA, tmp_path / "run")
    cut(tmp_path / "run" / "checkpoints" / "epoch=0040-test_mean_score=0.910.ckpt")
    run = LAYOUT.read(tree(tmp_path / "run"))
    assert [item.step for item in run.checkpoints] == [426, 286, 216, 146]


def test_a_stale_latest_is_not_the_end(tree, tmp_path):
    workspace(tmp_path / "checkpoints" / "latest.ckpt", 100, 9)
    workspace(tmp_path / "checkpoints" / "epoch=0030-test_mean_score=0.100.ckpt", 300, 30)
    run = LAYOUT.read(tree(tmp_path))
    assert [item.step for item in run.checkpoints] == [300, 100]
    # Later steps may follow a checkpoint that was kept for its score.
    assert run.checkpoints[0].role == "unknown"
    assert any("latest.ckpt is of epoch 9" in warning for warning in run.warnings)


def test_the_configuration_or_the_name_says_whether_less_is_better(tree, tmp_path):
    for epoch, value in ((10, "0.500"), (20, "0.100")):
        workspace(tmp_path / "checkpoints" / f"epoch={epoch:04d}-train_loss={value}.ckpt", epoch * 7, epoch)
        workspace(
            tmp_path / "other" / "checkpoints" / f"epoch={epoch:04d}-gain={value}.ckpt", epoch * 7, epoch
        )
    assert LAYOUT.read(tree(tmp_path)).best.step == 140
    assert LAYOUT.read(tree(tmp_path / "other")).best.step == 70
    (tmp_path / "other" / ".hydra").mkdir()
    (tmp_path / "other" / ".hydra" / "config.yaml").write_text(
        "checkpoint: {topk: {monitor_key: gain, mode: min}}\n"
    )
    assert LAYOUT.read(tree(tmp_path / "other")).best.step == 140


def test_the_workspaces_snapshot_is_left_out(tree, tmp_path):
    workspace(tmp_path / "checkpoints" / "latest.ckpt", 100, 9)
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots" / "latest.pkl").write_bytes(b"x")
    final = LAYOUT.read(tree(tmp_path)).checkpoints[0]
    assert final.files == ("checkpoints/latest.ckpt",)
    assert [path for path, _ in final.left_out] == ["snapshots/latest.pkl"]


def test_lightnings_files_are_told_by_what_is_in_them(tree, tmp_path):
    inside = {"epoch": 1, "global_step": 10, "pytorch-lightning_version": "2.6.6", "state_dict": {}}
    inside["hyper_parameters"] = {"state_dicts": 1, "pickles": 2}
    save(tmp_path / "a" / "checkpoints" / "latest.ckpt", inside)
    save(tmp_path / "a" / "checkpoints" / "epoch=0001-score=0.5.ckpt", inside)
    workspace(tmp_path / "b" / "checkpoints" / "latest.ckpt", 1, 1)
    assert LAYOUT.find(tree(tmp_path)) == ["b"]
    assert Lightning().find(tree(tmp_path)) == ["a"]


def test_a_hostile_pickle_is_neither_run_nor_followed(tree, tmp_path):
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (eval, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    pickles = {"global_step": pickle.dumps(Evil()), "epoch": b"\x80\x04\x95\xff\xff"}
    save(tmp_path / "checkpoints" / "latest.ckpt", {"state_dicts": Evil(), "pickles": pickles})
    run = LAYOUT.read(tree(tmp_path))
    assert (run.checkpoints[0].path, run.checkpoints[0].step) == ("checkpoints/latest.ckpt", None)
    assert not (tmp_path / "ran").exists()
