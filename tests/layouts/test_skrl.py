"""The skrl layout against runs of skrl 1.4.3 (SAC, modules apart) and 2.1.1 (PPO, both ways)."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest

from aml_mirror.layouts.skrl import Skrl
from aml_mirror.pipeline.completeness import judge
from builders.torch_zip import cut, save

RUNS = Path(__file__).parents[1] / "data" / "runs"
LAYOUT = Skrl()


def test_whole_agents(tree):
    run = LAYOUT.read(tree(RUNS / "skrl"))
    assert LAYOUT.find(tree(RUNS / "skrl")) == [""]
    assert [(item.path, item.step, item.role) for item in run.checkpoints] == [
        ("checkpoints/agent_6400.pt", 6400, "final"),
        ("checkpoints/agent_5600.pt", 5600, "periodic"),
        ("checkpoints/agent_4000.pt", 4000, "periodic"),
        ("checkpoints/agent_800.pt", 800, "periodic"),
    ]
    # Nothing in best_agent.pt says so, but it has the contents of agent_4000.pt.
    assert (run.best.path, run.best.step, run.best.role) == ("checkpoints/best_agent.pt", 4000, "best")


def test_the_step_of_the_best_is_not_guessed(tree, tmp_path):
    shutil.copytree(RUNS / "skrl", tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "agent_4000.pt").unlink()
    run = LAYOUT.read(tree(tmp_path / "run"))
    assert run.best.path == "checkpoints/best_agent.pt"
    assert run.best.step is None


def test_modules_of_1x_apart(tree):
    """SAC of skrl 1.4.3, which calls the scaling of observations state_preprocessor."""
    run = LAYOUT.read(tree(RUNS / "skrl_modules_1x"))
    final = run.checkpoints[0]
    assert (final.path, final.step) == ("checkpoints/policy_1000.pt", 1000)
    assert final.files == ("checkpoints/policy_1000.pt", "checkpoints/state_preprocessor_1000.pt")
    assert [path for path, _ in final.left_out] == [
        f"checkpoints/{module}_1000.pt"
        for module in (
            "critic_1",
            "critic_2",
            "critic_optimizer",
            "entropy_optimizer",
            "policy_optimizer",
            "target_critic_1",
            "target_critic_2",
        )
    ]
    assert all(reason for _, reason in final.left_out)
    assert (run.best.path, run.best.step) == ("checkpoints/best_policy.pt", 600)
    assert run.best.files == ("checkpoints/best_policy.pt", "checkpoints/best_state_preprocessor.pt")


def test_modules_of_2x_apart(tree):
    run = LAYOUT.read(tree(RUNS / "skrl_modules_2x"))
    final = run.checkpoints[0]
    assert (final.path, final.step, final.problem) == ("checkpoints/policy_1000.pt", 1000, "")
    assert final.files == ("checkpoints/observation_preprocessor_1000.pt", "checkpoints/policy_1000.pt")
    assert [path for path, _ in final.left_out] == [
        "checkpoints/optimizer_1000.pt",
        "checkpoints/value_1000.pt",
        "checkpoints/value_preprocessor_1000.pt",
    ]
    assert (run.best.path, run.best.step) == ("checkpoints/best_policy.pt", 800)


@pytest.mark.parametrize("module", ["policy", "observation_preprocessor"])
def test_a_step_without_what_the_others_have_is_incomplete(tree, tmp_path, module):
    shutil.copytree(RUNS / "skrl_modules_2x", tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / f"{module}_1000.pt").unlink()
    first, second = LAYOUT.read(tree(tmp_path / "run")).checkpoints
    assert (first.path, first.step) == ("checkpoints/policy_1000.pt", 1000)
    assert module in first.problem
    assert (second.path, second.problem) == ("checkpoints/policy_800.pt", "")


@pytest.mark.parametrize(
    "module",
    [
        "target_policy",
        "discriminator",
        "value_preprocessor",
        "amp_observation_preprocessor",
        "amp_state_preprocessor",
        "shared_observation_preprocessor",
        "shared_state_preprocessor",
    ],
)
def test_what_only_training_needs_is_left_out_and_may_be_lost(tree, tmp_path, module):
    """Its name ends like that of a module that the policy needs, or it belongs to a critic."""
    for step in (90, 100):
        for name in ("policy", "state_preprocessor", module):
            save(tmp_path / "checkpoints" / f"{name}_{step}.pt", {"step": step})
    final = LAYOUT.read(tree(tmp_path)).checkpoints[0]
    needed = ("checkpoints/policy_100.pt", "checkpoints/state_preprocessor_100.pt")
    assert (final.files, final.weights) == (needed, needed)
    ((left, why),) = final.left_out
    assert left == f"checkpoints/{module}_100.pt" and "training only" in why
    (tmp_path / left).unlink()
    assert LAYOUT.read(tree(tmp_path)).checkpoints[0].problem == ""


@pytest.mark.parametrize("name", ["policy_1000.pt", "observation_preprocessor_1000.pt"])
def test_an_empty_module_that_acting_needs_is_incomplete(tree, tmp_path, name):
    run = shutil.copytree(RUNS / "skrl_modules_2x", tmp_path / "run")
    (run / "checkpoints" / name).write_bytes(b"")
    final = LAYOUT.read(tree(run)).checkpoints[0]
    assert final.step == 1000 and f"{name}: it is empty" in judge(tree(run), final)


@pytest.mark.parametrize(("other", "is_asked"), [(1000, True), (500, False)])
def test_modules_of_another_training_beside_the_policies(tree, tmp_path, other, is_asked):
    save(tmp_path / "checkpoints" / "policy_900.pt", {"step": 900})
    save(tmp_path / "checkpoints" / f"discriminator_{other}.pt", {"step": other})
    run = LAYOUT.read(tree(tmp_path))
    assert bool(run.undecided) == is_asked


def test_a_step_without_its_critic_is_complete(tree, tmp_path):
    shutil.copytree(RUNS / "skrl_modules_2x", tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "value_1000.pt").unlink()
    assert LAYOUT.read(tree(tmp_path / "run")).checkpoints[0].problem == ""


def test_what_was_scaled_alike_does_not_tell_the_step_of_the_best(tree, tmp_path):
    """Scaling may stay the same from one checkpoint to the next, so the policy must be the same, too."""
    run = shutil.copytree(RUNS / "skrl_modules_2x", tmp_path / "run")
    assert LAYOUT.read(tree(run)).best.step == 800
    (run / "checkpoints" / "policy_800.pt").unlink()
    assert LAYOUT.read(tree(run)).best.step is None


def test_several_agents_with_modules_apart(tree, tmp_path):
    for step in (90, 100):
        for agent in ("robot_0", "robot_1"):
            for module in ("policy", "value", "state_preprocessor", "shared_state_preprocessor"):
                save(tmp_path / "checkpoints" / f"{agent}_{module}_{step}.pt", {"step": step})
    assert LAYOUT.find(tree(tmp_path)) == [""]
    final = LAYOUT.read(tree(tmp_path)).checkpoints[0]
    assert final.step == 100
    assert final.files == (
        "checkpoints/robot_0_policy_100.pt",
        "checkpoints/robot_0_state_preprocessor_100.pt",
        "checkpoints/robot_1_policy_100.pt",
        "checkpoints/robot_1_state_preprocessor_100.pt",
    )
    assert {"checkpoints/robot_1_value_100.pt", "checkpoints/robot_1_shared_state_preprocessor_100.pt"} <= {
        path for path, _ in final.left_out
    }


def test_a_q_network_is_a_policy(tree, tmp_path):
    for module in ("q_network", "target_q_network", "optimizer"):
        save(tmp_path / "checkpoints" / f"{module}_5.pt", {"x": 1})
    assert LAYOUT.find(tree(tmp_path)) == [""]
    (final,) = LAYOUT.read(tree(tmp_path)).checkpoints
    assert final.files == ("checkpoints/q_network_5.pt",)
    assert len(final.left_out) == 2


def test_jax_agents(tree, tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for step in (900, 1000):
        (folder / f"agent_{step}.pickle").write_bytes(pickle.dumps({"policy": bytes([step % 251])}, 4))
    shutil.copy(folder / "agent_900.pickle", folder / "best_agent.pickle")
    assert LAYOUT.find(tree(tmp_path)) == [""]
    run = LAYOUT.read(tree(tmp_path))
    assert [item.path for item in run.checkpoints] == [
        "checkpoints/agent_1000.pickle",
        "checkpoints/agent_900.pickle",
    ]
    assert run.best.step == 900


def test_others_agents_are_not_claimed(tree, tmp_path):
    save(tmp_path / "checkpoints" / "agent_100.pt", {"actor": {}, "critic": {}})
    assert LAYOUT.find(tree(tmp_path)) == []
    save(tmp_path / "ours" / "checkpoints" / "agent_100.pt", {"policy": {}, "value": {}})
    assert LAYOUT.find(tree(tmp_path)) == ["ours"]


def test_an_end_that_skrl_does_not_write_is_undecided(tree, tmp_path):
    for step in (100, 200):
        save(tmp_path / "checkpoints" / f"agent_{step}.pt", {"policy": step, "critic": {}})
    save(tmp_path / "checkpoints" / "agent_final.pt", {"policy": 250, "critic": {}}, b"other".ljust(64))
    assert LAYOUT.find(tree(tmp_path)) == [""]
    run = LAYOUT.read(tree(tmp_path))
    assert set(run.choices) == {"checkpoints/agent_final.pt", "checkpoints/agent_200.pt"}
    # A user's copy of the newest one proves nothing.
    shutil.copy(tmp_path / "checkpoints" / "agent_200.pt", tmp_path / "checkpoints" / "agent_final.pt")
    run = LAYOUT.read(tree(tmp_path))
    assert (run.checkpoints[0].step, run.undecided) == (200, "")


def test_a_single_policy_file_is_not_enough(tree, tmp_path):
    save(tmp_path / "checkpoints" / "policy_100.pt", {"x": 1})
    assert LAYOUT.find(tree(tmp_path)) == []


def test_steps_are_numbers_and_a_cut_file_keeps_its_place(tree, tmp_path):
    for step in (800, 1000, 90):
        save(tmp_path / "checkpoints" / f"agent_{step}.pt", {"policy": step})
    cut(tmp_path / "checkpoints" / "agent_1000.pt")
    assert LAYOUT.find(tree(tmp_path)) == [""]
    assert [item.step for item in LAYOUT.read(tree(tmp_path)).checkpoints] == [1000, 800, 90]


def test_only_the_best_was_kept(tree, tmp_path):
    save(tmp_path / "checkpoints" / "best_agent.pt", {"policy": 1})
    assert LAYOUT.find(tree(tmp_path)) == [""]
    run = LAYOUT.read(tree(tmp_path))
    assert run.checkpoints == []
    assert run.best.path == "checkpoints/best_agent.pt"
    assert "best" in run.warnings[0]


@pytest.mark.parametrize("name", ["INPUT_checkpoints", "my copy"])
def test_the_folder_of_the_checkpoints_alone(tree, tmp_path, name):
    shutil.copytree(RUNS / "skrl/checkpoints", tmp_path / name)
    assert LAYOUT.find(tree(tmp_path)) == [name]
    whole, alone = LAYOUT.read(tree(RUNS / "skrl")), LAYOUT.read(tree(tmp_path / name))
    assert [f"checkpoints/{item.path}" for item in alone.checkpoints] == [
        item.path for item in whole.checkpoints
    ]
    assert alone.best.path == "best_agent.pt" and alone.best.step == whole.best.step
    assert LAYOUT.find(tree(tmp_path / name)) == [""]


def test_an_agent_with_a_date_for_a_step_is_named(tree, tmp_path):
    run = shutil.copytree(RUNS / "skrl", tmp_path / "run")
    dated = "checkpoints/agent_26-01-02_03-04-05-123456.pt"
    shutil.copy(run / "checkpoints/best_agent.pt", run / dated)
    found = LAYOUT.read(tree(run))
    assert found.checkpoints[0].path == "checkpoints/agent_6400.pt"
    assert f"--checkpoint {dated}" in found.warnings[0]
