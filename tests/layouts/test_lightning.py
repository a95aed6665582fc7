"""The Lightning layout against runs of 2.6.6."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from aml_mirror.layouts.lightning import Lightning
from aml_mirror.metrics.series import read_metrics
from builders.saved import write_bytes
from builders.torch_zip import cut, save

RUNS = Path(__file__).parents[1] / "data" / "runs"
LAYOUT = Lightning()


def checkpoint(path: Path, step: int, epoch: int = 0, **more: Any) -> Path:
    """A file with the keys that Lightning writes into every checkpoint, in its order."""
    inside = {"epoch": epoch, "global_step": step, "pytorch-lightning_version": "2.6.6", "state_dict": {}}
    return save(path, {**inside, **more})


def keeps_best(path: str, monitor: str | None = "val_acc", mode: str = "max") -> dict[str, Any]:
    state = {"monitor": monitor, "best_model_path": path, "dirpath": "/elsewhere"}
    return {f"ModelCheckpoint{{'monitor': {monitor!r}, 'mode': {mode!r}}}": state}


def test_last_is_taken_where_it_is_the_newest(tree):
    """save_last with save_top_k=3: last.ckpt has the contents of the newest of the three."""
    source = tree(RUNS / "lightning")
    assert LAYOUT.find(source) == ["lightning_logs/version_0"]
    run = LAYOUT.read(source.below("lightning_logs/version_0"))
    assert [(item.path, item.step, item.role) for item in run.checkpoints] == [
        ("checkpoints/last.ckpt", 260, "final"),
        ("checkpoints/epoch=25-step=260.ckpt", 260, "periodic"),
        ("checkpoints/epoch=24-step=250.ckpt", 250, "periodic"),
        ("checkpoints/epoch=23-step=240.ckpt", 240, "periodic"),
    ]
    assert (run.best.path, run.best.step) == ("checkpoints/epoch=23-step=240.ckpt", 240)
    assert run.params == {"lr": 0.03, "width": 128}


def test_its_own_table_is_read_where_there_is_no_event_file(tree, tmp_path):
    """Without TensorBoard installed the Trainer logs with a CSVLogger."""
    shutil.copytree(RUNS / "lightning", tmp_path, dirs_exist_ok=True)
    root = "lightning_logs/version_0"
    (tmp_path / root / "metrics.csv").write_text("epoch,step,train_loss,val_acc\r\n0,9,0.5,\r\n0,9,,0.25\r\n")
    run = LAYOUT.read(tree(tmp_path).below(root))
    assert run.logs == ["metrics.csv"]
    metrics = read_metrics(tree(tmp_path).below(root), run.logs)
    assert [(one.name, one.points, one.last_value) for one in metrics.series] == [
        ("epoch", 2, 0.0),
        ("train_loss", 1, 0.5),
        ("val_acc", 1, 0.25),
    ]


def test_folders_that_a_script_named(tree):
    """The best ones contain only weights. The periodic ones record which of them is the best."""
    source = tree(RUNS / "lightning_custom")
    assert LAYOUT.find(source) == [""]
    run = LAYOUT.read(source)
    assert (run.checkpoints[0].path, run.checkpoints[0].step) == ("periodic/sstep=49.ckpt", 49)
    assert run.best.path == "my_ckpts/best-epoch=06-val_acc=0.100.ckpt"
    assert run.best.step == 35


def test_a_metric_with_a_slash_makes_a_folder(tree):
    source = tree(RUNS / "lightning_slash")
    assert LAYOUT.find(source) == ["lightning_logs/version_0"]
    run = LAYOUT.read(source.below("lightning_logs/version_0"))
    assert [(item.path, item.step) for item in run.checkpoints] == [
        ("checkpoints/last.ckpt", 50),
        ("checkpoints/epoch=9-val/loss=13.309.ckpt", 50),
        ("checkpoints/epoch=8-val/loss=14.102.ckpt", 45),
    ]
    assert run.best.path == "checkpoints/epoch=9-val/loss=13.309.ckpt"


def test_of_two_lasts_the_newer_is_taken(tree):
    run = LAYOUT.read(tree(RUNS / "lightning_two_callbacks").below("lightning_logs/version_0"))
    assert [(item.path, item.step) for item in run.checkpoints] == [
        ("checkpoints/last-v1.ckpt", 45),
        ("checkpoints/epoch=8-step=45-p.ckpt", 45),
        ("checkpoints/last.ckpt", 40),
        ("checkpoints/epoch=7-step=40.ckpt", 40),
    ]
    # The callback without a monitor stores its newest under best_model_path, which does not make it the best.
    assert run.best.path == "checkpoints/epoch=7-step=40.ckpt"


def test_a_stale_last_is_not_the_end(tree, tmp_path):
    checkpoint(tmp_path / "checkpoints" / "last.ckpt", 20)
    checkpoint(tmp_path / "checkpoints" / "epoch=9-step=100.ckpt", 100)
    run = LAYOUT.read(tree(tmp_path))
    assert [item.step for item in run.checkpoints] == [100, 20]


def test_a_last_that_links_to_the_best_is_not_the_end(tree, tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoint(folder / "epoch=2-step=30.ckpt", 30)
    checkpoint(folder / "epoch=9-step=100.ckpt", 100)
    os.symlink("epoch=2-step=30.ckpt", folder / "last.ckpt")
    assert LAYOUT.read(tree(tmp_path)).checkpoints[0].path == "checkpoints/epoch=9-step=100.ckpt"


def test_a_last_that_links_nowhere_or_to_itself_is_passed_by(tree, tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoint(folder / "epoch=2-step=30.ckpt", 30)
    os.symlink("last.ckpt", folder / "last.ckpt")
    os.symlink("/nowhere/x.ckpt", folder / "last-v1.ckpt")
    assert LAYOUT.find(tree(tmp_path)) == [""]
    assert [item.path for item in LAYOUT.read(tree(tmp_path)).checkpoints] == [
        "checkpoints/epoch=2-step=30.ckpt"
    ]


def test_a_cut_last_keeps_the_first_place(tree, tmp_path):
    shutil.copytree(RUNS / "lightning", tmp_path / "run")
    folder = tmp_path / "run" / "lightning_logs" / "version_0" / "checkpoints"
    cut(folder / "last.ckpt")
    cut(folder / "epoch=25-step=260.ckpt")
    run = LAYOUT.read(tree(tmp_path / "run").below("lightning_logs/version_0"))
    assert [(item.path, item.step) for item in run.checkpoints[:3]] == [
        ("checkpoints/last.ckpt", None),
        ("checkpoints/epoch=25-step=260.ckpt", 260),
        ("checkpoints/epoch=24-step=250.ckpt", 250),
    ]


def test_a_cut_file_with_only_an_epoch_in_its_name_keeps_its_place(tree, tmp_path):
    for epoch in (8, 9, 10):
        checkpoint(tmp_path / "checkpoints" / f"epoch={epoch}.ckpt", epoch * 10, epoch)
    cut(tmp_path / "checkpoints" / "epoch=9.ckpt")
    assert [item.path for item in LAYOUT.read(tree(tmp_path)).checkpoints] == [
        "checkpoints/epoch=10.ckpt",
        "checkpoints/epoch=9.ckpt",
        "checkpoints/epoch=8.ckpt",
    ]


def test_the_step_is_the_first_one_in_the_file(tree, tmp_path):
    """Loops and schedulers have counters of the same name, later in the file."""
    checkpoint(tmp_path / "checkpoints" / "last.ckpt", 50, 5, loops={"global_step": 7, "epoch": 1})
    (found,) = LAYOUT.read(tree(tmp_path)).checkpoints
    assert found.step == 50


def test_a_file_of_another_program_beside_them_is_no_checkpoint_of_theirs(tree, tmp_path):
    checkpoint(tmp_path / "checkpoints" / "epoch=1-step=10.ckpt", 10)
    save(tmp_path / "checkpoints" / "step=99.ckpt", {"global_step": 99, "state_dict": {}})
    assert [item.step for item in LAYOUT.read(tree(tmp_path)).checkpoints] == [10]


def test_the_best_is_no_longer_there(tree, tmp_path):
    callbacks = keeps_best("/elsewhere/checkpoints/epoch=3-step=30.ckpt")
    checkpoint(tmp_path / "checkpoints" / "last.ckpt", 100, callbacks=callbacks)
    run = LAYOUT.read(tree(tmp_path))
    assert run.best is None
    assert any("epoch=3-step=30.ckpt no longer exists" in text for text in run.warnings)


def test_a_better_one_that_was_saved_after_the_state_is_the_best(tree, tmp_path):
    callbacks = keeps_best("/elsewhere/best/e-val_acc=0.500.ckpt")
    checkpoint(tmp_path / "best" / "e-val_acc=0.500.ckpt", 50)
    checkpoint(tmp_path / "best" / "e-val_acc=0.900.ckpt", 90)
    checkpoint(tmp_path / "periodic" / "step=80.ckpt", 80, callbacks=callbacks)
    assert LAYOUT.find(tree(tmp_path)) == [""]
    assert LAYOUT.read(tree(tmp_path)).best.step == 90


def test_without_any_state_the_names_say_which_is_best(tree, tmp_path):
    for step, loss in ((10, 0.5), (20, 0.25), (30, 0.75)):
        checkpoint(tmp_path / "a" / "checkpoints" / f"step={step}-val_loss={loss}.ckpt", step)
        checkpoint(tmp_path / "b" / "checkpoints" / f"step={step}-val_acc={loss}-v1.ckpt", step)
    assert LAYOUT.read(tree(tmp_path / "a")).best.step == 20
    assert LAYOUT.read(tree(tmp_path / "b")).best.step == 30


def test_two_versions_with_checkpoints_are_two_runs(tree, tmp_path):
    for version in range(3):
        folder = tmp_path / "lightning_logs" / f"version_{version}"
        folder.mkdir(parents=True)
        (folder / "hparams.yaml").write_text("lr: 0.1\n")
        if version:
            checkpoint(folder / "checkpoints" / "epoch=0-step=5.ckpt", 5)
    assert LAYOUT.find(tree(tmp_path)) == ["lightning_logs/version_1", "lightning_logs/version_2"]


def test_files_that_a_script_saved_itself(tree, tmp_path):
    checkpoint(tmp_path / "final.ckpt", 50)
    checkpoint(tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "epoch=9-step=50.ckpt", 50)
    assert LAYOUT.find(tree(tmp_path)) == [""]
    assert LAYOUT.read(tree(tmp_path)).checkpoints[0].path == "final.ckpt"


def test_others_files_are_not_claimed(tree, tmp_path):
    save(tmp_path / "checkpoints" / "model.ckpt", {"state_dict": {}, "epoch": 1})
    (tmp_path / "checkpoints" / "tensorflow.ckpt").write_bytes(b"\x00" * 100)
    assert LAYOUT.find(tree(tmp_path)) == []


def test_a_metric_with_a_slash_in_a_folder_of_ones_own(tree, tmp_path):
    for epoch, loss in ((8, 0.25), (9, 0.5)):
        checkpoint(tmp_path / "run" / "ckpts" / f"epoch={epoch}-val" / f"loss={loss}.ckpt", epoch * 10, epoch)
    assert LAYOUT.find(tree(tmp_path)) == ["run"]
    run = LAYOUT.read(tree(tmp_path / "run"))
    assert [item.step for item in run.checkpoints] == [90, 80]
    assert run.best.step == 80


def test_the_root_is_where_the_logs_are_too(tree, tmp_path):
    checkpoint(tmp_path / "a" / "kept" / "epoch=0-step=5.ckpt", 5)
    assert LAYOUT.find(tree(tmp_path)) == ["a/kept"]
    (tmp_path / "a" / "tb").mkdir()
    (tmp_path / "a" / "tb" / "events.out.tfevents.1.host").write_bytes(b"")
    assert LAYOUT.find(tree(tmp_path)) == ["a"]
    # Another run's logs are not this one's.
    save(tmp_path / "a" / "tb" / "model_1.pt", {"iter": 1, "infos": None})
    assert LAYOUT.find(tree(tmp_path)) == ["a/kept"]


def test_of_one_step_the_later_version_of_a_name_is_newer(tree, tmp_path):
    for number in ("", "-v1", "-v2", "-v10"):
        write_bytes(tmp_path / f"checkpoints/epoch=1-step=100{number}.ckpt")
    run = Lightning().read(tree(tmp_path))
    assert [item.path.rpartition("100")[2] for item in run.checkpoints] == [
        *("-v10.ckpt", "-v2.ckpt", "-v1.ckpt", ".ckpt")
    ]
