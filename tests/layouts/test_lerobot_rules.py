"""LeRobot runs that people and forks changed: what is missing, what is an end, what a number is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from aml_mirror.layouts.base import Run
from aml_mirror.layouts.lerobot import LeRobot
from aml_mirror.sources.tree import Tree
from builders.saved import safetensors, write_bytes, write_json

MakeTree = Callable[[Path], Tree]


def policy(folder: Path, seed: int = 0) -> Path:
    """Write a policy as LeRobot saves it, and return its folder."""
    model = folder / "pretrained_model"
    safetensors(model / "model.safetensors", seed)
    for name in ("config.json", "train_config.json"):
        write_json(model / name, {})
    return model


def step(run: Path, number: int) -> Path:
    folder = run / f"checkpoints/{number:06d}"
    write_json(folder / "training_state/training_step.json", {"step": number})
    return policy(folder, number)


def read(tree: MakeTree, folder: Path) -> Run:
    return LeRobot().read(tree(folder))


def problems(run: Run) -> list[str]:
    return [item.problem for item in run.checkpoints]


def test_only_what_inference_loads_is_missed(tree: MakeTree, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        model = step(tmp_path, number)
        if number < 3:
            write_bytes(model / "README.md")
            write_json(model / "policy_preprocessor.json", {})
    (tmp_path / "checkpoints/000003/pretrained_model/train_config.json").unlink()
    said = "pretrained_model/policy_preprocessor.json, which the run's other checkpoints have, is missing"
    assert problems(read(tree, tmp_path)) == [said, "", ""]
    write_json(tmp_path / "checkpoints/000003/pretrained_model/policy_preprocessor.json", {})
    assert problems(read(tree, tmp_path)) == ["", "", ""]


def test_an_adapter_needs_no_configuration_of_the_whole_policy(tree: MakeTree, tmp_path: Path) -> None:
    model = step(tmp_path, 5)
    (model / "config.json").unlink()
    assert problems(read(tree, tmp_path)) == ["config.json is missing"]
    (model / "model.safetensors").unlink()
    safetensors(model / "adapter_model.safetensors")
    write_json(model / "adapter_config.json", {})
    assert problems(read(tree, tmp_path)) == [""]


def test_a_processor_of_something_else_below_the_policy_needs_no_state(
    tree: MakeTree, tmp_path: Path
) -> None:
    model, steps = step(tmp_path, 5), {"steps": [{"state_file": "lost.safetensors"}]}
    write_json(model / "base/policy_preprocessor.json", steps)
    write_json(model / "processor_notes.json", steps)
    assert problems(read(tree, tmp_path)) == [""]
    write_json(model / "policy_preprocessor.json", steps)
    assert problems(read(tree, tmp_path)) == [
        "lost.safetensors, named in policy_preprocessor.json, is missing"
    ]


def test_several_ends_without_a_step_are_undecided(tree: MakeTree, tmp_path: Path) -> None:
    step(tmp_path, 5)
    policy(tmp_path / "checkpoints/final", 7)
    found = read(tree, tmp_path)
    assert not found.undecided and found.checkpoints[0].path == "checkpoints/final/pretrained_model"
    policy(tmp_path / "checkpoints/final_model", 8)
    found = read(tree, tmp_path)
    assert found.undecided.startswith("2 folders are named as the end of training")
    assert len(found.choices) == 2
    # Its step decides.
    write_json(tmp_path / "checkpoints/final_model/training_state/training_step.json", {"step": 9})
    found = read(tree, tmp_path)
    assert not found.undecided and found.checkpoints[0].path == "checkpoints/final/pretrained_model"


def test_a_folder_last_without_a_step_proves_nothing(tree: MakeTree, tmp_path: Path) -> None:
    step(tmp_path, 5)
    policy(tmp_path / "checkpoints/last", 7)
    found = read(tree, tmp_path)
    assert [item.step for item in found.checkpoints] == [5] and not found.undecided
    # With one, it is a checkpoint of its own.
    write_json(tmp_path / "checkpoints/last/training_state/training_step.json", {"step": 9})
    assert [item.step for item in read(tree, tmp_path).checkpoints] == [9, 5]


@pytest.mark.parametrize("number", [True, -1, 1.5, "5", None])
def test_what_is_no_number_is_no_step(tree: MakeTree, tmp_path: Path, number: object) -> None:
    shutil.move(step(tmp_path, 5), tmp_path / "pretrained_model")
    shutil.rmtree(tmp_path / "checkpoints")
    write_json(tmp_path / "training_state/training_step.json", {"step": 5})
    assert [item.step for item in read(tree, tmp_path).checkpoints] == [5]
    write_json(tmp_path / "training_state/training_step.json", {"step": number})
    assert [item.step for item in read(tree, tmp_path).checkpoints] == [None]
