"""layouts/__init__.py: the only run below a source is found, two are named, and generic is tried last."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aml_mirror import layouts
from aml_mirror.core.errors import DataError, NotAllowed, UsageError
from aml_mirror.core.settings import Settings
from aml_mirror.layouts import explicit_checkpoint, find_run, find_runs, layout_names, unknown_beside
from aml_mirror.layouts.known_layouts import BUILT_IN
from aml_mirror.pipeline.locate import locate
from aml_mirror.sources import Tree
from aml_mirror.sources.local import LocalSource
from builders.permissions import public_folder, somebody_else
from builders.saved import safetensors, write_bytes, write_json
from builders.torch_zip import save


def tree_of(path: Path) -> Tree:
    source = LocalSource(path)
    return Tree(source, source.scan())


def huggingface(root: Path) -> Path:
    safetensors(root / "checkpoint-10" / "model.safetensors")
    write_json(root / "checkpoint-10" / "config.json", {"model_type": "act"})
    write_json(root / "checkpoint-10" / "trainer_state.json", {"global_step": 10})
    return root


def generic(root: Path) -> Path:
    save(root / "weights" / "policy_100.pt", {"a": 1})
    return root


class Fixed:
    """A layout that claims given folders."""

    def __init__(self, name: str, *roots: str) -> None:
        self.name, self.roots, self.asked = name, list(roots), 0

    def find(self, tree: Tree) -> list[str]:
        self.asked += 1
        return self.roots


def found_with(monkeypatch: pytest.MonkeyPatch, tree: Tree, *asked: Fixed, framework: str = "") -> list[str]:
    monkeypatch.setattr(layouts, "known_layouts", lambda: asked)
    return [f"{item.root}={item.layout.name}" for item in find_runs(tree, framework)]


def test_there_is_one_layout_a_name_and_generic_is_the_last() -> None:
    assert (
        *("lerobot", "groot", "openpi", "huggingface", "rsl_rl", "skrl", "rl_games", "robomimic"),
        *("fasttd3", "act", "prismatic", "protomotions", "tianshou", "tdmpc2", "rllib", "rlinf", "octo"),
        *("brax", "diffusion_policy", "lightning", "stable_baselines3", "generic"),
    ) == layout_names()
    assert len(BUILT_IN) == len(layout_names())


@pytest.mark.parametrize("folder", ["", "run", "a/b/c/d/run", "with space/ünï\nrun"])
def test_a_run_is_found_however_deep_it_lies(tmp_path: Path, folder: str) -> None:
    huggingface(tmp_path / folder)
    found = find_run(tree_of(tmp_path))
    assert (found.root, found.layout.name) == (folder, "huggingface")


def test_two_runs_are_an_error_that_names_both(tmp_path: Path) -> None:
    huggingface(tmp_path / "one")
    huggingface(tmp_path / "deep" / "two")
    with pytest.raises(UsageError) as caught:
        find_run(tree_of(tmp_path))
    assert caught.value.exit_code == 64
    assert "2 runs: deep/two (huggingface), one (huggingface)" in caught.value.message
    assert find_run(tree_of(tmp_path).below("one")).root == ""


def test_of_many_runs_the_first_are_named_and_the_others_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = Fixed("x", *(f"r{number}" for number in range(9)))
    monkeypatch.setattr(layouts, "known_layouts", lambda: (many,))
    with pytest.raises(UsageError, match=r"9 runs: r0 \(x\), .* and 4 more"):
        find_run(tree_of(tmp_path))


def test_no_run_is_65_and_says_so_of_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder is empty") as caught:
        find_run(tree_of(tmp_path))
    assert caught.value.exit_code == 65
    write_json(tmp_path / "data" / "episode_000001.json", {})
    with pytest.raises(DataError) as caught:
        find_run(tree_of(tmp_path))
    assert "no file" not in caught.value.message


def test_weights_of_no_run_are_named_in_the_error_and_taken_where_a_person_names_them(tmp_path: Path) -> None:
    safetensors(tmp_path / "a" / "encoder.safetensors")
    safetensors(tmp_path / "policy.safetensors")
    write_json(tmp_path / "config.json", {"lr": 1})
    write_bytes(tmp_path / "train.log")
    tree = tree_of(tmp_path)
    with pytest.raises(DataError, match="no checkpoint") as caught:
        find_run(tree)
    assert "--checkpoint 'policy.safetensors'" in caught.value.hint
    for framework in ("", "generic"):
        found = find_run(tree, framework, "policy.safetensors")
        assert (found.root, found.layout.name) == ("", "generic")
        assert found.read(tree).checkpoints == ()
        assert found.read(tree).params == {"config": {"lr": 1}}
    for framework, path in (("skrl", "policy.safetensors"), ("", "config.json"), ("", "nothing"), ("", "")):
        with pytest.raises(DataError) as caught:
            find_run(tree, framework, path)
        assert ("--checkpoint" in caught.value.hint) is (framework == "")
    whole = explicit_checkpoint(tree, ".")
    assert whole
    assert whole.files == ("a/encoder.safetensors", "config.json", "policy.safetensors")
    assert whole.left_out == (("train.log", "log of the training"),)


@pytest.mark.parametrize("hidden", ["run/checkpoint-20", "run/checkpoint-10/more", "run/runs", "other"])
def test_what_cannot_be_listed_may_be_the_newest_checkpoint(hidden: str) -> None:
    with public_folder() as public:
        run = huggingface(public / "run")
        shut = public / hidden
        safetensors(shut / "model.safetensors")
        for path in (public, *public.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        assert locate(LocalSource(run.parent), Settings()).run.checkpoints
        shut.chmod(0)
        with somebody_else():
            with pytest.raises(NotAllowed, match=f"{hidden} cannot be listed") as caught:
                locate(LocalSource(public), Settings())
            assert caught.value.exit_code == 77
            for pattern in (hidden, shut.name, "*" + shut.name[1:]):
                found = locate(LocalSource(public), Settings(exclude=(pattern,)))
                assert [item.step for item in found.run.checkpoints] == [10]
                assert found.warnings if hidden != "other" else not found.warnings


def test_generic_is_asked_only_where_no_other_layout_found_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generic(tmp_path / "other")
    assert find_run(tree_of(tmp_path)).layout.name == "generic"
    huggingface(tmp_path / "run")
    assert find_run(tree_of(tmp_path)).root == "run"
    last = Fixed("generic", "other")
    found_with(monkeypatch, tree_of(tmp_path), Fixed("x", "run"), last)
    assert not last.asked


def test_a_folder_belongs_to_the_first_layout_that_claims_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tree_of(tmp_path)
    assert found_with(monkeypatch, tree, Fixed("x", "a"), Fixed("y", "a", "b")) == ["a=x", "b=y"]


def test_what_lies_inside_a_claimed_run_is_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tree_of(tmp_path)
    assert found_with(monkeypatch, tree, Fixed("x", "a"), Fixed("y", "a/b", "ab")) == ["a=x", "ab=y"]
    assert found_with(monkeypatch, tree, Fixed("x", "a/b", "ab"), Fixed("y", "a")) == ["a=y", "ab=x"]
    assert found_with(monkeypatch, tree, Fixed("x", ""), Fixed("y", "a")) == ["=x"]
    assert found_with(monkeypatch, tree, Fixed("x", "a", "b"), Fixed("y", "")) == ["=y"]


def test_a_framework_that_was_named_is_the_only_one_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huggingface(tmp_path)
    assert find_run(tree_of(tmp_path), "generic").layout.name == "generic"
    with pytest.raises(DataError, match="a skrl run"):
        find_run(tree_of(tmp_path), "skrl")
    other = Fixed("y", "b")
    assert found_with(monkeypatch, tree_of(tmp_path), Fixed("x", "a"), other, framework="x") == ["a=x"]
    assert not other.asked


@pytest.mark.parametrize("name", layout_names())
def test_no_layout_falls_over_what_no_framework_writes(tmp_path: Path, name: str) -> None:
    for path in (
        "checkpoints/last",
        "nn/last_x.pth",
        "model_1.pt",
        "checkpoint-1/model.safetensors",
        "1/params/x",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"")
    for odd in ("checkpoint-" + "9" * 200, "\n", "\u202e", "checkpoint-٣"):
        safetensors(tmp_path / odd / "model.safetensors")
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "up").symlink_to("checkpoints")
    tree = tree_of(tmp_path)
    for item in find_runs(tree, name):
        item.layout.read(tree.below(item.root))


def test_what_wandb_copied_is_no_other_run(tmp_path: Path) -> None:
    huggingface(tmp_path / "out")
    huggingface(tmp_path / "wandb/run-20260102_030405-abc/files/out")
    (tmp_path / "wandb/latest-run").symlink_to("run-20260102_030405-abc")
    (found,) = find_runs(tree_of(tmp_path))
    assert (found.root, found.layout.name) == ("out", "huggingface")
    # Inside a run they are not checkpoints of it.
    save(tmp_path / "own/weights/policy_100.pt", {})
    save(tmp_path / "own/wandb/offline-run-20260102_030405-abc/files/weights/policy_200.pt", {})
    (found,) = find_runs(tree_of(tmp_path / "own"))
    assert [item.step for item in found.read(tree_of(tmp_path / "own")).checkpoints] == [100]


def test_what_only_wandb_kept_is_the_run(tmp_path: Path) -> None:
    huggingface(tmp_path / "wandb/run-20260102_030405-abc/files/out")
    found = find_run(tree_of(tmp_path))
    assert found.root == "wandb/run-20260102_030405-abc/files/out"
    assert [item.step for item in found.read(tree_of(tmp_path)).checkpoints] == [10]


def test_names_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"ckpt \xff")).mkdir()
    with pytest.raises(DataError, match=r"none of its files can be read.*not UTF-8"):
        find_run(tree_of(tmp_path))


def test_what_may_be_another_run_beside_the_one_is_said(tmp_path: Path) -> None:
    huggingface(tmp_path / "group" / "known")
    generic(tmp_path / "group" / "other")
    # Folders inside the run and around it are not other runs, unless their names say so.
    generic(tmp_path / "group" / "known" / "extras")
    tree = tree_of(tmp_path)
    found = find_run(tree)
    assert unknown_beside(tree, found) == ["group/other"]
    source = LocalSource(tmp_path)
    inside, said = sorted(locate(source, Settings(run_id="r")).warnings)
    assert inside.startswith("extras/") and "in no checkpoint of this run" in inside
    assert said.startswith("group/other was not examined") and "--source" in said
    assert locate(source, Settings(run_id="r", framework="huggingface")).warnings == (inside,)
    assert locate(LocalSource(tmp_path / "group" / "known"), Settings(run_id="r")).warnings == (inside,)
