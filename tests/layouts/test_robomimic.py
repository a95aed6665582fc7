"""The robomimic layout against a run of robomimic 0.5.0 (BC, validated, no rollouts)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from aml_mirror.layouts.robomimic import Robomimic
from builders.torch_zip import cut, save

DATA = Path(__file__).parents[1] / "data" / "runs" / "robomimic"
ROOT = next(path.parent.relative_to(DATA).as_posix() for path in DATA.rglob("last.pth"))
LAYOUT = Robomimic()


def test_last_is_the_end_and_the_lowest_validation_loss_the_best(tree):
    assert LAYOUT.find(tree(DATA)) == [ROOT]
    run = LAYOUT.read(tree(DATA / ROOT))
    assert [(item.path, item.step, item.role) for item in run.checkpoints] == [
        ("last.pth", 12, "final"),
        ("models/model_epoch_12.pth", 12, "periodic"),
        ("models/model_epoch_9_best_validation_0.4767057001590729.pth", 9, "periodic"),
        ("models/model_epoch_8_best_validation_0.5812506973743439.pth", 8, "periodic"),
        ("models/model_epoch_4.pth", 4, "periodic"),
    ]
    assert [path for path, _ in run.checkpoints[0].left_out] == ["last_bak.pth"]
    assert run.best.path == "models/model_epoch_9_best_validation_0.4767057001590729.pth"
    assert run.best.step == 9
    assert run.params["algo_name"] == "bc"


def test_a_malformed_last_is_followed_by_its_backup(tree, tmp_path):
    shutil.copytree(DATA / ROOT, tmp_path / "run")
    cut(tmp_path / "run" / "last.pth")
    run = LAYOUT.read(tree(tmp_path / "run"))
    assert [(item.path, item.step) for item in run.checkpoints[:3]] == [
        ("last.pth", None),
        ("last_bak.pth", 12),
        ("models/model_epoch_12.pth", 12),
    ]


def test_a_stale_last_is_not_the_end(tree, tmp_path):
    save(tmp_path / "last.pth", {"algo_name": "bc", "variable_state": {"epoch": 7}})
    save(tmp_path / "models" / "model_epoch_20.pth", {"algo_name": "bc"})
    run = LAYOUT.read(tree(tmp_path))
    assert [item.path for item in run.checkpoints] == ["models/model_epoch_20.pth", "last.pth"]


def test_releases_without_last(tree, tmp_path):
    for epoch in (600, 1000, 50):
        save(tmp_path / "models" / f"model_epoch_{epoch}.pth", {"algo_name": "bc"})
    assert LAYOUT.find(tree(tmp_path)) == [""]
    run = LAYOUT.read(tree(tmp_path))
    assert [item.step for item in run.checkpoints] == [1000, 600, 50]
    assert run.best is None


def test_success_outweighs_return_and_return_outweighs_validation(tree, tmp_path):
    names = (
        "model_epoch_10_best_validation_0.1.pth",
        "model_epoch_20_best_validation_0.05_Lift_return_3.5_Lift_success_0.2.pth",
        "model_epoch_30_Lift_return_40.0.pth",
        "model_epoch_40_low_dim_v15_success_0.9.pth",
        "model_epoch_100.pth",
    )
    for name in names:
        save(tmp_path / "models" / name, {"algo_name": "bc"})

    def best() -> int:
        return LAYOUT.read(tree(tmp_path)).best.step

    assert best() == 40
    (tmp_path / "models" / names[3]).unlink()
    assert best() == 20
    (tmp_path / "models" / names[1]).unlink()
    assert best() == 30
    (tmp_path / "models" / names[2]).unlink()
    assert best() == 10


def test_the_scale_of_the_actions_goes_with_every_checkpoint(tree, tmp_path):
    run = shutil.copytree(DATA / ROOT, tmp_path / "run")
    (run / "logs").mkdir(exist_ok=True)
    (run / "logs/normalization_params.txt").write_text("min: -1\nmax: 1\n")
    found = LAYOUT.read(tree(run))
    for item in (*found.checkpoints, found.best):
        assert item.files == tuple(sorted((item.path, "logs/normalization_params.txt")))


def test_only_last_was_kept(tree, tmp_path):
    save(tmp_path / "a" / "last.pth", {"algo_name": "bc", "env_metadata": {}, "variable_state": {"epoch": 3}})
    save(tmp_path / "b" / "last.pth", {"state_dict": {}, "epoch": 3})
    assert LAYOUT.find(tree(tmp_path)) == ["a"]
    assert LAYOUT.read(tree(tmp_path / "a")).checkpoints[0].step == 3


def test_others_model_epochs_are_not_claimed(tree, tmp_path):
    for epoch in (10, 20):
        save(tmp_path / "models" / f"model_epoch_{epoch}.pth", {"state_dict": {}, "epoch": epoch})
    save(tmp_path / "models" / "model_final.pth", {"state_dict": {}, "epoch": 25})
    (tmp_path / "config.json").write_text('{"lr": 0.1}')
    assert LAYOUT.find(tree(tmp_path)) == []
    # The content of the files counts more than any name.
    save(tmp_path / "models" / "model_epoch_5_best_validation_0.5.pth", {"state_dict": {}, "epoch": 5})
    assert LAYOUT.find(tree(tmp_path)) == []
    cut(tmp_path / "models" / "model_epoch_10.pth")
    assert LAYOUT.find(tree(tmp_path)) == []


@pytest.mark.parametrize("left", ["models/model_epoch_4.pth", "last_bak.pth", "config.json", ""])
def test_cut_files_are_recognised_by_what_lies_beside_them(tree, tmp_path, left):
    shutil.copytree(DATA / ROOT, tmp_path / "run")
    for path in (tmp_path / "run").rglob("*.pth"):
        if path != tmp_path / "run" / left:
            cut(path)
    if left != "config.json":
        (tmp_path / "run" / "config.json").unlink()
    if left.startswith("models"):
        for name in ("last.pth", "last_bak.pth"):
            (tmp_path / "run" / name).unlink()
    assert LAYOUT.find(tree(tmp_path / "run")) == [""]


def test_cut_files_without_anything_of_robomimics_are_not_claimed(tree, tmp_path):
    cut(save(tmp_path / "models" / "model_epoch_10.pth", {"algo_name": "bc"}))
    assert LAYOUT.find(tree(tmp_path)) == []
    (tmp_path / "config.json").write_text('{"algo_name": "bc"}')
    assert LAYOUT.find(tree(tmp_path)) == [""]
