"""Runs of no known framework: what counts as a checkpoint, and what must not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from aml_mirror.core.errors import UsageError
from aml_mirror.layouts import find_run
from aml_mirror.layouts.base import Run
from aml_mirror.layouts.generic.layout import Generic
from aml_mirror.sources.tree import Tree
from builders.saved import safetensors, write_bytes, write_json
from builders.torch_zip import save

MakeTree = Callable[[Path], Tree]


def read(tree: MakeTree, folder: Path, root: str = "") -> Run:
    found = tree(folder)
    assert Generic().find(found) == [root]
    return Generic().read(found.below(root))


def paths(run: Run) -> list[str]:
    return [item.path for item in run.checkpoints]


@pytest.mark.parametrize(
    ("names", "root"),
    [
        (["step_9", "step_100", "step_1000"], ""),
        (["checkpoints/9", "checkpoints/100", "checkpoints/1000"], ""),
        (["ckpt-0000009", "ckpt-0000100", "ckpt-0001000"], ""),
        (["9", "100", "1000"], ""),
        (["global_step9", "global_step100", "global_step1000"], ""),
        (["epoch=1-step=9", "epoch=2-step=100", "epoch=11-step=1000"], ""),
        (["9_iterations", "100_iterations", "1000_iterations"], ""),
        (["mine_9", "mine_100", "mine_1000"], ""),
        # OpenVLA's fine-tuning: one word of the name belongs to a setting.
        ([f"vla-7b+lr-0.0005--image_aug--{step}_chkpt" for step in (9, 100, 1000)], ""),
        (["out/saves/it 9", "out/saves/it 100", "out/saves/it 1000"], "out"),
    ],
)
def test_numbered_directories(tree: MakeTree, tmp_path: Path, names: list[str], root: str) -> None:
    for name in names:
        safetensors(tmp_path / name / "model.safetensors")
    run = read(tree, tmp_path, root)
    prefix = root + "/" if root else ""
    assert paths(run) == [name.removeprefix(prefix) for name in reversed(names)]
    assert [item.step for item in run.checkpoints] == [1000, 100, 9]
    assert [item.role for item in run.checkpoints] == ["final", "periodic", "periodic"]
    assert run.best is None


def test_what_a_directory_holds(tree: MakeTree, tmp_path: Path) -> None:
    folder = tmp_path / "step_100"
    safetensors(folder / "policy/model.safetensors")
    safetensors(folder / "optimizer.safetensors")
    for name in (
        "normalizer.json",
        "policy/config.yaml",
        "optimizer_state.pt",
        "rng_state.pt",
        "replay_buffer.pkl",
    ):
        write_bytes(folder / name)
    write_bytes(folder / "events.out.tfevents.1.vm.1.0")
    write_json(tmp_path / "config.json", {"lr": 0.1})
    write_bytes(tmp_path / ".hydra/config.yaml", b"seed: 1\n")
    run = read(tree, tmp_path)
    final = run.checkpoints[0]
    assert final.files == (
        "config.json",
        "step_100/normalizer.json",
        "step_100/policy/config.yaml",
        "step_100/policy/model.safetensors",
    )
    assert final.weights == ("step_100/policy/model.safetensors",)
    assert len(final.left_out) == 5
    assert run.params == {"config": {"lr": 0.1}, ".hydra/config": {"seed": 1}}


def test_numbered_files(tree: MakeTree, tmp_path: Path) -> None:
    for step in (9, 100, 1000):
        write_bytes(tmp_path / f"models/policy_{step}.pt")
        write_bytes(tmp_path / f"models/policy_{step}.json", b"{}")
        write_bytes(tmp_path / f"models/optimizer_{step}.pt")
    write_bytes(tmp_path / "models/policy_best.pt")
    run = read(tree, tmp_path)
    assert paths(run) == ["models/policy_1000.pt", "models/policy_100.pt", "models/policy_9.pt"]
    assert run.checkpoints[0].files == ("models/policy_1000.json", "models/policy_1000.pt")
    assert run.checkpoints[0].left_out == (("models/optimizer_1000.pt", "optimizer state"),)


def test_files_of_one_step_belong_together(tree: MakeTree, tmp_path: Path) -> None:
    for step in (1, 2):
        for part in ("critic", "policy", "decoder"):
            write_bytes(tmp_path / f"checkpoints/{part}_{step}.pth")
    run = read(tree, tmp_path)
    assert paths(run) == ["checkpoints/policy_2.pth", "checkpoints/policy_1.pth"]
    assert len(run.checkpoints[0].weights) == 3


def test_incomplete_ones(tree: MakeTree, tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        safetensors(tmp_path / f"step_{step}/actor.safetensors")
        safetensors(tmp_path / f"step_{step}/model.safetensors")
    (tmp_path / "step_4/actor.safetensors").unlink()
    write_json(tmp_path / "step_5/config.json", {})
    safetensors(tmp_path / "step_6/model-00001-of-00002.safetensors")
    safetensors(tmp_path / "step_7.tmp/model.safetensors")
    run = read(tree, tmp_path)
    assert [(item.step, item.problem == "") for item in run.checkpoints] == [
        (7, False),
        (6, False),
        (5, False),
        (4, False),
        (3, True),
        (2, True),
        (1, True),
    ]
    assert "actor.safetensors" in run.checkpoints[3].problem


@pytest.mark.parametrize(
    "paths",
    [
        ["data/chunk-000/file-000.safetensors", "data/chunk-001/file-001.safetensors"],
        ["dataset/step_1/model.pt", "dataset/step_2/model.pt"],
        ["episode_000001/policy.pt", "episode_000002/policy.pt"],
        ["trajectories/t/step_0001.pt", "trajectories/t/step_0002.pt"],
        ["features/0001.pt", "features/0002.pt"],
        ["0001/features.pt", "0002/features.pt"],
        ["low_dim_v141.hdf5", "image_v141.hdf5"],
        ["frames_0001.pt", "frames_0002.pt"],
        ["train-00001-of-00010.safetensors", "train-00002-of-00010.safetensors"],
        ["model.pt", "best_model.pt"],
        ["llama3-8b/model.safetensors"],
        ["gpt-2/model.safetensors"],
        ["best_1000/model.pt"],
        ["best_checkpoint_1000/model.pt"],
        ["step_1/notes.txt", "step_2/notes.txt"],
        ["wandb/run-1/files/model_1.pt"],
        ["2026-01-02/model.pt", "2026-01-03/model.pt"],
        ["version_0/checkpoints/x.ckpt"],
        ["seed_1/model.pt", "seed_2/model.pt"],
        ["models/1/features.pt", "models/2/features.pt"],
        ["models/train_features_1.pt", "models/train_features_2.pt"],
        ["models/model-00001-of-00002.safetensors", "models/model-00002-of-00002.safetensors"],
        ["a_1.pt", "a_2.pt"],
        ["checkpoints/videos 1/x.pt", "checkpoints/cache_2/x.pt"],
        ["model_videos/1/x.pt"],
        ["1/a/b/c/d/model.pt"],
    ],
)
def test_what_is_no_run(tree: MakeTree, tmp_path: Path, paths: list[str]) -> None:
    for path in paths:
        write_bytes(tmp_path / path)
    assert Generic().find(tree(tmp_path)) == []


def test_a_folder_of_data_beside_a_run(tree: MakeTree, tmp_path: Path) -> None:
    safetensors(tmp_path / "exp/checkpoints/step_10/model.safetensors")
    for number in range(20):
        write_bytes(tmp_path / f"exp/data/episode_{number:06}/actions.pt")
        write_bytes(tmp_path / f"exp/checkpoints/step_10/rank_{number}/model.pt")
    run = read(tree, tmp_path, "exp")
    assert paths(run) == ["checkpoints/step_10"]


def test_checkpoints_with_a_date_in_their_name(tree: MakeTree, tmp_path: Path) -> None:
    for name in ("ckpt_2026-01-02_step_20", "ckpt_2026-01-03_step_100"):
        safetensors(tmp_path / name / "model.safetensors")
    run = read(tree, tmp_path)
    assert {item.step for item in run.checkpoints} == {100, 20}
    # Two dates may mean two trainings, and their steps do not tell which is newer.
    assert "dates" in run.undecided and len(run.choices) == 2


def test_numbered_parts_of_a_checkpoint_are_not_others(tree: MakeTree, tmp_path: Path) -> None:
    for step in (1, 2):
        for expert in (1, 2, 3):
            safetensors(tmp_path / f"checkpoints/step_{step}/models/policy_{expert}.safetensors")
            safetensors(tmp_path / f"checkpoints/step_{step}/actor/model.safetensors")
    run = read(tree, tmp_path)
    assert paths(run) == ["checkpoints/step_2", "checkpoints/step_1"]


def test_two_runs_are_two(tree: MakeTree, tmp_path: Path) -> None:
    for name in ("a", "b"):
        safetensors(tmp_path / name / "checkpoints/step_10/model.safetensors")
    assert Generic().find(tree(tmp_path)) == ["a", "b"]


def test_numbers_that_no_integer_holds(tree: MakeTree, tmp_path: Path) -> None:
    safetensors(tmp_path / "step_1/model.safetensors")
    safetensors(tmp_path / f"step_{'9' * 200}/model.safetensors")
    assert paths(read(tree, tmp_path)) == ["step_1"]


def test_a_directory_behind_a_link_counts_once(tree: MakeTree, tmp_path: Path) -> None:
    safetensors(tmp_path / "step_1/model.safetensors")
    (tmp_path / "step_2").symlink_to("step_1")
    (tmp_path / "step_3").symlink_to("step_3")
    assert paths(read(tree, tmp_path)) == ["step_1"]


@pytest.mark.parametrize(
    ("names", "final"),
    [
        # ACT, TD-MPC2, ManiSkill, Detectron2, Ultralytics, walk-these-ways.
        (
            ["policy_epoch_0_seed_0.ckpt", "policy_epoch_200_seed_0.ckpt", "policy_last.ckpt"],
            "policy_last.ckpt",
        ),
        (["models/100000.pt", "models/200000.pt", "models/final.pt"], "models/final.pt"),
        (["ckpt_1.pt", "ckpt_101.pt", "final_ckpt.pt"], "final_ckpt.pt"),
        (["model_0004999.pth", "model_0009999.pth", "model_final.pth"], "model_final.pth"),
        (["weights/epoch0.pt", "weights/last.pt", "weights/best.pt"], "weights/last.pt"),
        (["ac_weights_000800.pt", "ac_weights_last.pt"], "ac_weights_last.pt"),
        (["latest.pt"], "latest.pt"),
        (["model_last.pt", "model_final.pt", "model_9.pt"], "model_final.pt"),
        (["ppo.cleanrl_model"], "ppo.cleanrl_model"),
    ],
)
def test_what_says_it_is_the_end_is(tree: MakeTree, tmp_path: Path, names: list[str], final: str) -> None:
    for name in names:
        save(tmp_path / name, {}, name.encode())
    run = read(tree, tmp_path)
    assert paths(run)[0] == final
    assert (run.checkpoints[0].step, run.checkpoints[0].role) == (None, "final")
    assert not any("best" in path for path in paths(run))


def test_a_copy_of_a_numbered_one_is_that_one(tree: MakeTree, tmp_path: Path) -> None:
    for step in (9, 100):
        save(tmp_path / f"model_{step}.pth", {}, b"%d" % step)
    save(tmp_path / "model_latest.pth", {}, b"100")
    (tmp_path / "model_last.pth").symlink_to("model_9.pth")
    run = read(tree, tmp_path)
    assert paths(run) == ["model_100.pth", "model_9.pth"]


def test_the_step_inside_places_what_says_it_is_the_end(tree: MakeTree, tmp_path: Path) -> None:
    for step in (9, 100):
        save(tmp_path / f"model_{step}.pth", {"epoch": 1, "iteration": step}, b"%d" % step)
    save(tmp_path / "latest.pth", {"epoch": 1, "iteration": 50}, b"stale")
    assert [(item.path, item.step) for item in read(tree, tmp_path).checkpoints] == [
        ("model_100.pth", 100),
        ("latest.pth", 50),
        ("model_9.pth", 9),
    ]
    save(tmp_path / "latest.pth", {"epoch": 1, "iteration": 120}, b"newer")
    assert [item.step for item in read(tree, tmp_path).checkpoints] == [120, 100, 9]
    for name, step in (("step-9", 9), ("final", 12)):
        save(tmp_path / "folders" / name / "lit_model.pth", {"step": step}, b"%d" % step)
    folders = Generic().read(tree(tmp_path / "folders"))
    assert [item.step for item in folders.checkpoints] == [12, 9]


def test_a_folder_that_says_so_beside_numbered_ones(tree: MakeTree, tmp_path: Path) -> None:
    for seed, name in enumerate(("out/step-9", "out/step-100", "out/final", "other/final")):
        safetensors(tmp_path / name / "lit_model.safetensors", seed)
    assert paths(read(tree, tmp_path, "out")) == ["final", "step-100", "step-9"]


def test_a_folder_that_says_it_is_the_end(tree: MakeTree, tmp_path: Path) -> None:
    for seed, name in enumerate(("step_9", "step_100", "final", "best")):
        safetensors(tmp_path / "checkpoints" / name / "model.safetensors", seed)
    assert paths(read(tree, tmp_path)) == ["checkpoints/final", "checkpoints/step_100", "checkpoints/step_9"]
    safetensors(tmp_path / "checkpoints/final/model.safetensors", 1)
    assert paths(read(tree, tmp_path)) == ["checkpoints/step_100", "checkpoints/step_9"]


@pytest.mark.parametrize(
    ("names", "steps"),
    [
        (
            ["model_100k.pt", "model_900k.pt", "model_1M.pt", "model_1.5M.pt"],
            [1500000, 1000000, 900000, 100000],
        ),
        (["checkpoints/500k.pt", "checkpoints/2M.pt"], [2000000, 500000]),
        (["ckpt_100k_steps.pt", "ckpt_2m_steps.pt"], [2000000, 100000]),
        (["step_100k/policy.pt", "step_1000k/policy.pt"], [1000000, 100000]),
        # Eight digits that are not a date.
        (["checkpoints/1024000/model.pt", "checkpoints/20971520/model.pt"], [20971520, 1024000]),
        (["checkpoints/000020000000/model.pt", "checkpoints/9/model.pt"], [20000000, 9]),
    ],
)
def test_large_steps(tree: MakeTree, tmp_path: Path, names: list[str], steps: list[int]) -> None:
    for name in names:
        write_bytes(tmp_path / name)
    assert [item.step for item in read(tree, tmp_path).checkpoints] == steps


def test_jobs_of_a_sweep_are_runs(tree: MakeTree, tmp_path: Path) -> None:
    for job in ("0", "1"):
        write_bytes(tmp_path / f"multirun/{job}/.hydra/config.yaml", b"seed: 1\n")
        write_bytes(tmp_path / f"multirun/{job}/model_100.pt")
        write_bytes(tmp_path / f"multirun/{job}/model_200.pt")
        # The second way to recognise a run: a model and the event files of its training.
        write_bytes(tmp_path / f"other/{job}/model.pt")
        write_bytes(tmp_path / f"other/{job}/events.out.tfevents.1.vm.1.0")
    assert Generic().find(tree(tmp_path)) == ["multirun/0", "multirun/1"]


def seeds(folder: Path, numbers: tuple[int, ...], *files: str) -> None:
    for number in numbers:
        for file in files:
            data = b"lr: 1\n" if file.endswith((".yaml", ".csv")) else b"%d" % number
            write_bytes(folder / str(number) / file, data)


EVENTS = "events.out.tfevents.1.vm.1.0"


@pytest.mark.parametrize(
    ("files", "policy"),
    [
        (("model.pt", "config.yaml", f"tb/{EVENTS}"), "model.pt"),
        (("final_model.pt", f"deep/er/{EVENTS}"), "final_model.pt"),
        (("final_model.pt",), "final_model.pt"),
        # No event file: recognised by consecutive numbers, each with its configuration.
        (("model.pt", "config.yaml", "metrics.csv"), "model.pt"),
    ],
)
def test_seeds_are_runs(tree: MakeTree, tmp_path: Path, files: tuple[str, ...], policy: str) -> None:
    seeds(tmp_path / "walker", (1, 2, 3), *files)
    assert Generic().find(tree(tmp_path)) == ["walker/1", "walker/2", "walker/3"]
    with pytest.raises(UsageError, match=r"3 runs: walker/1 .*, walker/2 .*, walker/3"):
        find_run(tree(tmp_path))
    # If the runs have logs, a folder name that mentions a policy changes nothing.
    if any(EVENTS in file for file in files):
        (tmp_path / "walker").rename(tmp_path / "walker_policy")
        assert len(Generic().find(tree(tmp_path))) == 3
        (tmp_path / "walker_policy").rename(tmp_path / "walker")
    # The error's advice works.
    assert paths(read(tree, tmp_path / "walker/2")) == [policy]


def test_runs_in_folders_named_for_their_start(tree: MakeTree, tmp_path: Path) -> None:
    """As Tianshou's examples log: the seed, then the time."""
    for name in ("260102-030405", "260103-030405"):
        write_bytes(tmp_path / "sac/0" / name / "policy.pth")
        write_bytes(tmp_path / "sac/0" / name / EVENTS)
    assert Generic().find(tree(tmp_path)) == ["sac/0/260102-030405", "sac/0/260103-030405"]
    assert paths(read(tree, tmp_path / "sac/0/260102-030405")) == ["policy.pth"]
    for number in (1, 10):
        write_bytes(tmp_path / f"sac/0/260103-030405/checkpoint_{number}.pth")
    run = Generic().read(tree(tmp_path).below("sac/0/260103-030405"))
    assert paths(run) == ["checkpoint_10.pth", "checkpoint_1.pth"]


def test_numbered_checkpoints_with_a_configuration_of_their_own(tree: MakeTree, tmp_path: Path) -> None:
    # In a folder of checkpoints; numbers with gaps; a model's configuration; with logs of the run above.
    seeds(tmp_path / "a/checkpoints", (1, 2, 3), "model.pt", "config.yaml", EVENTS)
    seeds(tmp_path / "b", (1000, 2000), "model.pt", "config.yaml")
    seeds(tmp_path / "c", (1, 2, 3), "model.pt", "config.json")
    seeds(tmp_path / "d", (1, 2, 3), "model.pt", "config.yaml")
    write_bytes(tmp_path / "d" / EVENTS)
    seeds(tmp_path / "e", (1, 2, 3), "model_final.pt")
    write_bytes(tmp_path / "e/progress.csv")
    assert Generic().find(tree(tmp_path)) == ["a", "b", "c", "d", "e"]
    assert [item.step for item in read(tree, tmp_path / "d").checkpoints] == [3, 2, 1]


def test_the_one_policy_of_a_training(tree: MakeTree, tmp_path: Path) -> None:
    write_bytes(tmp_path / "a/checkpoint.ckpt")
    write_bytes(tmp_path / "a/config.yaml", b"lr: 1\n")
    assert Generic().find(tree(tmp_path)) == []
    write_bytes(tmp_path / "a" / EVENTS)
    run = read(tree, tmp_path, "a")
    assert [(item.path, item.step, item.role) for item in run.checkpoints] == [
        ("checkpoint.ckpt", None, "unknown")
    ]
    # It does not count next to numbered ones. Data or a shard is not a run at all.
    write_bytes(tmp_path / "a/saved/policy_10.pt")
    assert paths(Generic().read(tree(tmp_path / "a"))) == ["saved/policy_10.pt"]
    for name in ("train_features.pt", "model-00001-of-00002.safetensors", "encoder.pt"):
        shutil.rmtree(tmp_path)
        for each in (name, "config.yaml", EVENTS):
            write_bytes(tmp_path / each)
        assert Generic().find(tree(tmp_path)) == []


def test_temporary_files(tree: MakeTree, tmp_path: Path) -> None:
    for name in ("policy_100.pth", "policy_200_tmp.pth", ".policy_300.pth"):
        write_bytes(tmp_path / name)
    run = read(tree, tmp_path)
    assert [(item.step, item.problem == "") for item in run.checkpoints] == [
        (300, False),
        (200, False),
        (100, True),
    ]


def test_a_folder_with_a_name_of_its_own_speaks_for_its_files(tree: MakeTree, tmp_path: Path) -> None:
    for part in ("actor", "critic", "opt"):
        write_bytes(tmp_path / f"model/{part}_10.pt")
    run = read(tree, tmp_path, "model")
    assert run.checkpoints[0].files == ("actor_10.pt", "critic_10.pt")
    assert run.checkpoints[0].left_out == (("opt_10.pt", "optimizer state"),)


def test_files_of_a_task_in_the_folder_of_checkpoints(tree: MakeTree, tmp_path: Path) -> None:
    for name in (
        "beat_block-demo_clean-50-0/300.ckpt",
        "beat_block-demo_clean-50-0/600.ckpt",
        "demos/1.ckpt",
    ):
        write_bytes(tmp_path / "checkpoints" / name)
    run = read(tree, tmp_path, "checkpoints/beat_block-demo_clean-50-0")
    assert paths(run) == ["600.ckpt", "300.ckpt"]


def test_logs_beside_the_checkpoints_belong_to_the_run(tree: MakeTree, tmp_path: Path) -> None:
    write_bytes(tmp_path / "exp/trained/a/ppo_step_10.pt")
    write_bytes(tmp_path / "exp/tb/a/events.out.tfevents.1.vm.1.0")
    run = read(tree, tmp_path, "exp")
    assert paths(run) == ["trained/a/ppo_step_10.pt"]
    # A run without checkpoints is not the log folder of the run next to it.
    write_bytes(tmp_path / "failed/events.out.tfevents.1.vm.1.0")
    write_bytes(tmp_path / "other/step_10/model.pt")
    assert Generic().find(tree(tmp_path)) == ["exp", "other"]


@pytest.mark.parametrize(
    "folder", ["model", "policy", "trained_models", "my_ckpts", "pytorch_models", "checkpoint_p0", "out"]
)
@pytest.mark.parametrize("beside", [EVENTS, "config.yaml", "config.json", "dataset_stats.json"])
def test_the_folder_around_the_one_of_weights(
    tree: MakeTree, tmp_path: Path, folder: str, beside: str
) -> None:
    for step in (9, 100):
        write_bytes(tmp_path / f"exp/{folder}/policy_{step}.pt")
    assert Generic().find(tree(tmp_path)) == [f"exp/{folder}"]
    write_bytes(tmp_path / "exp" / beside, b"{}")
    write_bytes(tmp_path / "exp/best_model.pt")
    write_bytes(tmp_path / f"exp/.summary/0/{EVENTS}")
    write_bytes(tmp_path / "exp/pretrained/encoder.pt")
    run = read(tree, tmp_path, "exp")
    assert paths(run) == [f"{folder}/policy_100.pt", f"{folder}/policy_9.pt"]
    # A file named as the end may be next to the folder.
    write_bytes(tmp_path / "exp/policy_last.pt", b"last")
    assert paths(read(tree, tmp_path, "exp"))[0] == "policy_last.pt"


def test_the_folder_around_is_not_the_run_where_it_holds_others(tree: MakeTree, tmp_path: Path) -> None:
    # Two folders of weights; a run without weights; a single run.
    for name in ("a/model", "a/teacher", "b/model", "c/model"):
        write_bytes(tmp_path / name / "policy_100.pt")
    for name in (
        "a/config.yaml",
        f"b/failed/{EVENTS}",
        "b/config.yaml",
        "c/config.yaml",
        "c/model/config.yaml",
    ):
        write_bytes(tmp_path / name)
    assert Generic().find(tree(tmp_path)) == ["a/model", "a/teacher", "b/model", "c/model"]
    # Its configuration may be next to the weights if its log is in the folder above.
    write_bytes(tmp_path / "c" / EVENTS)
    assert Generic().find(tree(tmp_path)) == ["a/model", "a/teacher", "b/model", "c"]


def test_statistics_go_with_the_policy(tree: MakeTree, tmp_path: Path) -> None:
    write_bytes(tmp_path / "ckpt/policy_10.pt")
    for name in ("dataset_stats.pkl", "ckpt/norm_stats.json", "train_stats.json"):
        write_bytes(tmp_path / name, b"{}")
    assert read(tree, tmp_path).checkpoints[0].files == (
        "ckpt/norm_stats.json",
        "ckpt/policy_10.pt",
        "dataset_stats.pkl",
    )


def test_configuration_that_loading_requires_goes_with_the_policy(tree: MakeTree, tmp_path: Path) -> None:
    write_bytes(tmp_path / "checkpoints/policy_10.pt")
    loaded = ("config.json", "config.yaml", "example_batch.msgpack", "checkpoints/config.yml")
    for name in (*loaded, ".hydra/config.yaml", "configs/config.yaml", "args.json", "finetune_config.json"):
        write_bytes(tmp_path / name, b"{}")
    (checkpoint,) = read(tree, tmp_path).checkpoints
    assert set(checkpoint.files) == {*loaded, "checkpoints/policy_10.pt"}
    assert checkpoint.weights == ("checkpoints/policy_10.pt",)


def test_the_end_of_pfrl(tree: MakeTree, tmp_path: Path) -> None:
    for name in ("1000_checkpoint", "2000_checkpoint", "3000_finish", "best"):
        write_bytes(tmp_path / name / "model.pt")
        write_bytes(tmp_path / name / "optimizer.pt")
    assert paths(read(tree, tmp_path)) == ["3000_finish", "2000_checkpoint", "1000_checkpoint"]


def test_what_a_file_called_latest_names(tree: MakeTree, tmp_path: Path) -> None:
    """As DreamerV3 saves: a folder per time, and a file that is rewritten at the end of each save."""
    for name in ("20260102T030405F1", "20260102T040405F2", "20260102T050405F3"):
        write_bytes(tmp_path / "ckpt" / name / "agent.pkl")
        write_bytes(tmp_path / "ckpt" / name / "replay.pkl")
        write_bytes(tmp_path / "ckpt" / name / "done")
    write_bytes(tmp_path / "replay/20260102T030405-1.npz")
    assert Generic().find(tree(tmp_path)) == []
    for pointer in (b"", b"none", b"\xff", b"x" * 1000):
        write_bytes(tmp_path / "ckpt/latest", pointer)
        assert Generic().find(tree(tmp_path)) == []
    write_bytes(tmp_path / "ckpt/latest", b"20260102T040405F2\n")
    run = read(tree, tmp_path)
    # Another folder has a later time in its name, but its save had not ended.
    assert paths(run) == [
        "ckpt/20260102T050405F3",
        "ckpt/20260102T040405F2",
        "ckpt/20260102T030405F1",
    ]
    half, final, _ = run.checkpoints
    assert "still being saved" in half.problem
    assert final.step is None
    assert final.weights == ("ckpt/20260102T040405F2/agent.pkl",)
    assert final.left_out == (("ckpt/20260102T040405F2/replay.pkl", "replay buffer"),)
    # A training saves one at a time, so with two newer folders the file is old.
    write_bytes(tmp_path / "ckpt/20260102T060405F4/agent.pkl")
    run = read(tree, tmp_path)
    assert paths(run)[0] == "ckpt/20260102T060405F4" and not run.checkpoints[0].problem
    assert any("latest names ckpt/20260102T040405F2" in warning for warning in run.warnings)


def test_files_of_flax_have_no_suffix(tree: MakeTree, tmp_path: Path) -> None:
    for name in ("checkpoint_9", "checkpoint_100", "checkpoint_100.txt", "checkpoint"):
        write_bytes(tmp_path / name, b"\x81\xa1x\x01")
    run = read(tree, tmp_path)
    assert [(item.path, item.step) for item in run.checkpoints] == [
        ("checkpoint_100", 100),
        ("checkpoint_9", 9),
    ]
    assert run.checkpoints[0].files == ("checkpoint_100",)


def test_folders_of_megatron(tree: MakeTree, tmp_path: Path) -> None:
    for step in (500, 1000):
        for rank in (0, 1):
            write_bytes(tmp_path / f"iter_{step:07}/mp_rank_0{rank}/model_optim_rng.pt")
            write_bytes(tmp_path / f"iter_{step:07}/mp_rank_0{rank}/distrib_optim.pt")
    run = read(tree, tmp_path)
    assert [item.step for item in run.checkpoints] == [1000, 500]
    assert len(run.checkpoints[0].weights) == len(run.checkpoints[0].left_out) == 2


def test_stores_of_orbax(tree: MakeTree, tmp_path: Path) -> None:
    """As brax and mujoco_playground write them: the folder itself is the store."""
    (params,) = (Path(__file__).parents[1] / "data/runs/openpi_jax").glob("**/99/params")
    for step in ("000000000000", "000020971520"):
        shutil.copytree(params, tmp_path / "checkpoints" / step)
        write_bytes(tmp_path / "checkpoints" / step / "ppo_network_config.json", b"{}")
    run = read(tree, tmp_path)
    assert [(item.step, item.problem) for item in run.checkpoints] == [(20971520, ""), (0, "")]
    assert any("/ocdbt.process_0/d/" in path for path in run.checkpoints[0].weights)
    for path in (tmp_path / "checkpoints/000020971520").glob("**/d/*"):
        path.write_bytes(path.read_bytes()[:20])
    assert "is truncated" in read(tree, tmp_path).checkpoints[0].problem


def test_shards_of_torch_distributed(tree: MakeTree, tmp_path: Path) -> None:
    for step in (1, 2):
        write_bytes(tmp_path / f"checkpoints/step-{step}/__0_0.distcp")
        write_bytes(tmp_path / f"checkpoints/step-{step}/.metadata")
    (tmp_path / "checkpoints/step-2/.metadata").unlink()
    assert [item.problem == "" for item in read(tree, tmp_path).checkpoints] == [False, True]


def test_folders_of_rllib(tree: MakeTree, tmp_path: Path) -> None:
    module = "learner_group/learner/rl_module/default_policy/module_state.pkl"
    for number in (1, 2):
        write_bytes(tmp_path / f"PPO_0/checkpoint_{number:06}" / module)
        write_json(tmp_path / f"PPO_0/checkpoint_{number:06}/rllib_checkpoint.json", {})
    run = read(tree, tmp_path, "PPO_0")
    assert paths(run) == ["checkpoint_000002", "checkpoint_000001"]
    assert run.checkpoints[0].weights == (f"checkpoint_000002/{module}",)
