"""OpenVLA and OpenVLA-OFT: folders as their finetune.py writes them, and adapters next to other models."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from aml_mirror.layouts import find_runs
from aml_mirror.layouts.base import Run
from aml_mirror.layouts.huggingface.layout import HuggingFace
from aml_mirror.sources.tree import Tree
from builders.saved import safetensors, write_bytes, write_json
from builders.torch_zip import save

MakeTree = Callable[[Path], Tree]
OPENVLA = {"model_type": "openvla", "architectures": ["OpenVLAForActionPrediction"]}
EXPERIMENT = "openvla-7b+libero+b8+lr-0.0005+lora-r32+dropout-0.0--image_aug"


def model(folder: Path, seed: int = 0) -> Path:
    """A merged model with its processor and the statistics of the data."""
    safetensors(folder / "model.safetensors", seed)
    write_json(folder / "config.json", OPENVLA)
    write_bytes(folder / "processing_prismatic.py")
    for name in ("dataset_statistics.json", "preprocessor_config.json", "tokenizer.json"):
        write_json(folder / name, {})
    return folder


def adapter(folder: Path, base: str = "openvla/openvla-7b") -> Path:
    safetensors(folder / "adapter_model.safetensors")
    write_json(folder / "adapter_config.json", {"base_model_name_or_path": base})
    return folder


def oft(folder: Path, suffix: str, seed: int = 0) -> Path:
    """What save_training_checkpoint of OpenVLA-OFT leaves."""
    adapter(model(folder, seed) / "lora_adapter")
    for part in ("action_head", "proprio_projector"):
        save(folder / f"{part}--{suffix}_checkpoint.pt", {"weight": seed})
    return folder


def steps(root: Path, *numbers: int, name: str = EXPERIMENT) -> Path:
    for number in numbers:
        oft(root / f"{name}--{number}_chkpt", str(number), number)
    return root


def inside(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def read(tree: MakeTree, folder: Path) -> Run:
    assert HuggingFace().find(tree(folder)) == [""]
    return HuggingFace().read(tree(folder))


def test_the_adapter_is_a_part_of_the_model_around_it(tree: MakeTree, tmp_path: Path) -> None:
    folder = oft(tmp_path / "run", "latest")
    (final,) = read(tree, folder).checkpoints
    assert (final.path, final.step, final.role, final.problem) == (".", None, "final", "")
    assert set(final.files) == inside(folder)
    assert set(final.weights) == {
        "action_head--latest_checkpoint.pt",
        "lora_adapter/adapter_model.safetensors",
        "model.safetensors",
        "proprio_projector--latest_checkpoint.pt",
    }
    assert HuggingFace().find(tree(tmp_path)) == ["run"]


@pytest.mark.parametrize("lost", [(), ("action_head", "proprio_projector")])
def test_not_merged_yet(tree: MakeTree, tmp_path: Path, lost: tuple[str, ...]) -> None:
    """--merge_lora_during_training False: the adapter is the model, with all files around it."""
    folder = oft(tmp_path, "latest")
    for name in ("model.safetensors", "config.json", *(f"{part}--latest_checkpoint.pt" for part in lost)):
        (folder / name).unlink()
    (final,) = read(tree, folder).checkpoints
    assert (final.path, final.problem) == (".", "")
    assert set(final.files) == inside(folder)


def test_one_step_passed_by_itself(tree: MakeTree, tmp_path: Path) -> None:
    folder = steps(tmp_path, 150000) / f"{EXPERIMENT}--150000_chkpt"
    (final,) = read(tree, folder).checkpoints
    assert (final.path, final.step) == (".", 150000)
    assert set(final.files) == inside(folder)


def test_steps_side_by_side(tree: MakeTree, tmp_path: Path) -> None:
    steps(tmp_path, 50000, 150000, 10000)
    # The run's own folder, which only gets these files during the training.
    write_json(tmp_path / EXPERIMENT / "dataset_statistics.json", {})
    run = read(tree, tmp_path)
    assert [(item.step, item.role, item.problem) for item in run.checkpoints] == [
        (150000, "final", ""),
        (50000, "periodic", ""),
        (10000, "periodic", ""),
    ]
    final = run.checkpoints[0]
    assert final.path == f"{EXPERIMENT}--150000_chkpt"
    assert set(final.files) == {f"{final.path}/{name}" for name in inside(tmp_path / final.path)}
    assert run.params["config"] == OPENVLA


@pytest.mark.parametrize("lost", ["config.json", "action_head--20_checkpoint.pt", "model.safetensors"])
def test_a_step_that_lacks_what_the_others_have(tree: MakeTree, tmp_path: Path, lost: str) -> None:
    """The model is merged after adapter and parts are saved. If the training is killed in between, the
    adapter is not the end.
    """
    folder = steps(tmp_path, 10, 20) / f"{EXPERIMENT}--20_chkpt"
    (folder / lost).unlink()
    if lost == "model.safetensors":
        (folder / "config.json").unlink()
    run = read(tree, tmp_path)
    assert [(item.step, item.problem == "") for item in run.checkpoints] == [(20, False), (10, True)]
    assert "is missing" in run.checkpoints[0].problem


@pytest.mark.parametrize("other", ["a--20_chkpt", "other/checkpoint-10", "other", "other/policy"])
def test_the_steps_of_one_run_beside_another(tree: MakeTree, tmp_path: Path, other: str) -> None:
    """The folder above contains all runs and is not one run, so every folder is named."""
    steps(tmp_path, 10, 30, name="b")
    if other == "other/policy":
        save(tmp_path / "other/policy_100.pt", {})
    else:
        write_json(model(tmp_path / other) / "training_args.bin", {})
    found = [run.root for run in find_runs(tree(tmp_path))]
    assert {"b--10_chkpt", "b--30_chkpt"} <= set(found)
    assert "" not in found


def test_the_adapter_of_a_temporary_folder_is_not_the_model(tree: MakeTree, tmp_path: Path) -> None:
    adapter(tmp_path / "adapter-tmp" / EXPERIMENT)
    assert HuggingFace().find(tree(tmp_path)) == [f"adapter-tmp/{EXPERIMENT}"]
    model(tmp_path / "runs" / EXPERIMENT)
    assert HuggingFace().find(tree(tmp_path)) == [f"runs/{EXPERIMENT}"]
    shutil.rmtree(tmp_path / "runs")
    steps(tmp_path / "runs", 10, 20)
    assert HuggingFace().find(tree(tmp_path)) == ["runs"]


def test_an_adapter_and_a_model_side_by_side_are_both_named(tree: MakeTree, tmp_path: Path) -> None:
    adapter(tmp_path / "adapter")
    model(tmp_path / "merged")
    assert HuggingFace().find(tree(tmp_path)) == ["adapter", "merged"]


@pytest.mark.parametrize("base", ["openvla-7b", "base_model", "cache/x", "models--a--b/snapshots/0f"])
def test_the_model_under_an_adapter_is_no_run(tree: MakeTree, tmp_path: Path, base: str) -> None:
    adapter(tmp_path / "adapter")
    model(tmp_path / base)
    assert HuggingFace().find(tree(tmp_path)) == ["adapter"]


def test_an_adapter_in_a_folder_with_weights_of_another_layout(tree: MakeTree, tmp_path: Path) -> None:
    """verl: global_step_10/actor/{lora_adapter/, model_world_size_1_rank_0.pt}."""
    for step in (10, 20):
        adapter(tmp_path / f"global_step_{step}/actor/lora_adapter")
        save(tmp_path / f"global_step_{step}/actor/model_world_size_1_rank_0.pt", {})
    (found,) = find_runs(tree(tmp_path))
    assert (found.root, found.layout.name) == ("", "generic")
    final = found.read(tree(tmp_path)).checkpoints[0]
    assert "global_step_20/actor/lora_adapter/adapter_model.safetensors" in final.files


@pytest.mark.parametrize(
    ("folder", "beside", "root"), [("final", "best.pt", ""), ("adapter", "demos.pt", "adapter")]
)
def test_an_adapter_that_is_the_run(
    tree: MakeTree, tmp_path: Path, folder: str, beside: str, root: str
) -> None:
    adapter(tmp_path / folder)
    save(tmp_path / beside, {})
    assert HuggingFace().find(tree(tmp_path)) == [root]


def test_adapters_in_the_folders_of_a_trainer_are_not_the_roots(tree: MakeTree, tmp_path: Path) -> None:
    model(tmp_path)
    adapter(tmp_path / "adapter")
    assert "adapter/adapter_config.json" in read(tree, tmp_path).checkpoints[0].files
    write_bytes(tmp_path / "training_args.bin")
    assert "adapter/adapter_config.json" not in read(tree, tmp_path).checkpoints[0].files


def test_one_model_some_levels_below(tree: MakeTree, tmp_path: Path) -> None:
    model(tmp_path / "runs/a/b")
    assert HuggingFace().find(tree(tmp_path)) == ["runs/a/b"]
    # It is the only model, or its purpose is unknown: trainings also start from such models.
    write_bytes(tmp_path / "runs/logs/events.out.tfevents.1.vm.1.0")
    assert HuggingFace().find(tree(tmp_path)) == []


@pytest.mark.parametrize(
    "folder", ["pretrained/a", "cache/a", "data/a", "models--a--b/snapshots/0f", "a.tmp"]
)
def test_a_model_that_training_starts_from_is_no_run(tree: MakeTree, tmp_path: Path, folder: str) -> None:
    model(tmp_path / folder)
    assert HuggingFace().find(tree(tmp_path)) == []
    assert HuggingFace().find(tree(tmp_path / folder)) == [""]
    assert folder.count("/") == 0 or HuggingFace().find(tree(tmp_path / folder.split("/")[0])) == []
