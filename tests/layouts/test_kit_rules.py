"""layouts/kit: which file is the end of a training, which one is a copy, and when a person has to say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aml_mirror.core.run import Checkpoint
from aml_mirror.layouts.base import RunDraft
from aml_mirror.layouts.kit.file_layout import FileLayout, root_of
from aml_mirror.layouts.kit.folder_layout import FolderLayout
from aml_mirror.layouts.kit.other_ends import (
    WHY_FOREIGN,
    ask_about_other_ends,
    file_checkpoint,
    other_ends,
    plain_names,
    unlisted_ends,
)
from aml_mirror.layouts.kit.other_series import ask_about_other_series
from aml_mirror.layouts.kit.roles import warn_of_scores
from aml_mirror.sources.tree import Tree
from builders.saved import safetensors, write_bytes, write_json
from builders.torch_zip import save

MakeTree = Callable[[Path], Tree]
NUMBERED = FileLayout(name="x", numbered=r"model_(?P<step>\d+)\.pt", best=r"best\.pt", holds=("actor",))


def saved(path: Path, seed: int = 0, **more: object) -> Path:
    return save(path, {"actor": {}, **more}, tensor=seed.to_bytes(8, "little") * 8)


def paths(items: list[Checkpoint]) -> list[str]:
    return [item.path for item in items]


def test_an_end_and_a_number_of_one_step_do_not_contradict_each_other(tree: MakeTree, tmp_path: Path) -> None:
    layout = FileLayout(name="x", numbered=r"m_(?P<step>\d+)\.pt", final=r"last\.pt", step_key="step")
    saved(tmp_path / "m_20.pt", 1, step=20)
    saved(tmp_path / "last.pt", 2, step=20)
    found = layout.read(tree(tmp_path))
    assert paths(found.checkpoints) == ["last.pt", "m_20.pt"] and found.warnings == []


def test_of_two_of_one_step_the_one_that_is_whole_comes_first(tree: MakeTree, tmp_path: Path) -> None:
    saved(tmp_path / "files/.model_5.pt")
    saved(tmp_path / "files/model_5.pt")
    found = NUMBERED.read(tree(tmp_path / "files"))
    assert paths(found.checkpoints) == ["model_5.pt", ".model_5.pt"]
    layout = FolderLayout(name="x", numbered=r"at_(?P<step>\d+)", inside=("*.safetensors",))
    safetensors(tmp_path / "folders/_tmp_at_5/model.safetensors")
    safetensors(tmp_path / "folders/at_5/model.safetensors")
    found = layout.read(tree(tmp_path / "folders"))
    assert paths(found.checkpoints) == ["at_5", "_tmp_at_5"]


def test_an_end_of_a_fork_is_asked_about_beside_a_number_and_taken_alone(
    tree: MakeTree, tmp_path: Path
) -> None:
    saved(tmp_path / "best.pt", 1)
    saved(tmp_path / "best_final.pt", 2)
    found = NUMBERED.read(tree(tmp_path))
    assert (paths(found.checkpoints), found.undecided) == (["best_final.pt"], "")
    saved(tmp_path / "model_5.pt", 3)
    found = NUMBERED.read(tree(tmp_path))
    assert found.undecided.startswith(WHY_FOREIGN)
    assert found.choices == ["best_final.pt", "model_5.pt"]


def test_all_marks_of_a_framework_are_needed(tree: MakeTree, tmp_path: Path) -> None:
    layout = FileLayout(
        name="x",
        numbered=r"m_(?P<step>\d+)\.pt",
        holds=("iter", "infos"),
        beside=("params/*.yaml", "cfg.json"),
        accepts=lambda run: not run.has("refused"),
    )
    save(tmp_path / "m_5.pt", {"iter": 1})
    write_json(tmp_path / "cfg.json", {})
    assert layout.find(tree(tmp_path)) == []
    save(tmp_path / "m_5.pt", {"iter": 1, "infos": None})
    assert layout.find(tree(tmp_path)) == [""]
    (tmp_path / "cfg.json").unlink()
    assert layout.find(tree(tmp_path)) == []
    write_bytes(tmp_path / "params/x.yaml")
    assert layout.find(tree(tmp_path)) == [""]
    write_bytes(tmp_path / "refused")
    assert layout.find(tree(tmp_path)) == []


def test_a_folder_needs_its_weights_and_what_lies_beside_it(tree: MakeTree, tmp_path: Path) -> None:
    layout = FolderLayout(
        name="x",
        numbered=r"at_(?P<step>\d+)",
        inside=("*.json",),
        beside=("cfg.json",),
        left_out=(("critic*", "a critic"),),
    )
    write_json(tmp_path / "at_1/config.json", {})
    safetensors(tmp_path / "at_1/critic.safetensors")
    assert layout.find(tree(tmp_path)) == []
    write_json(tmp_path / "cfg.json", {})
    assert layout.find(tree(tmp_path)) == [""]
    (found,) = layout.read(tree(tmp_path)).checkpoints
    assert (found.weights, found.problem) == ((), "it holds no weights")
    safetensors(tmp_path / "at_1/model.safetensors")
    (found,) = layout.read(tree(tmp_path)).checkpoints
    assert (found.weights, found.problem) == (("at_1/model.safetensors",), "")
    assert found.left_out == (("at_1/critic.safetensors", "a critic"),)


def test_what_two_whole_folders_have_is_wanted_of_a_third(tree: MakeTree, tmp_path: Path) -> None:
    layout = FolderLayout(
        name="x", numbered=r"at_(?P<step>\d+)", inside=("*.json",), written_last="done.json"
    )
    for step in (1, 2, 3):
        write_json(tmp_path / f"at_{step}/done.json", {})
        safetensors(tmp_path / f"at_{step}/model.safetensors")
    safetensors(tmp_path / "at_1/head_model.safetensors")

    def problems() -> list[str]:
        return [item.problem for item in layout.read(tree(tmp_path)).checkpoints]

    assert problems() == ["", "", ""]
    safetensors(tmp_path / "at_2/head_model.safetensors")
    said = "head_model.safetensors, which the run's other checkpoints have, is missing"
    assert problems() == [said, "", ""]
    # One that was not finished says nothing about the others, and of two neither does.
    (tmp_path / "at_1/done.json").unlink()
    assert problems()[:2] == ["", ""]


@pytest.mark.parametrize(
    ("folder", "container", "optional", "root"),
    [
        ("", "", False, ""),
        ("a/b", "", False, "a/b"),
        ("nn", "nn", False, ""),
        ("a/nn", "nn", False, "a"),
        ("a/nn", "nn", True, "a"),
        ("a", "nn", False, None),
        ("a", "nn", True, "a"),
        ("a/snn", "nn", False, None),
        ("a/snn", "nn", True, "a/snn"),
    ],
)
def test_the_root_of_a_folder_of_checkpoints(
    folder: str, container: str, optional: bool, root: str | None
) -> None:
    assert root_of(folder, container, optional) == root


@pytest.mark.parametrize(
    ("steps", "known"),
    [
        ((10, 20, 30), True),
        ((10, 20, 30, 50), False),
        ((20, 30, 40), False),
        ((10, 20), False),
        ((5,), False),
    ],
)
def test_checkpoints_that_were_kept_for_scores_are_all_where_no_number_is_missing(
    steps: tuple[int, ...], known: bool
) -> None:
    items = [Checkpoint(f"m_{step}", step, "periodic", (), ()) for step in reversed(steps)]
    run = RunDraft(items)
    warn_of_scores(run)
    assert (run.warnings == []) == known
    assert run.checkpoints[0].role == ("periodic" if known else "unknown")


def test_names_of_ends_and_of_something_else() -> None:
    listed = ["model_100.pt"]
    assert other_ends(["model_final.pt", "final.pth", "last.ckpt"], listed) == [
        "model_final.pt",
        "final.pth",
        "last.ckpt",
    ]
    for name in ("optimizer_last.pt", "model_final.onnx", "model_final.safetensors", "model_200.pt", "a.pt"):
        assert other_ends([name], listed) == [], name
    # A file of another format has one suffix.
    assert other_ends(["final.safetensors", "final.pt"], ["model_1.safetensors"]) == ["final.safetensors"]
    assert plain_names(["model.pt", "model_5.pt", "student.pt", "policy2.pt"]) == ["model.pt"]


def described(run: Tree, *listed: str, best: str = "") -> RunDraft:
    return RunDraft([file_checkpoint(path) for path in listed], file_checkpoint(best) if best else None)


def ends(run: Tree, result: RunDraft) -> list[str]:
    return paths(unlisted_ends(run, result, file_checkpoint))


def test_ends_are_looked_for_beside_the_checkpoints_and_in_the_root(tree: MakeTree, tmp_path: Path) -> None:
    saved(tmp_path / "models/model_5.pt", 5)
    saved(tmp_path / "model_final.pt", 7)
    saved(tmp_path / "other/model_final.pt", 8)
    run = tree(tmp_path)
    assert ends(run, described(run, "models/model_5.pt")) == ["model_final.pt"]
    saved(tmp_path / "models/model_last.pt", 9)
    run = tree(tmp_path)
    assert ends(run, described(run, "models/model_5.pt")) == ["models/model_last.pt", "model_final.pt"]
    # What is listed already is no other end.
    assert ends(run, described(run, "models/model_5.pt", best="models/model_last.pt")) == ["model_final.pt"]


def test_a_copy_of_a_checkpoint_or_of_another_end_is_none(tree: MakeTree, tmp_path: Path) -> None:
    saved(tmp_path / "model_5.pt", 5)
    saved(tmp_path / "model_final.pt", 7)
    saved(tmp_path / "model_last.pt", 7)
    run = tree(tmp_path)
    assert ends(run, described(run, "model_5.pt")) == ["model_final.pt"]
    saved(tmp_path / "model_final.pt", 5)
    saved(tmp_path / "model_last.pt", 5)
    run = tree(tmp_path)
    assert ends(run, described(run, "model_5.pt")) == []


@pytest.mark.parametrize(
    ("folder", "is_end"),
    [("final", True), ("model_last", True), ("final_5", False), ("optimizer_final", False), ("data", False)],
)
def test_a_folder_is_an_end_by_its_name(tree: MakeTree, tmp_path: Path, folder: str, is_end: bool) -> None:
    saved(tmp_path / "model_5.pt", 5)
    saved(tmp_path / folder / "model.pt", 7)
    run = tree(tmp_path)
    assert ends(run, described(run, "model_5.pt")) == ([f"{folder}/model.pt"] if is_end else [])


def test_a_folder_with_other_weights_too_is_no_end(tree: MakeTree, tmp_path: Path) -> None:
    saved(tmp_path / "model_5.pt", 5)
    saved(tmp_path / "final/model.pt", 7)
    saved(tmp_path / "final/critic.pt", 8)
    run = tree(tmp_path)
    assert ends(run, described(run, "model_5.pt")) == []


def test_a_folder_is_an_end_beside_folders_if_its_weights_are_in_the_same_place(
    tree: MakeTree, tmp_path: Path
) -> None:
    def whole(path: str) -> Checkpoint:
        return Checkpoint(path, None, "periodic", (f"{path}/w.pt",), (f"{path}/w.pt",))

    saved(tmp_path / "step_5/w.pt", 5)
    saved(tmp_path / "final/w.pt", 7)
    saved(tmp_path / "last/inside/w.pt", 8)
    run = tree(tmp_path)
    assert paths(unlisted_ends(run, RunDraft([whole("step_5")]), whole)) == ["final"]
    result = RunDraft([whole("step_5")])
    ask_about_other_ends(run, result, whole)
    assert result.choices == ["final", "step_5"] and paths(result.checkpoints) == ["final", "step_5"]
    # One question is enough.
    asked = RunDraft([whole("step_5")], undecided="already")
    ask_about_other_ends(run, asked, whole)
    assert (asked.undecided, paths(asked.checkpoints)) == ("already", ["step_5"])


def test_a_second_series_of_files_is_asked_about(tree: MakeTree, tmp_path: Path) -> None:
    for step in (5, 9, 100):
        saved(tmp_path / f"student_{step}.pt", step)
    saved(tmp_path / "model_5.pt", 1)
    names = [path.name for path in tmp_path.iterdir() if path.name != "model_5.pt"]

    def asked(*more: str, is_own: bool = True) -> list[str]:
        run = tree(tmp_path)
        result = described(run, "model_5.pt")
        ask_about_other_series(run, result, "", [*names, *more], lambda path: is_own)
        assert bool(result.undecided) == bool(result.choices)
        return list(result.choices)

    # Only the newest file of each series is a choice.
    assert asked() == ["model_5.pt", "student_100.pt"]
    assert asked(is_own=False) == []
    for name in ("episode_7.pt", "ema_7.pt", "student_best_7.pt", "student.pt"):
        saved(tmp_path / name, 3)
        assert asked(name) == ["model_5.pt", "student_100.pt"], name
    # A copy of a checkpoint is none.
    saved(tmp_path / "student_100.pt", 1)
    assert asked() == []
