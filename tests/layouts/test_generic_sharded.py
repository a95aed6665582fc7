"""Checkpoints in parts: which files contain the weights, which belong to the training, which are missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aml_mirror.layouts import explicit_checkpoint
from aml_mirror.layouts.base import Checkpoint, Run
from aml_mirror.layouts.generic.layout import Generic
from aml_mirror.sources.tree import Tree
from builders.saved import safetensors, write_bytes

MakeTree = Callable[[Path], Tree]


def read(tree: MakeTree, folder: Path, root: str = "") -> Run:
    found = tree(folder)
    assert Generic().find(found) == [root]
    return Generic().read(found.below(root))


def inside(checkpoint: Checkpoint, paths: tuple[str, ...]) -> set[str]:
    return {path.removeprefix(checkpoint.path + "/") for path in paths}


def test_ranks_of_verl(tree: MakeTree, tmp_path: Path) -> None:
    names = [f"{part}_world_size_2_rank_{rank}.pt" for part in ("model", "optim") for rank in (0, 1)]
    for step in (9, 100):
        folder = tmp_path / f"proj/exp/global_step_{step}"
        for name in (*names, "extra_state_world_size_2_rank_0.pt", "fsdp_config.json"):
            write_bytes(folder / "actor" / name)
        write_bytes(folder / "critic" / names[0])
        write_bytes(folder / "critic" / names[1])
        write_bytes(folder / "data.pt")
    run = read(tree, tmp_path, "proj/exp")
    final = run.checkpoints[0]
    assert [(item.path, item.problem) for item in run.checkpoints] == [
        ("global_step_100", ""),
        ("global_step_9", ""),
    ]
    weights = {f"{part}/{name}" for part in ("actor", "critic") for name in names[:2]}
    assert inside(final, final.files) == {*weights, "actor/fsdp_config.json"}
    assert {reason for _, reason in final.left_out} == {
        "optimizer state",
        "state of the training",
        "data loader state",
    }
    (tmp_path / "proj/exp/global_step_100/actor" / names[1]).unlink()
    problem = read(tree, tmp_path, "proj/exp").checkpoints[0].problem
    assert problem == "model_world_size_2_rank_1.pt, the part of another rank, is missing"


@pytest.mark.parametrize("config", [True, False])
def test_folders_of_the_training_beside_the_models(tree: MakeTree, tmp_path: Path, config: bool) -> None:
    """As Cosmos-Predict2 saves: a folder per part, with a file per step."""
    for step in (500, 1000):
        for part in ("model", "optim", "scheduler", "trainer"):
            write_bytes(tmp_path / f"exp/checkpoints/{part}/iter_{step:09}.pt")
    if config:
        write_bytes(tmp_path / "exp/config.yaml", b"lr: 1\n")
    run = read(tree, tmp_path, "exp" if config else "exp/checkpoints/model")
    assert [item.step for item in run.checkpoints] == [1000, 500]
    assert run.checkpoints[0].weights == (("checkpoints/model/" if config else "") + "iter_000001000.pt",)
    # On its own such a folder may be anything.
    write_bytes(tmp_path / "other/trainer/policy_10.pt")
    assert Generic().find(tree(tmp_path / "other")) == ["trainer"]


def test_folders_of_the_training_in_a_checkpoint(tree: MakeTree, tmp_path: Path) -> None:
    """As Cosmos-Predict2.5 saves: a folder per step, with a folder per part."""
    for part in ("model", "optim", "scheduler", "trainer"):
        write_bytes(tmp_path / f"checkpoints/iter_000001000/{part}/__0_0.distcp")
        write_bytes(tmp_path / f"checkpoints/iter_000001000/{part}/.metadata")
    (final,) = read(tree, tmp_path).checkpoints
    assert inside(final, final.files) == {"model/__0_0.distcp", "model/.metadata"}
    assert (len(final.left_out), final.problem) == (6, "")
    # A diffusers pipeline stores the scheduler that it needs under that name.
    safetensors(tmp_path / "pipeline/step_1/unet/model.safetensors")
    write_bytes(tmp_path / "pipeline/step_1/scheduler/scheduler_config.json", b"{}")
    (final,) = read(tree, tmp_path / "pipeline").checkpoints
    assert "step_1/scheduler/scheduler_config.json" in final.files


ZERO_3 = [
    f"zero_pp_rank_{rank}_mp_rank_00_{what}_states.pt" for rank in (0, 1) for what in ("model", "optim")
]
ZERO_2 = [
    "mp_rank_00_model_states.pt",
    *(f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in (0, 1)),
]


@pytest.mark.parametrize("names", [ZERO_3, ZERO_2])
@pytest.mark.parametrize("folder", ["pytorch_model", "checkpoint", "global_step9"])
def test_of_deepspeed_both_kinds_are_taken(
    tree: MakeTree, tmp_path: Path, names: list[str], folder: str
) -> None:
    step = tmp_path / "checkpoints/checkpoint_9"
    for name in names:
        write_bytes(step / folder / name)
    for name in ("latest", "zero_to_fp32.py", "scheduler.bin", "random_states_0.pkl"):
        write_bytes(step / name)
    write_bytes(step / "normalizer.pt")
    write_bytes(tmp_path / "checkpoints/checkpoint_8/model.safetensors")
    final = read(tree, tmp_path).checkpoints[0]
    assert (final.step, final.problem) == (9, "")
    weights = {f"{folder}/{name}" for name in names}
    assert inside(final, final.weights) == {*weights, "normalizer.pt"}
    assert inside(final, final.files) == {*weights, "normalizer.pt", "latest", "zero_to_fp32.py"}
    # Naming one of them selects all.
    found = explicit_checkpoint(tree(tmp_path), f"checkpoints/checkpoint_9/{folder}/{names[0]}")
    assert found and len(found.weights) == len(names)
    # If the weights are in a separate file, only that file is needed.
    safetensors(step / "model.safetensors")
    final = read(tree, tmp_path).checkpoints[0]
    assert not any("optim_states" in path for path in final.files)


@pytest.mark.parametrize(
    ("names", "cut", "problem"),
    [
        (
            ZERO_3,
            ZERO_3[0],
            "zero_pp_rank_0_mp_rank_00_model_states.pt, the part of another rank, is missing",
        ),
        (ZERO_3, ZERO_3[3], "zero_pp_rank_1_mp_rank_00_optim_states.pt, which holds the weights of its rank"),
        (ZERO_2, ZERO_2[1], "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt, the part of another rank"),
    ],
)
def test_a_missing_part_of_deepspeed(
    tree: MakeTree, tmp_path: Path, names: list[str], cut: str, problem: str
) -> None:
    for step in (8, 9):
        for name in names:
            if step == 8 or name != cut:
                write_bytes(tmp_path / f"checkpoint_{step}/pytorch_model/{name}")
    run = read(tree, tmp_path)
    assert run.checkpoints[0].problem.startswith(problem)
    assert run.checkpoints[1].problem == ""


def test_a_model_beside_its_shards_in_one_folder_stays(tree: MakeTree, tmp_path: Path) -> None:
    for step in (9, 100):
        folder = tmp_path / f"checkpoints/step_{step}"
        safetensors(folder / "model.safetensors", step)
        write_bytes(folder / "__0_0.distcp", b"x" * 80)
        write_bytes(folder / ".metadata")
        write_bytes(folder / "config.json", b"{}")
    final = read(tree, tmp_path).checkpoints[0]
    assert inside(final, final.files) == {"model.safetensors", "config.json"}
    assert {path.rpartition("/")[2] for path, _ in final.left_out} == {"__0_0.distcp", ".metadata"}
