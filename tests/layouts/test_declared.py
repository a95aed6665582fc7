"""The frameworks with a declaration: what is final, best, kept and left out for each run in tests/data."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from aml_mirror.layouts import find_run, find_runs
from aml_mirror.layouts.base import Run
from aml_mirror.sources.tree import Tree
from builders.declared_runs import RUNS, weights
from builders.saved import write_bytes
from builders.torch_zip import save

MakeTree = Callable[[Path], Tree]
DATA = Path(__file__).parents[1] / "data" / "runs"


def read(tree: Tree) -> tuple[str, str, Run]:
    found = find_run(tree)
    return found.layout.name, found.root, found.read(tree)


# name: (root, final, its step, best, companions or other files kept, parts of paths left out)
EXPECTED: dict[str, tuple[str, str, int | None, str | None, tuple[str, ...], tuple[str, ...]]] = {
    "fasttd3": ("", "models/h1-walk-v0__FastTD3__1_final.pt", None, None, (), ()),
    "act": ("", "policy_last.ckpt", None, "policy_best.ckpt", ("dataset_stats.pkl",), ()),
    "tianshou": ("log/Ant-v4/ppo/0/260102-030405", "checkpoint_2.pth", 2, "policy.pth", (), ()),
    "tdmpc2": ("logs/walker-run/1/default", "models/final.pt", None, None, (), ()),
    "protomotions": (
        "",
        "last.ckpt",
        250,
        "score_based.ckpt",
        ("resolved_configs_inference.pt",),
        ("env_0.ckpt",),
    ),
    "prismatic": (
        "",
        "checkpoints/step-002000-epoch-03-loss=0.2500.pt",
        2000,
        None,
        ("config.json", "dataset_statistics.json"),
        ("latest-checkpoint.pt",),
    ),
    "rllib": (
        "PPO_2026/PPO_env_ab12_00000_0_lr=0.0001",
        "checkpoint_000001",
        None,
        None,
        ("checkpoint_000001/env_runner/env_to_module_connector/000_MeanStdFilter/state.pkl",),
        (),
    ),
    "rlinf": (
        "libero_grpo",
        "checkpoints/global_step_1000",
        1000,
        "checkpoints/best_model",
        ("checkpoints/global_step_1000/libero/norm_stats.json",),
        ("dcp_checkpoint",),
    ),
    "octo": (
        "",
        "10000",
        10000,
        None,
        ("config.json", "dataset_statistics.json", "example_batch.msgpack"),
        (),
    ),
    "brax": (
        "logs/Go1JoystickFlatTerrain-20260102-030405",
        "checkpoints/000001310720",
        1310720,
        None,
        ("checkpoints/000001310720/ppo_network_config.json", "checkpoints/config.json"),
        (),
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_final_best_and_what_is_kept(tree: MakeTree, name: str) -> None:
    root, final, step, best, kept, left = EXPECTED[name]
    layout, found, run = read(tree(DATA / name))
    assert (layout, found) == (name, root)
    chosen = run.checkpoints[0]
    assert (chosen.path, chosen.step, chosen.role, chosen.problem) == (final, step, "final", "")
    assert [item.role for item in run.checkpoints[1:]] == ["periodic"] * (len(run.checkpoints) - 1)
    assert (run.best.path if run.best else None) == best
    assert set(kept) <= set(chosen.files) and chosen.weights
    for part in left:
        assert not any(part in path for path in chosen.files)
        assert any(part in path for path, _ in chosen.left_out)
    assert not run.undecided and not run.warnings


@pytest.mark.parametrize("name", RUNS)
def test_the_data_are_what_the_builder_writes(tmp_path: Path, name: str) -> None:
    RUNS[name](tmp_path)
    files = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {path.relative_to(DATA / name) for path in (DATA / name).rglob("*") if path.is_file()}


def test_two_seeds_of_fasttd3_or_act_are_undecided(tree: MakeTree, tmp_path: Path) -> None:
    for name in ("fasttd3", "act"):
        RUNS[name](tmp_path / name)
        for path in list((tmp_path / name).rglob("*")):
            other = path.name.replace("__1_", "__2_").replace("seed_0", "seed_1")
            if other != path.name:
                shutil.copy(path, path.with_name(other))
        _, _, run = read(tree(tmp_path / name))
        assert "2 trainings" in run.undecided
    assert "policy_last.ckpt" in run.undecided
    assert "policy_epoch_200_seed_0.ckpt" in run.undecided and "policy_epoch_200_seed_1.ckpt" in run.undecided


def test_the_folder_alone(tree: MakeTree) -> None:
    for name, folder in (("fasttd3", "models"), ("rlinf", "libero_grpo/checkpoints")):
        layout, root, run = read(tree(DATA / name / folder))
        assert (layout, root) == (name, "") and run.checkpoints[0].role == "final"


def test_act_killed_before_its_end(tree: MakeTree, tmp_path: Path) -> None:
    RUNS["act"](tmp_path)
    (tmp_path / "policy_last.ckpt").unlink()
    _, _, run = read(tree(tmp_path))
    assert (run.checkpoints[0].path, run.checkpoints[0].step) == ("policy_epoch_200_seed_0.ckpt", 200)


def test_a_policy_of_tianshou_is_the_best_one_and_no_end(tree: MakeTree, tmp_path: Path) -> None:
    weights(tmp_path / "run/policy.pth", 1, model={}, obs_rms={})
    write_bytes(tmp_path / "run/events.out.tfevents.1.h.1.0")
    layout, _, run = read(tree(tmp_path))
    assert layout == "tianshou" and not run.checkpoints
    assert run.best and run.best.path == "policy.pth" and "best" in run.warnings[0]
    # A file of that name alone proves nothing.
    save(tmp_path / "other/policy.pth", {"actor": {}})
    write_bytes(tmp_path / "other/events.out.tfevents.1.h.1.0")
    assert [item.root for item in find_runs(tree(tmp_path), "tianshou")] == ["run"]


@pytest.mark.parametrize("mode", ["policy", "policy_state_dict"])
def test_experiments_of_tianshou(tree: MakeTree, tmp_path: Path, mode: str) -> None:
    folder = tmp_path / "log/PPOExperiment/exp_seed=42"
    for name, seed in ((f"{mode}_epoch_2.pt", 2), (f"{mode}_epoch_10.pt", 10), (f"{mode}.pt", 3)):
        save(folder / name, {"model": 0}, bytes([seed]) * 64)
    write_bytes(folder / "experiment.pkl", pickle.dumps("tianshou.highlevel.experiment"))
    write_bytes(folder / "env_obs_rms.pkl", b"\x80\x04N.")
    layout, root, run = read(tree(tmp_path))
    assert (layout, root) == ("tianshou", "log/PPOExperiment/exp_seed=42")
    newest = run.checkpoints[0]
    assert (newest.path, newest.step, newest.role) == (f"{mode}_epoch_10.pt", 10, "final")
    for item in (newest, run.best):
        assert item.files == tuple(sorted(("env_obs_rms.pkl", "experiment.pkl", item.path)))
    assert run.best.path == f"{mode}.pt"
    # If nothing was saved during the training, the best one is not the final one.
    for name in (2, 10):
        (folder / f"{mode}_epoch_{name}.pt").unlink()
    _, _, run = read(tree(tmp_path))
    assert not run.checkpoints and run.best.path == f"{mode}.pt"


def test_the_notebook_of_fasttd3(tree: MakeTree, tmp_path: Path) -> None:
    for seed, step in enumerate(("30000", "60000", "final")):
        weights(
            tmp_path / f"models/h1-walk-v0_notebook_experiment_{step}.pt",
            seed,
            actor_state_dict={},
            global_step=0,
        )
    layout, _, run = read(tree(tmp_path))
    assert layout == "fasttd3" and not run.undecided
    assert run.checkpoints[0].path.endswith("_final.pt")


def test_protomotions_killed_after_a_numbered_checkpoint(tree: MakeTree, tmp_path: Path) -> None:
    RUNS["protomotions"](tmp_path)
    weights(tmp_path / "epoch_300.ckpt", 6, model={}, epoch=300, step_count=1, run_start_time=1.5)
    _, _, run = read(tree(tmp_path))
    assert run.checkpoints[0].path == "epoch_300.ckpt"
    assert "last.ckpt contains step 250" in run.warnings[0]


def test_a_stage_of_prismatic_is_another_training(tree: MakeTree, tmp_path: Path) -> None:
    RUNS["prismatic"](tmp_path)
    weights(tmp_path / "checkpoints/align-step-009000-epoch-01-loss=0.1000.pt", 4, model={})
    _, _, run = read(tree(tmp_path))
    assert "2 trainings" in run.undecided


def test_rlinf_without_whole_weights_keeps_the_shards(tree: MakeTree, tmp_path: Path) -> None:
    RUNS["rlinf"](tmp_path)
    newest = "libero_grpo/checkpoints/global_step_1000/actor"
    shutil.rmtree(tmp_path / newest / "model_state_dict")
    _, _, run = read(tree(tmp_path))
    (chosen,) = [item for item in run.checkpoints if item.step == 1000]
    assert any(path.endswith(".distcp") for path in chosen.weights)


def test_brax_and_octo_without_what_is_written_last(tree: MakeTree, tmp_path: Path) -> None:
    for name, lost in (
        ("octo", "10000/default/manifest.ocdbt"),
        ("brax", "logs/Go1JoystickFlatTerrain-20260102-030405/checkpoints/000001310720/manifest.ocdbt"),
    ):
        RUNS[name](tmp_path / name)
        (tmp_path / name / lost).unlink()
        _, _, run = read(tree(tmp_path / name))
        assert "manifest.ocdbt, which is written last, is missing" in run.checkpoints[0].problem
        assert not run.checkpoints[1].problem


def test_trials_of_rllib_are_runs_of_their_own(tree: MakeTree, tmp_path: Path) -> None:
    RUNS["rllib"](tmp_path)
    trial = tmp_path / "PPO_2026/PPO_env_ab12_00000_0_lr=0.0001"
    shutil.copytree(trial, trial.with_name("PPO_env_ab12_00001_1_lr=0.001"))
    assert [item.layout.name for item in find_runs(tree(tmp_path))] == ["rllib", "rllib"]


@pytest.mark.parametrize(
    ("name", "path", "is_kept"),
    [
        ("protomotions", "resolved_configs.pt", True),
        ("protomotions", "resolved_configs.yaml", True),
        ("prismatic", "config.yaml", True),
        ("prismatic", "checkpoints/step-002000.optimizer", False),
        ("prismatic", "checkpoints/optimizer-2000.pt", False),
    ],
)
def test_what_is_opened_beside_a_checkpoint_is_kept_and_what_only_training_needs_is_not(
    tree: MakeTree, tmp_path: Path, name: str, path: str, is_kept: bool
) -> None:
    RUNS[name](tmp_path)
    write_bytes(tmp_path / path, b"x")
    _, _, run = read(tree(tmp_path))
    assert not run.undecided
    for item in run.checkpoints:
        assert (path in item.files) == is_kept
        assert (path in dict(item.left_out)) == (not is_kept)


@pytest.mark.parametrize("loss", ["nan", "inf", "3"])
def test_a_loss_of_prismatic_is_any_number(tree: MakeTree, tmp_path: Path, loss: str) -> None:
    RUNS["prismatic"](tmp_path)
    weights(tmp_path / f"checkpoints/step-003000-epoch-04-loss={loss}.pt", 8, model={})
    _, _, run = read(tree(tmp_path))
    assert run.checkpoints[0].step == 3000


def test_the_old_api_stack_of_rllib(tree: MakeTree, tmp_path: Path) -> None:
    for number in (0, 1):
        folder = tmp_path / f"checkpoint_{number:06d}"
        write_bytes(folder / "algorithm_state.pkl", b"\x80\x02}.")
        write_bytes(folder / "policies/default_policy/policy_state.pkl", b"\x80\x02}.")
    layout, _, run = read(tree(tmp_path))
    assert layout == "rllib"
    assert run.checkpoints[0].weights == ("checkpoint_000001/policies/default_policy/policy_state.pkl",)


def test_what_one_script_of_tianshou_does_not_write_is_asked_about(tree: MakeTree, tmp_path: Path) -> None:
    RUNS["tianshou"](tmp_path)
    weights(tmp_path / "log/Ant-v4/ppo/0/260102-030405/checkpoint.pth", 9, model={})
    _, _, run = read(tree(tmp_path))
    assert set(run.choices) == {"checkpoint.pth", "checkpoint_2.pth"}
