"""The Stable-Baselines3 layout against runs of 2.9.2: in RL Zoo's layout and in Isaac Lab's."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from aml_mirror.core.errors import UsageError
from aml_mirror.layouts.stable_baselines3.layout import StableBaselines3
from aml_mirror.metrics.series import read_metrics
from aml_mirror.pipeline.select import choose
from builders.torch_zip import cut

RUNS = Path(__file__).parents[1] / "data" / "runs"
ZOO = RUNS / "stable_baselines3"
ISAAC_LAB = RUNS / "stable_baselines3_isaac_lab"
LAYOUT = StableBaselines3()


def saved(path: Path, step: int, weights: bytes = b"", **data: object) -> Path:
    """A file as `BaseAlgorithm.save` writes it, with ``step`` as its count of timesteps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", json.dumps({"num_timesteps": step, "gamma": 0.99, "_n_updates": 3, **data}))
        archive.writestr("policy.pth", b"PK\x03\x04" + weights)
        archive.writestr("_stable_baselines3_version", "2.9.2")
    return path


def statistics(path: Path) -> Path:
    """The start of a pickled VecNormalize."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x80\x05\x8c.stable_baselines3.common.vec_env.vec_normalize\x94\x8c\x0cVecNormalize\x94."
    )
    return path


def test_rl_zoo(tree):
    assert LAYOUT.find(tree(ZOO)) == ["sac/Pendulum-v1_1"]
    run = LAYOUT.read(tree(ZOO).below("sac/Pendulum-v1_1"))
    assert [(item.path, item.step, item.role) for item in run.checkpoints] == [
        ("Pendulum-v1.zip", 600, "final"),
        ("rl_model_600_steps.zip", 600, "periodic"),
        ("rl_model_200_steps.zip", 200, "periodic"),
    ]
    final = run.checkpoints[0]
    # RL Zoo's player reads its settings, too.
    settings = ("Pendulum-v1/args.yml", "Pendulum-v1/config.yml")
    assert final.files == ("Pendulum-v1.zip", *settings, "Pendulum-v1/vecnormalize.pkl")
    assert run.best and set(settings) <= set(run.best.files)
    assert final.weights == ("Pendulum-v1.zip",)
    assert [path for path, _ in final.left_out] == ["replay_buffer.pkl"]
    assert [path for path, _ in run.checkpoints[1].left_out] == ["rl_model_replay_buffer_600_steps.pkl"]
    # num_timesteps of best_model.zip; evaluations.npz says the same.
    assert (run.best.path, run.best.step) == ("best_model.zip", 450)
    assert "Pendulum-v1/vecnormalize.pkl" in run.best.files
    assert run.logs == ["evaluations.npz"]
    assert run.params["args"] == {"algo": "sac", "seed": 0}
    assert run.params["config"]["gamma"] == 0.98
    assert run.params["algorithm"]["num_timesteps"] == 600
    assert not any("serialized" in str(value) for value in run.params["algorithm"].values())


def test_the_table_of_its_logger_says_more_than_the_evaluations(tree, tmp_path):
    shutil.copytree(ZOO, tmp_path, dirs_exist_ok=True)
    root = tmp_path / "sac" / "Pendulum-v1_1"
    (root / "progress.csv").write_text("eval/mean_reward,time/total_timesteps,train/ent_coef\n-9.5,150,0.5\n")
    run = LAYOUT.read(tree(root))
    assert run.logs == ["evaluations.npz", "progress.csv"]
    for path in root.rglob("*.tfevents.*"):
        path.unlink()
    metrics = read_metrics(tree(root), run.logs)
    assert [(one.name, one.points) for one in metrics.series] == [
        ("eval/mean_reward", 1),
        ("train/ent_coef", 1),
    ]


def test_isaac_lab(tree):
    assert LAYOUT.find(tree(ISAAC_LAB)) == [""]
    run = LAYOUT.read(tree(ISAAC_LAB))
    assert [(item.path, item.step) for item in run.checkpoints] == [
        ("model.zip", 1024),
        ("model_1000_steps.zip", 1000),
        ("model_800_steps.zip", 800),
    ]
    assert run.checkpoints[0].files == ("model.zip", "model_vecnormalize.pkl")
    assert run.best is None


def test_the_best_under_a_final_name_is_not_the_end(tree, tmp_path):
    saved(tmp_path / "checkpoints" / "rl_model_15000_steps.zip", 15000)
    saved(tmp_path / "best_model" / "best_model.zip", 4000)
    shutil.copy(tmp_path / "best_model" / "best_model.zip", tmp_path / "final_model.zip")
    assert LAYOUT.find(tree(tmp_path)) == [""]
    run = LAYOUT.read(tree(tmp_path))
    assert run.checkpoints[0].path == "checkpoints/rl_model_15000_steps.zip"
    assert (run.best.path, run.best.step) == ("best_model/best_model.zip", 4000)
    assert any("final_model.zip contains step 4000" in text for text in run.warnings)


def test_a_folder_can_say_that_it_holds_the_best(tree, tmp_path):
    saved(tmp_path / "best" / "model.zip", 200)
    for step in (100, 220):
        saved(tmp_path / f"model_{step}.zip", step)
    run = LAYOUT.read(tree(tmp_path))
    assert [item.path for item in run.checkpoints] == ["model_220.zip", "model_100.zip"]
    assert (run.best.path, run.best.step) == ("best/model.zip", 200)
    # A name with a number shows that the file is not the end.
    assert run.warnings == []


def test_of_several_best_ones_the_latest_is(tree, tmp_path):
    saved(tmp_path / "model.zip", 200000)
    for step in (20000, 100000):
        saved(tmp_path / f"best_model_{step}.zip", step)
    assert LAYOUT.read(tree(tmp_path)).best.path == "best_model_100000.zip"


def test_where_several_could_be_the_end_the_latest_is(tree, tmp_path):
    for name, step in (("initial_model.zip", 0), ("ppo_ant.zip", 500), ("final_model.zip", 500)):
        saved(tmp_path / name, step)
    saved(tmp_path / "ckpt" / "ppo_500_steps.zip", 500)
    run = LAYOUT.read(tree(tmp_path))
    assert [item.path for item in run.checkpoints] == [
        "final_model.zip",
        "ppo_ant.zip",
        "ckpt/ppo_500_steps.zip",
        "initial_model.zip",
    ]


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_cut_final_file_keeps_the_first_place(tree, tmp_path, keep):
    shutil.copytree(ISAAC_LAB, tmp_path / "run")
    cut(tmp_path / "run" / "model.zip", keep)
    run = LAYOUT.read(tree(tmp_path / "run"))
    assert [(item.path, item.step) for item in run.checkpoints] == [
        ("model.zip", None),
        ("model_1000_steps.zip", 1000),
        ("model_800_steps.zip", 800),
    ]


def test_a_cut_periodic_file_keeps_the_step_of_its_name(tree, tmp_path):
    for step in (9000, 10000):
        saved(tmp_path / f"a_{step}_steps.zip", step)
    cut(tmp_path / "a_10000_steps.zip")
    assert LAYOUT.find(tree(tmp_path)) == [""]
    assert [item.step for item in LAYOUT.read(tree(tmp_path)).checkpoints] == [10000, 9000]


def test_each_periodic_file_has_its_own_statistics(tree, tmp_path):
    for step in (100, 200):
        saved(tmp_path / "checkpoints" / f"rl_model_{step}_steps.zip", step)
        statistics(tmp_path / "checkpoints" / f"rl_model_vecnormalize_{step}_steps.pkl")
    run = LAYOUT.read(tree(tmp_path))
    assert [item.files[1] for item in run.checkpoints] == [
        "checkpoints/rl_model_vecnormalize_200_steps.pkl",
        "checkpoints/rl_model_vecnormalize_100_steps.pkl",
    ]
    # CheckpointCallback writes the statistics last, so a stopped training leaves a model without them.
    (tmp_path / "checkpoints" / "rl_model_vecnormalize_200_steps.pkl").unlink()
    first, second = LAYOUT.read(tree(tmp_path)).checkpoints
    assert "VecNormalize" in first.problem
    assert second.problem == ""


def test_statistics_go_with_the_files_of_their_own_prefix(tree, tmp_path):
    for prefix in ("ppo", "sac"):
        for step in (100, 200):
            saved(tmp_path / f"{prefix}_{step}_steps.zip", step, prefix.encode())
            statistics(tmp_path / f"{prefix}_vecnormalize_{step}_steps.pkl")
    for item in LAYOUT.read(tree(tmp_path)).checkpoints:
        prefix = item.path[:3]
        assert item.files == (item.path, f"{prefix}_vecnormalize_{item.step}_steps.pkl")
    (tmp_path / "sac_vecnormalize_200_steps.pkl").unlink()
    problems = {item.path: item.problem for item in LAYOUT.read(tree(tmp_path)).checkpoints}
    assert [path for path, problem in problems.items() if problem] == ["sac_200_steps.zip"]


@pytest.mark.parametrize("name", ["vecnormalize.pkl", "VecNorm.pickle", "stats.pickle"])
def test_statistics_under_each_suffix(tree, tmp_path, name):
    saved(tmp_path / "model.zip", 10)
    statistics(tmp_path / name)
    assert set(LAYOUT.read(tree(tmp_path)).checkpoints[0].files) == {"model.zip", name}


def test_statistics_are_known_by_their_contents(tree, tmp_path):
    saved(tmp_path / "model.zip", 10)
    statistics(tmp_path / "env_stats.pkl")
    (tmp_path / "notes.pkl").write_bytes(pickle.dumps({"a": 1}))
    assert LAYOUT.read(tree(tmp_path)).checkpoints[0].files == ("env_stats.pkl", "model.zip")


def test_the_best_takes_its_own_statistics_or_says_that_it_has_none(tree, tmp_path):
    saved(tmp_path / "final_model.zip", 900)
    statistics(tmp_path / "vecnormalize.pkl")
    saved(tmp_path / "best_model" / "best_model.zip", 300)
    run = LAYOUT.read(tree(tmp_path))
    assert run.checkpoints[0].files == ("final_model.zip", "vecnormalize.pkl")
    assert run.best.files == ("best_model/best_model.zip", "vecnormalize.pkl")
    assert any("best_model.zip has no VecNormalize statistics of its own" in text for text in run.warnings)
    statistics(tmp_path / "best_model" / "vecnormalize.pkl")
    run = LAYOUT.read(tree(tmp_path))
    assert run.checkpoints[0].files == ("final_model.zip", "vecnormalize.pkl")
    assert run.best.files == ("best_model/best_model.zip", "best_model/vecnormalize.pkl")
    assert run.warnings == []


def test_where_the_best_cannot_be_read_the_evaluations_give_its_step(tree, tmp_path):
    saved(tmp_path / "model.zip", 900)
    cut(saved(tmp_path / "best_model.zip", 300))
    np.savez(
        tmp_path / "evaluations.npz",
        timesteps=np.array([100, 200, 300, 400]),
        # The first highest mean, neither the highest episode nor the last one.
        results=np.array([[1.0, 1.0], [9.0, 0.0], [5.0, 5.0], [5.0, 5.0]]),
        ep_lengths=np.ones((4, 2)),
    )
    assert LAYOUT.read(tree(tmp_path)).best.step == 300


def test_other_zips_are_no_checkpoints(tree, tmp_path):
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as archive:
        archive.writestr("data", "{}")
    assert LAYOUT.find(tree(tmp_path)) == []
    saved(tmp_path / "model.zip", 5)
    assert LAYOUT.find(tree(tmp_path)) == [""]
    assert [item.path for item in LAYOUT.read(tree(tmp_path)).checkpoints] == ["model.zip"]


def test_two_runs_side_by_side_are_two(tree, tmp_path):
    for name in ("a", "b"):
        saved(tmp_path / name / "model.zip", 5)
        saved(tmp_path / name / "checkpoints" / "rl_model_4_steps.zip", 4)
    assert LAYOUT.find(tree(tmp_path)) == ["a", "b"]


def test_folders_of_one_run_with_names_of_its_own_are_one(tree, tmp_path):
    saved(tmp_path / "every_so_often" / "rl_model_4_steps.zip", 4)
    saved(tmp_path / "winner" / "best_model.zip", 4)
    assert LAYOUT.find(tree(tmp_path)) == [""]


def training(
    called: int = 1, began: int = 0, seed: int | None = None, **changed: object
) -> dict[str, object]:
    """What ``data`` of SB3 2.9 says about a PPO training. For classes and spaces it has the attributes."""
    return {
        "policy_class": {
            ":type:": "<class 'abc.ABCMeta'>",
            "__module__": "stable_baselines3.common.policies",
        },
        "observation_space": {":type:": "<class 'gymnasium.spaces.box.Box'>", "_shape": [4], "low": "[-1.]"},
        "action_space": {":type:": "<class 'gymnasium.spaces.discrete.Discrete'>", "_shape": [], "n": "2"},
        "clip_range": 0.2,
        "start_time": called,
        "_num_timesteps_at_start": began,
        "seed": seed,
    } | changed


SAC = {"policy_class": {":type:": "<class 'abc.ABCMeta'>", "__module__": "stable_baselines3.sac.policies"}}
OTHER_BOX = {":type:": "<class 'gymnasium.spaces.box.Box'>", "_shape": [3], "low": "[-1.]"}
DISCRETE_3 = {":type:": "<class 'gymnasium.spaces.discrete.Discrete'>", "_shape": [], "n": "3"}


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (training(2, **SAC), "algorithm"),
        # A2C has PPO's policy class and no clip_range.
        ({key: value for key, value in training(2).items() if key != "clip_range"}, "algorithm"),
        (training(2, observation_space=OTHER_BOX), "observation space"),
        (training(2, action_space=DISCRETE_3), "action space"),
        (training(2, seed=1), "seed"),
    ],
)
def test_of_models_of_different_trainings_none_is_the_final_one(tree, tmp_path, other, reason):
    saved(tmp_path / "models" / "one.zip", 64, b"1", **training(seed=0))
    saved(tmp_path / "models" / "two.zip", 200, b"2", **other)
    run = LAYOUT.read(tree(tmp_path))
    with pytest.raises(UsageError, match=f"differ in {reason}: models/two.zip .* models/one.zip") as raised:
        list(choose(tree(tmp_path), run, "final"))
    assert raised.value.exit_code == 64
    assert raised.value.hint == "pass one of: --checkpoint models/two.zip, --checkpoint models/one.zip"
    # The parameters describe neither of the two, and the logs describe both.
    assert "algorithm" not in run.params
    assert any("metrics come from all" in text for text in run.warnings)
    for path, step in (("models/one.zip", 64), ("models/two.zip", 200)):
        # Other tests cover complete files. The parameters here are not real.
        (chosen,) = choose(tree(tmp_path), run, path, trusted=lambda _: True)
        found = chosen.checkpoint
        assert (found.path, found.step, found.role) == (path, step, "final")


def test_callbacks_of_different_prefixes_may_be_of_different_trainings(tree, tmp_path):
    for step in (100, 200):
        saved(tmp_path / f"ppo_{step}_steps.zip", step, **training())
        saved(tmp_path / f"sac_{step}_steps.zip", step, **training(2, **SAC))
    assert "differ in algorithm" in LAYOUT.read(tree(tmp_path)).undecided


@pytest.mark.parametrize("known", [True, False])
def test_models_of_one_step_that_are_no_copies_are_undecided(tree, tmp_path, known):
    for number in range(3):
        facts = training(number + 1) if known else {}
        saved(tmp_path / f"ppo_{number}.zip", 64, bytes([number]), **facts)
    run = LAYOUT.read(tree(tmp_path))
    assert "their policies differ" in run.undecided
    assert run.choices == ["ppo_2.zip", "ppo_1.zip", "ppo_0.zip"]
    (warning,) = run.warnings
    assert "ppo_1.zip (step 64), ppo_0.zip (step 64) belong to another training" in warning


def test_of_trainings_that_began_anew_the_one_that_began_last_comes_first(tree, tmp_path):
    """`learn` resets the count to 0 unless it is called with reset_num_timesteps=False."""
    saved(tmp_path / "models" / "90000.zip", 10000, b"1", **training(1))
    saved(tmp_path / "models" / "100000.zip", 10000, b"2", **training(2))
    run = LAYOUT.read(tree(tmp_path))
    assert run.checkpoints[0].path == "models/100000.zip"
    saved(tmp_path / "models" / "tuned_model.zip", 300, b"3", **training(3))
    (warning,) = LAYOUT.read(tree(tmp_path)).warnings
    assert "models/tuned_model.zip (step 300)" in warning


def test_one_training_may_be_saved_many_times(tree, tmp_path):
    for step in (100, 200):
        saved(
            tmp_path / "checkpoints" / f"rl_model_{step}_steps.zip", step, bytes([step]), **training(seed=0)
        )
    saved(tmp_path / "best_model" / "best_model.zip", 100, b"1", **training(seed=0))
    # The last update comes after the last callback.
    saved(tmp_path / "final_model.zip", 200, b"2", **training(seed=0))
    shutil.copy(tmp_path / "final_model.zip", tmp_path / "ppo_ant.zip")
    # It continued, was stopped, and continued from a checkpoint before the last one.
    saved(tmp_path / "stage2.zip", 400, b"3", **training(2, 200, seed=0))
    saved(tmp_path / "stage3.zip", 500, b"4", **training(3, 300, seed=0))
    run = LAYOUT.read(tree(tmp_path))
    assert run.checkpoints[0].path == "stage3.zip"
    assert run.undecided == ""
    # The warning about final_model.zip was there before, too.
    assert ["final_model.zip contains step 200" in text for text in run.warnings] == [True]


def test_the_same_in_another_release_is_no_difference(tree, tmp_path):
    box = {":type:": "<class 'gym.spaces.box.Box'>", "_shape": [4], "low": "[-1. ]", "shape": [4]}
    saved(tmp_path / "old.zip", 100, b"1", **training(observation_space=box))
    saved(tmp_path / "new.zip", 200, b"2", **training(2, 100))
    saved(tmp_path / "unknown.zip", 150, b"3", policy_class="Mlp", observation_space=None, seed="a")
    saved(
        tmp_path / "odd.zip", 160, b"4", action_space={":type:": 3, "_shape": [[2]], "n": {}}, start_time=[]
    )
    run = LAYOUT.read(tree(tmp_path))
    assert (run.undecided, run.warnings) == ("", [])


def test_only_the_best_was_kept(tree, tmp_path):
    saved(tmp_path / "best_model.zip", 4)
    run = LAYOUT.read(tree(tmp_path))
    assert run.checkpoints == []
    assert run.best.step == 4
    assert "best" in run.warnings[0]
