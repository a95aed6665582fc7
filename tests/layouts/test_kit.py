"""layouts/kit: what a declaration of a framework does, shown with invented frameworks."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aml_mirror.layouts.kit.companions import matching, missing_companion
from aml_mirror.layouts.kit.file_layout import FileLayout
from aml_mirror.layouts.kit.folder_layout import FolderLayout
from aml_mirror.layouts.kit.temporary import name_when_done
from aml_mirror.layouts.torch_files import holds_string
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from builders.saved import safetensors, write_bytes, write_json
from builders.torch_zip import cut, save

MakeTree = Callable[[Path], Tree]

FILES = FileLayout(
    name="files",
    folder="models",
    numbered=r"(?P<task>[a-z]+)_(?P<step>\d+)\.pt",
    final=r"(?P<task>[a-z]+)_final\.pt",
    best=r"(?P<task>[a-z]+)_best\.pt",
    holds=("actor",),
    companions=("stats.json",),
    left_out=(("models/*.buffer", "a buffer"),),
    logs=("log.csv",),
)
FOLDERS = FolderLayout(
    name="folders",
    folder="saves",
    numbered=r"at_(?P<step>\d+)",
    final=r"at_end",
    best=r"at_best",
    inside=("policy.pt",),
    companions=("stats.json",),
    left_out=(("trainer/*", "state of the trainer"),),
    written_last="done.json",
)


def saved(path: Path, step: int = 0, **more: object) -> Path:
    return save(path, {"actor": {}, "step": step, **more}, tensor=step.to_bytes(8, "little") * 8)


def paths(items: list[object]) -> list[str]:
    return [item.path for item in items]  # type: ignore[attr-defined]


def test_files_are_ordered_by_their_number_and_the_end_comes_first(tree: MakeTree, tmp_path: Path) -> None:
    for step in (5, 100, 20):
        saved(tmp_path / f"run/models/walk_{step}.pt", step)
    assert FILES.find(tree(tmp_path)) == ["run"]
    found = FILES.read(tree(tmp_path / "run"))
    assert [(item.path, item.step, item.role) for item in found.checkpoints] == [
        ("models/walk_100.pt", 100, "final"),
        ("models/walk_20.pt", 20, "periodic"),
        ("models/walk_5.pt", 5, "periodic"),
    ]
    saved(tmp_path / "run/models/walk_final.pt", 7)
    saved(tmp_path / "run/models/walk_best.pt", 8)
    write_json(tmp_path / "run/stats.json", {})
    write_bytes(tmp_path / "run/models/walk.buffer")
    write_bytes(tmp_path / "run/log.csv")
    found = FILES.read(tree(tmp_path / "run"))
    assert (found.checkpoints[0].path, found.checkpoints[0].step) == ("models/walk_final.pt", None)
    assert [item.role for item in found.checkpoints] == ["final", "periodic", "periodic", "periodic"]
    assert found.best and found.best.path == "models/walk_best.pt"
    for item in (*found.checkpoints, found.best):
        assert item.files == (item.path, "stats.json") and item.weights == (item.path,)
        assert item.left_out == (("models/walk.buffer", "a buffer"),)
    assert found.logs == ["log.csv"] and not found.undecided


def test_files_of_two_trainings_are_undecided_and_named(tree: MakeTree, tmp_path: Path) -> None:
    for step, name in enumerate(("walk_5", "walk_final", "run_9", "run_100")):
        saved(tmp_path / f"models/{name}.pt", step)
    found = FILES.read(tree(tmp_path))
    assert "2 trainings" in found.undecided
    assert "models/walk_final.pt" in found.undecided and "models/run_100.pt (step 100)" in found.undecided


def test_an_end_that_is_a_copy_is_listed_once_and_a_stale_one_not_used(
    tree: MakeTree, tmp_path: Path
) -> None:
    for step in (5, 20):
        saved(tmp_path / f"models/walk_{step}.pt", step)
    saved(tmp_path / "models/walk_final.pt", 20)
    found = FILES.read(tree(tmp_path))
    assert paths(found.checkpoints) == ["models/walk_20.pt", "models/walk_5.pt"]
    assert found.checkpoints[0].left_out == (("models/walk_final.pt", "a copy of models/walk_20.pt"),)
    assert not found.warnings
    saved(tmp_path / "models/walk_30.pt", 30)
    found = FILES.read(tree(tmp_path))
    assert found.checkpoints[0].path == "models/walk_30.pt"
    assert "walk_final.pt is stale" in found.warnings[0]


def test_an_end_is_no_copy_of_a_file_of_another_training(tree: MakeTree, tmp_path: Path) -> None:
    saved(tmp_path / "models/run_100.pt", 100)
    saved(tmp_path / "models/walk_final.pt", 100)
    found = FILES.read(tree(tmp_path))
    assert "2 trainings" in found.undecided
    assert set(found.choices) == {"models/run_100.pt", "models/walk_final.pt"}


def test_two_ends_without_a_step_are_undecided(tree: MakeTree, tmp_path: Path) -> None:
    layout = FileLayout(name="x", numbered=r"m_(?P<step>\d+)\.pt", final=r"(?:final|last)\.pt")
    for step, name in enumerate(("m_5", "final", "last")):
        saved(tmp_path / f"{name}.pt", step)
    found = layout.read(tree(tmp_path))
    assert "2 files are named" in found.undecided and set(found.choices) == {"final.pt", "last.pt"}
    # Of two equal ones, one is enough.
    saved(tmp_path / "last.pt", 1)
    assert not layout.read(tree(tmp_path)).undecided


def test_a_best_that_was_being_saved_is_none(tree: MakeTree, tmp_path: Path) -> None:
    layout = FileLayout(name="x", numbered=r"m_(?P<step>\d+)", best=r"best")
    saved(tmp_path / "m_5", 5)
    saved(tmp_path / "best.orbax-checkpoint-tmp-17", 3)
    found = layout.read(tree(tmp_path))
    assert found.best is None and [item.step for item in found.checkpoints] == [5]


def test_the_step_inside_decides_between_an_end_and_a_number(tree: MakeTree, tmp_path: Path) -> None:
    layout = FileLayout(name="x", numbered=r"m_(?P<step>\d+)\.pt", final=r"last\.pt", step_key="step")
    saved(tmp_path / "m_20.pt", 20, more=1)
    saved(tmp_path / "last.pt", 25)
    found = layout.read(tree(tmp_path))
    assert [(item.path, item.step) for item in found.checkpoints] == [("last.pt", 25), ("m_20.pt", 20)]
    saved(tmp_path / "m_30.pt", 30, more=1)
    found = layout.read(tree(tmp_path))
    assert found.checkpoints[0].path == "m_30.pt" and "later step 30" in found.warnings[0]
    cut(tmp_path / "last.pt")
    assert layout.read(tree(tmp_path)).checkpoints[0].path == "last.pt"


@pytest.mark.parametrize("trust", [False, True])
def test_a_framework_is_told_by_what_the_newest_readable_file_holds(
    tree: MakeTree, tmp_path: Path, trust: bool
) -> None:
    layout = FileLayout(name="x", numbered=r"m_(?P<step>\d+)\.pt", holds=("iter",), trust_names=trust)
    cut(save(tmp_path / "m_9.pt", {"iter": 1}))
    assert layout.find(tree(tmp_path)) == ([""] if trust else [])
    # "criterion" contains those letters, but is another key.
    save(tmp_path / "m_5.pt", {"criterion": 1})
    assert layout.find(tree(tmp_path)) == []
    save(tmp_path / "m_7.pt", {"iter": 1})
    assert layout.find(tree(tmp_path)) == [""]


def test_only_the_best_is_no_end(tree: MakeTree, tmp_path: Path) -> None:
    saved(tmp_path / "models/walk_best.pt")
    found = FILES.read(tree(tmp_path))
    assert found.checkpoints == [] and found.best
    assert "best checkpoint models/walk_best.pt" in found.warnings[0]


def test_folders(tree: MakeTree, tmp_path: Path) -> None:
    for step in (9, 30):
        saved(tmp_path / f"saves/at_{step}/policy.pt", step)
        write_json(tmp_path / f"saves/at_{step}/trainer/x.json", {})
        write_json(tmp_path / f"saves/at_{step}/done.json", {})
    saved(tmp_path / "saves/at_100/policy.pt")
    saved(tmp_path / "saves/at_200.tmp/policy.pt")
    saved(tmp_path / "saves/at_best/policy.pt")
    write_json(tmp_path / "saves/at_best/done.json", {})
    write_json(tmp_path / "stats.json", {})
    assert FOLDERS.find(tree(tmp_path)) == [""]
    found = FOLDERS.read(tree(tmp_path))
    assert [(item.path, item.problem.partition(":")[0]) for item in found.checkpoints] == [
        ("saves/at_200.tmp", "it is a temporary folder"),
        ("saves/at_100", "done.json, which is written last, is missing"),
        ("saves/at_30", ""),
        ("saves/at_9", ""),
    ]
    whole = found.checkpoints[2]
    assert whole.files == ("saves/at_30/done.json", "saves/at_30/policy.pt", "stats.json")
    assert whole.weights == ("saves/at_30/policy.pt",)
    assert whole.left_out == (("saves/at_30/trainer/x.json", "state of the trainer"),)
    assert found.best and found.best.path == "saves/at_best"
    saved(tmp_path / "saves/at_end/policy.pt")
    assert FOLDERS.read(tree(tmp_path)).checkpoints[0].path == "saves/at_end"


def test_a_folder_that_lost_weights_is_incomplete(tree: MakeTree, tmp_path: Path) -> None:
    layout = FolderLayout(name="x", numbered=r"at_(?P<step>\d+)", inside=("*.safetensors",))
    for step in (1, 2, 3):
        safetensors(tmp_path / f"at_{step}/model.safetensors")
        if step < 3:
            safetensors(tmp_path / f"at_{step}/head_model.safetensors")
    found = layout.read(tree(tmp_path))
    assert "head_model.safetensors" in found.checkpoints[0].problem
    assert not found.checkpoints[1].problem


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=1, max_size=12), st.sampled_from(["", "end"]))
def test_the_highest_number_is_the_end_unless_a_word_says_so(steps: list[int], end: str) -> None:
    layout = FileLayout(name="x", numbered=r"m_(?P<step>\d+)\.pt", final=r"end\.pt")
    with tempfile.TemporaryDirectory() as folder:
        for step in steps:
            saved(Path(folder, f"m_{step}.pt"), step)
        if end:
            saved(Path(folder, "end.pt"), 10**7)
        source = LocalSource(Path(folder))
        found = layout.read(Tree(source, source.scan()))
    assert found.checkpoints[0].path == ("end.pt" if end else f"m_{max(steps)}.pt")
    assert {item.step for item in found.checkpoints} == {*steps, *([None] if end else [])}


@pytest.mark.parametrize(
    ("name", "done"),
    [
        ("tmp_200", "200"),
        (".200.partial", "200"),
        ("200.orbax-checkpoint-tmp-1700000000", "200"),
        ("checkpoint-20.tmp", "checkpoint-20"),
        ("model_5.pt.temp", "model_5.pt"),
        ("model_5.pt.part", "model_5.pt"),
        ("model_5.pt.incomplete", "model_5.pt"),
        ("checkpoint-20", ""),
        ("template", ""),
    ],
)
def test_names_of_what_is_not_done(name: str, done: str) -> None:
    assert name_when_done(name) == done


def test_strings_in_a_pickle_are_matched_whole(tmp_path: Path) -> None:
    for protocol in (0, 2, 4):
        data = pickle.dumps({"iter": 1, "other": "criterion"}, protocol=protocol)
        assert holds_string(data, "iter") and holds_string(data, "criterion")
        assert not holds_string(data, "rite") and not holds_string(data, "ite")


def test_paths_that_match(tree: MakeTree, tmp_path: Path) -> None:
    for path in ("a.json", "x/a.json", "x/y/a.json"):
        write_json(tmp_path / path, {})
    assert matching(tree(tmp_path), ("*.json",)) == ["a.json"]
    assert matching(tree(tmp_path), ("x/*", "*/y/a.json")) == ["x/a.json", "x/y/a.json"]


def test_what_every_other_one_has() -> None:
    whole, short = {"a", "b", "c"}, {"a", "c"}
    assert missing_companion(short, [whole, short, set(whole)]) == "b"
    assert missing_companion(whole, [whole, short]) == ""
