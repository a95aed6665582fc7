"""An unreadable file is not a missing file: no older checkpoint replaces it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aml_mirror.core.errors import MirrorError, NotReadable, Unreadable
from aml_mirror.core.run import Checkpoint, Run
from aml_mirror.core.settings import Settings
from aml_mirror.pipeline.locate import locate
from aml_mirror.pipeline.select import SelectedCheckpoint, choose
from aml_mirror.sources.base import Entry
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from builders.permissions import public_folder, somebody_else
from builders.saved import safetensors, write_json
from builders.torch_zip import cut, save


def hf_run(root: Path, *steps: int) -> Path:
    for step in steps:
        safetensors(root / f"checkpoint-{step}" / "model.safetensors", seed=step)
        write_json(root / f"checkpoint-{step}" / "trainer_state.json", {"global_step": step})
    return root


def rsl_run(root: Path, *steps: int) -> Path:
    for step in steps:
        save(root / f"model_{step}.pt", {"model_state_dict": {}, "iter": step, "infos": None})
    return root


def lightning_run(root: Path, *steps: int) -> Path:
    for step in steps:
        saved = {"epoch": 1, "global_step": step, "pytorch-lightning_version": "2.6.6", "state_dict": {}}
        save(root / "checkpoints" / f"epoch=1-step={step}.ckpt", saved)
    return root


def chosen(run: Path, wanted: str = "final") -> SelectedCheckpoint:
    subject = locate(LocalSource(run), Settings(checkpoint=wanted))
    *_, last = choose(subject.tree, subject.run, wanted)
    return last


def move_out(path: Path, outside: Path) -> None:
    """Replace it with a link to a path outside of the run."""
    outside.mkdir(exist_ok=True)
    path.rename(outside / path.name)
    path.symlink_to(outside / path.name)


@pytest.mark.parametrize(
    ("make", "newest"),
    [
        (hf_run, "checkpoint-30"),
        (hf_run, "checkpoint-30/model.safetensors"),
        (rsl_run, "model_30.pt"),
        (lightning_run, "checkpoints/epoch=1-step=30.ckpt"),
    ],
)
def test_a_newest_checkpoint_behind_a_link_out_of_the_run(tmp_path: Path, make, newest: str) -> None:
    run = make(tmp_path / "run", 10, 20, 30)
    move_out(run / newest, tmp_path / "outside")
    with pytest.raises(Unreadable, match="link that leaves the run") as caught:
        chosen(run)
    assert caught.value.exit_code == 65 and newest in caught.value.message
    assert chosen(run, "20").checkpoint.step == 20


@pytest.mark.parametrize(
    ("make", "older"),
    [
        (hf_run, "checkpoint-10"),
        (rsl_run, "model_10.pt"),
        (lightning_run, "checkpoints/epoch=1-step=10.ckpt"),
    ],
)
def test_an_older_one_there_is_no_obstacle(tmp_path: Path, make, older: str) -> None:
    run = make(tmp_path / "run", 10, 20)
    move_out(run / older, tmp_path / "outside")
    assert chosen(run).checkpoint.step == 20


def test_one_that_was_passed_over_is_told_whatever_it_is_called(tmp_path: Path) -> None:
    """Its place in the list, not a number in its name, shows that it is the newer one."""
    run = tmp_path / "run"
    safetensors(run / "end" / "model.safetensors")
    safetensors(run / "step_20" / "model.safetensors")
    move_out(run / "end" / "model.safetensors", tmp_path / "outside")
    listed = [
        Checkpoint(name, step, "periodic", (f"{name}/model.safetensors",), (f"{name}/model.safetensors",))
        for name, step in (("end", None), ("step_20", 20))
    ]
    source = LocalSource(run)
    tree = Tree(source, source.scan())
    with pytest.raises(Unreadable, match="link that leaves the run"):
        list(choose(tree, Run(listed), "final"))
    (found,) = choose(tree, Run(listed[1:]), "final")
    assert found.checkpoint.step == 20


def test_other_links_out_of_the_run_are_no_obstacle(tmp_path: Path) -> None:
    run = hf_run(tmp_path / "run", 10, 20)
    (tmp_path / "outside").mkdir()
    for name in ("base_model.safetensors", "data", "videos", "last", "best.pt"):
        (run / name).symlink_to(tmp_path / "outside")
    assert chosen(run).checkpoint.path == "checkpoint-20"


@pytest.mark.parametrize("make", [hf_run, rsl_run, lightning_run])
def test_a_newest_checkpoint_that_may_not_be_read(make) -> None:
    with public_folder() as folder:
        run = make(folder / "run", 10, 20)
        for path in folder.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        newest = max(path for path in run.rglob("*20*") if path.is_file() or path.is_dir())
        weights = newest if newest.is_file() else newest / "model.safetensors"
        weights.chmod(0)
        with somebody_else(), pytest.raises(NotReadable):
            chosen(run)


@pytest.mark.parametrize("make", [rsl_run, lightning_run])
def test_a_newest_checkpoint_that_goes_while_it_is_judged(
    tmp_path: Path, make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(tmp_path / "run", 10, 20)
    subject = locate(LocalSource(run), Settings())
    next(run.rglob("*20*")).unlink()
    with pytest.raises(Unreadable, match="was deleted"):
        list(choose(subject.tree, subject.run, "final"))


def test_a_volume_that_fails_is_not_an_absent_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = lightning_run(tmp_path / "run", 10, 20)
    real = os.open

    def fails(path: str, *rest: int, **more: int) -> int:
        if str(path).endswith("step=20.ckpt"):
            raise OSError(5, "Input/output error", path)
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", fails)
    with pytest.raises(MirrorError, match="Input/output error") as caught:
        chosen(run)
    assert caught.value.exit_code == 75


def archived(run: Path, name: str, wanted: str = "final", strict: bool = False) -> list[SelectedCheckpoint]:
    """Select a checkpoint in a run with one file in the archive tier."""

    class Archived(LocalSource):
        def scan_at_most(self, limit: int):
            listing = super().scan_at_most(limit)
            entry = listing.files[name]
            listing.files[name] = Entry(entry.path, entry.bytes, entry.stamp, obstacle="it is archived")
            return listing

    subject = locate(Archived(run), Settings(checkpoint=wanted))
    return list(choose(subject.tree, subject.run, wanted, strict))


def test_what_a_listing_knows_is_told_without_a_read(tmp_path: Path) -> None:
    run = rsl_run(tmp_path / "run", 10, 20)
    with pytest.raises(Unreadable, match="it is archived"):
        archived(run, "model_20.pt")


def test_of_all_an_older_one_may_be_missed_and_the_newest_may_not(tmp_path: Path) -> None:
    run = rsl_run(tmp_path / "run", 10, 20)
    with pytest.raises(Unreadable, match="it is archived"):
        archived(run, "model_20.pt", "all")
    (found,) = archived(run, "model_10.pt", "all")
    assert found.checkpoint.step == 20 and "it is archived" in found.passed_over[0][1]
    with pytest.raises(Unreadable, match="it is archived"):
        archived(run, "model_10.pt", "all", strict=True)


def test_what_is_kept_for_its_score_or_is_data_is_no_obstacle(tmp_path: Path) -> None:
    run = rsl_run(tmp_path / "run", 10, 20)
    for name in ("best.pt", "data/model_30.pt"):
        save(run / name, {"x": 1})
        assert archived(run, name)[0].checkpoint.step == 20
    save(run / "model_30_ema.pt", {"x": 1})
    with pytest.raises(Unreadable, match="it is archived"):
        archived(run, "model_30_ema.pt")


def test_where_nothing_is_complete_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    run = rsl_run(tmp_path / "run", 10, 20)
    move_out(run / "model_20.pt", tmp_path / "outside")
    cut(run / "model_10.pt")
    with pytest.raises(Unreadable, match="link that leaves the run"):
        chosen(run)


def test_a_name_in_a_checkpoint_that_is_no_text(tmp_path: Path) -> None:
    run = hf_run(tmp_path / "run", 10, 20)
    with open(os.fsencode(run / "checkpoint-10") + b"/more\xff.json", "wb"):
        pass
    assert chosen(run).checkpoint.step == 20
    with open(os.fsencode(run / "checkpoint-20") + b"/more\xff.json", "wb"):
        pass
    with pytest.raises(Unreadable, match="its name is not UTF-8") as caught:
        chosen(run)
    assert "rename it" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("make", "link", "named"),
    [
        (rsl_run, "model_last.pt", "model_30.pt"),
        (rsl_run, "latest", "/gone/with/the/pod/model_30.pt"),
        (hf_run, "last", "checkpoint-30"),
        (lightning_run, "checkpoints/last.ckpt", "epoch=1-step=30.ckpt"),
    ],
)
def test_a_link_names_a_newer_checkpoint_that_is_gone(tmp_path: Path, make, link: str, named: str) -> None:
    run = make(tmp_path / "run", 10, 20)
    (run / link).symlink_to(named)
    with pytest.raises(Unreadable, match="no longer exists and is newer than") as caught:
        chosen(run)
    assert caught.value.exit_code == 65 and link in caught.value.message
    assert chosen(run, "20").checkpoint.step == 20


@pytest.mark.parametrize("named", ["/gone/with/the/pod/model_20.pt", "model_10_old.pt", "optimizer_30.pt"])
def test_a_link_that_is_lost_says_nothing_of_a_newer_checkpoint(tmp_path: Path, named: str) -> None:
    run = rsl_run(tmp_path / "run", 10, 20)
    (run / "model_last.pt").symlink_to(named)
    assert chosen(run).checkpoint.step == 20
