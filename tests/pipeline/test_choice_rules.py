"""select.py: which checkpoint is chosen of a run that a layout described, and what a choice brings along."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from aml_mirror.core.errors import DataError, Unreadable, UsageError
from aml_mirror.core.run import Checkpoint, Role, Run
from aml_mirror.pipeline.select import SelectedCheckpoint, choose, narrow
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from builders.saved import safetensors, write_json


def checkpoint(step: int | None, role: Role = "periodic", *files: str, path: str = "") -> Checkpoint:
    path = path or f"step_{step}"
    own = (f"{path}/model.safetensors",)
    return Checkpoint(path, step, role, tuple(sorted((*own, *files))), own)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    for number, name in enumerate(("step_30", "step_20", "step_10", "best")):
        safetensors(tmp_path / name / "model.safetensors", number)
    write_json(tmp_path / "stats.json", {})
    write_json(tmp_path / "other.json", {})
    safetensors(tmp_path / "mine/weights.safetensors", 9)
    source = LocalSource(tmp_path)
    return Tree(source, source.scan())


RUN = Run(
    (
        checkpoint(30, "final", "stats.json"),
        checkpoint(20, "periodic", "stats.json"),
        checkpoint(10, "periodic", "stats.json", "other.json"),
    ),
    best=checkpoint(20, "best", path="best"),
)


def chosen(
    tree: Tree, run: Run, wanted: str = "final", cut: tuple[str, ...] = (), strict: bool = False
) -> list[SelectedCheckpoint]:
    def problem(tree: Tree, item: Checkpoint) -> str:
        return "it was cut" if item.path in cut else ""

    return list(choose(tree, run, wanted, strict, problem_of=problem))


def test_the_newest_that_is_whole_is_final_and_those_before_it_are_named(tree: Tree) -> None:
    (found,) = chosen(tree, RUN)
    assert (found.checkpoint.path, found.checkpoint.role, found.passed_over) == ("step_30", "final", ())
    (found,) = chosen(tree, RUN, cut=("step_30",))
    assert (found.checkpoint.path, found.checkpoint.role) == ("step_20", "final")
    assert found.passed_over == (("step_30", "it was cut"),)
    with pytest.raises(DataError, match="step_30 is not complete"):
        chosen(tree, RUN, cut=("step_30",), strict=True)
    with pytest.raises(DataError, match="no complete checkpoint: not step_30: it was cut, nor any of the 2"):
        chosen(tree, RUN, cut=("step_30", "step_20", "step_10"))


def test_one_that_was_kept_for_its_score_is_not_called_final(tree: Tree) -> None:
    (found,) = chosen(tree, replace(RUN, checkpoints=(checkpoint(30, "unknown"),)))
    assert found.checkpoint.role == "unknown"


def test_one_that_was_complete_before_is_not_judged_again(tree: Tree) -> None:
    (found,) = choose(tree, RUN, "final", False, lambda item: item.step == 30, lambda tree, item: "no")
    assert found.checkpoint.path == "step_30"


def test_of_an_undecided_run_what_is_cut_is_named_and_not_offered(tree: Tree) -> None:
    undecided = replace(RUN, undecided="two trainings: step_30, step_20", choices=("step_30", "step_20"))
    with pytest.raises(UsageError, match="two trainings") as raised:
        chosen(tree, undecided)
    assert raised.value.hint == "pass one of: --checkpoint step_30, --checkpoint step_20"
    with pytest.raises(UsageError, match="step_30 is not complete: it was cut") as raised:
        chosen(tree, undecided, cut=("step_30",))
    assert raised.value.hint == "pass one of: --checkpoint step_20"
    with pytest.raises(UsageError) as raised:
        chosen(tree, undecided, cut=("step_30", "step_20"))
    assert raised.value.hint == "pass one of: --checkpoint step_30, --checkpoint step_20"


def test_all_are_the_whole_ones_oldest_first_and_the_best(tree: Tree) -> None:
    def paths(**more: bool | tuple[str, ...]) -> list[str]:
        return [item.checkpoint.path for item in chosen(tree, RUN, "all", **more)]  # type: ignore[arg-type]

    assert paths() == ["step_10", "step_20", "step_30", "best"]
    assert paths(cut=("step_20", "best")) == ["step_10", "step_30"]
    with pytest.raises(DataError, match="step_20 is not complete"):
        paths(cut=("step_20",), strict=True)
    same = replace(RUN, best=replace(RUN.checkpoints[1], role="best"))
    assert [item.checkpoint.path for item in chosen(tree, same, "all")] == ["step_10", "step_20", "step_30"]


@pytest.mark.parametrize(("lost", "is_error"), [("step_30", True), ("step_20", False), ("best", False)])
def test_of_all_only_the_newest_must_be_readable(tree: Tree, lost: str, is_error: bool) -> None:
    def problem(tree: Tree, item: Checkpoint) -> str:
        if item.path == lost:
            raise Unreadable("it is gone", "")
        return ""

    if is_error:
        with pytest.raises(Unreadable):
            list(choose(tree, RUN, "all", problem_of=problem))
        return
    found = list(choose(tree, RUN, "all", problem_of=problem))
    assert lost not in [item.checkpoint.path for item in found]
    assert found[0].passed_over == ((lost, "it is gone"),)
    with pytest.raises(Unreadable):
        list(choose(tree, RUN, "all", True, problem_of=problem))


def test_weights_that_no_layout_lists_bring_what_all_checkpoints_share(tree: Tree) -> None:
    (found,) = chosen(tree, RUN, "mine/weights.safetensors")
    assert found.is_unlisted and found.checkpoint.files == ("mine/weights.safetensors", "stats.json")
    (alone,) = chosen(tree, Run(()), "mine/weights.safetensors")
    assert alone.checkpoint.files == ("mine/weights.safetensors",)
    # A checkpoint in the root says nothing about what others share.
    root = Checkpoint(".", 1, "final", ("other.json", "w"), ("w",))
    (found,) = chosen(tree, replace(RUN, checkpoints=(*RUN.checkpoints, root)), "mine/weights.safetensors")
    assert found.checkpoint.files == ("mine/weights.safetensors", "stats.json")


def test_what_a_person_names_must_be_whole(tree: Tree) -> None:
    with pytest.raises(DataError, match="step_20 is not complete"):
        chosen(tree, RUN, "step_20", cut=("step_20",))
    for part in ("step_20/model.safetensors", "stats.json"):
        with pytest.raises(UsageError, match="is part of the checkpoint"):
            chosen(tree, RUN, part)
    left = replace(RUN.checkpoints[0], left_out=(("other.json", "of the training"),))
    with pytest.raises(UsageError, match="is part of the checkpoint step_30"):
        chosen(tree, replace(RUN, checkpoints=(left,)), "other.json")
    with pytest.raises(UsageError, match="several checkpoints have the step 20: step_20, best"):
        chosen(tree, RUN, "20")
    with pytest.raises(DataError, match="has no best checkpoint"):
        chosen(tree, replace(RUN, best=None), "best")


def test_a_path_may_be_given_below_the_source(tmp_path: Path) -> None:
    """As a shell completes it."""
    for path in ("lab/run/step_5/model.safetensors", "lab/run/lab/run/step_7/model.safetensors"):
        safetensors(tmp_path / path)
    source = LocalSource(tmp_path)
    below = Tree(source, source.scan()).below("lab/run")
    run = Run((checkpoint(5), checkpoint(7, path="lab/run/step_7")))
    for wanted in ("step_5", "./step_5/", "lab/run/step_5"):
        assert chosen(below, run, wanted)[0].checkpoint.path == "step_5", wanted
    # A path of the run itself comes first.
    assert chosen(below, run, "lab/run/step_7")[0].checkpoint.path == "lab/run/step_7"


def test_what_include_and_exclude_leave() -> None:
    item = Checkpoint("a", 1, "final", ("a/w.bin", "a/x/c.json", "b/stats.json"), ("a/w.bin",))

    def left(*include: str, exclude: tuple[str, ...] = ()) -> tuple[str, ...]:
        return narrow(item, include, exclude).files

    assert left() == item.files
    # By the path below the run, the path below the checkpoint, and the name.
    for pattern in ("a/x/c.json", "x/c.json", "c.json", "x/*"):
        assert left(exclude=(pattern,)) == ("a/w.bin", "b/stats.json"), pattern
        assert left(pattern, "w.bin") == ("a/w.bin", "a/x/c.json"), pattern
    assert narrow(item, (), ("c.json",)).left_out == (("a/x/c.json", "named by --exclude"),)
    with pytest.raises(UsageError, match="leave no weights of a"):
        left(exclude=("*.bin",))
