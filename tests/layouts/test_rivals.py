"""Two different checkpoints of the same step, and folders that were designed to mislead."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aml_mirror.core.errors import DataError, UsageError
from aml_mirror.layouts import find_run
from aml_mirror.pipeline.select import choose
from builders import declared_runs
from builders.numbered_runs import (
    Save,
    folder,
    groot,
    huggingface,
    lerobot,
    lightning,
    plain,
    planned,
    rlinf,
    robomimic,
    rsl_rl,
    skrl,
    stable_baselines3,
    tree_of,
    write_numbered,
)
from builders.saved import safetensors, write_bytes, write_json

FEW = settings(max_examples=50)  # each example is a folder on the disk
STEPS = st.lists(st.integers(1, 10**6), min_size=1, max_size=3, unique=True).map(sorted)


def state(path: Path, step: int) -> None:
    write_json(path / "trainer_state.json", {"global_step": step, "max_steps": step})


def root_model(path: Path, step: int, seed: int = 0) -> None:
    huggingface(path, step, seed)
    state(path, step)


# (what saves a checkpoint, its name, what saves another one of the same step, its names)
SAME_STEP: tuple[tuple[Save, str, Save, tuple[str, ...]], ...] = (
    (huggingface, "checkpoint-{}", root_model, (".", "checkpoint-final", "final_model", "checkpoint-last")),
    (groot, "checkpoint-{}", root_model, (".", "checkpoint-final")),
    (
        lerobot,
        "checkpoints/{:06d}",
        lerobot,
        ("checkpoints/final", "checkpoints/last", "checkpoints/final_model"),
    ),
    (
        lightning,
        "checkpoints/epoch=1-step={}.ckpt",
        lightning,
        ("checkpoints/final.ckpt", "checkpoints/last.ckpt"),
    ),
    (rsl_rl, "model_{}.pt", rsl_rl, ("model_final.pt", "final/model.pt")),
    (stable_baselines3, "ppo_{}.zip", stable_baselines3, ("final.zip", "model.zip", "final/model.zip")),
    (rlinf, "checkpoints/global_step_{}", rlinf, ("checkpoints/final", "checkpoints/global_step_last")),
    (skrl, "checkpoints/agent_{}.pt", skrl, ("agent_last.pt", "checkpoints/final/agent.pt")),
)


def picks(error: UsageError) -> list[str]:
    return [pick.strip("'") for pick in re.findall(r"--checkpoint ('[^']*'|[^ ,]+)", error.hint)]


@FEW
@given(steps=STEPS, which=st.sampled_from(SAME_STEP), copy=st.booleans(), data=st.data())
def test_other_weights_of_the_newest_step_are_undecided_and_copies_are_not(steps, which, copy, data):
    save, numbered, save_end, ends = which
    end = data.draw(st.sampled_from(ends))
    with folder() as root:
        write_numbered(root, numbered, steps, save)
        save_end(root / end, steps[-1], 0 if copy else 7)
        tree, run, _ = planned(root)
        if copy:
            (chosen,) = choose(tree, run, "final")
            assert chosen.checkpoint.step == steps[-1]
            return
        with pytest.raises(UsageError) as raised:
            list(choose(tree, run, "final"))
        offered = picks(raised.value)
        assert len(offered) == 2
        for pick in offered:
            (chosen,) = choose(tree, run, pick)
            assert chosen.checkpoint.path == pick.removeprefix("./")
        # Each of them is one of the existing files.
        everything = {item.checkpoint.path for item in choose(tree, run, "all")}
        assert {pick.removeprefix("./") for pick in offered} <= everything


# --- kept for its score ---------------------------------------------------------------------------------


@FEW
@given(
    name=st.sampled_from(
        ["best", "best_{}", "model_best", "model_{}_best", "best-{}", "top_{}", "top1_{}", "bestmodel"]
    ),
    step=st.integers(1, 10**6),
    steps=STEPS,
    beside=st.booleans(),
)
def test_what_is_kept_for_its_score_is_not_called_final(name, step, steps, beside):
    with folder() as root:
        best = f"checkpoints/{name.format(step)}.pt"
        plain(root / best, step, 9)
        write_bytes(root / "config.yaml", b"lr: 0.1\n")
        if beside:
            write_numbered(root, "checkpoints/model_{}.pt", steps)
        try:
            tree = tree_of(root)
            run = find_run(tree).read(tree)
            (chosen,) = choose(tree, run, "final")
        except (DataError, UsageError):
            return
        assert chosen.checkpoint.path != best or chosen.checkpoint.role == "unknown"


# --- frameworks that a declaration describes -------------------------------------------------------------

DECLARED: dict[str, tuple[str, dict[str, object], tuple[str, ...]]] = {
    "fasttd3": ("models/h1-walk__FastTD3__1_{}.pt", {"actor_state_dict": 0, "global_step": 5}, ()),
    "act": ("policy_epoch_{}_seed_3.ckpt", {}, ("dataset_stats.pkl",)),
    "prismatic": (
        "checkpoints/step-{:06d}-epoch-01-loss=0.5000.pt",
        {},
        ("config.json", "dataset_statistics.json"),
    ),
    "protomotions": ("epoch_{}.ckpt", {}, ("resolved_configs_inference.pt",)),
    "tianshou": (
        "log/Ant/ppo/0/260102-030405/checkpoint_{}.pth",
        {},
        ("log/Ant/ppo/0/260102-030405/events.out.tfevents.1.h",),
    ),
    "tdmpc2": ("models/{}.pt", {"model": 0}, ("eval.csv",)),
    "rllib": ("checkpoint_{:06d}/algorithm_state.pkl", {}, ()),
    "rlinf": ("checkpoints/global_step_{}/actor/model_state_dict/full_weights.pt", {}, ()),
}


@FEW
@given(name=st.sampled_from(sorted(DECLARED)), steps=STEPS)
def test_the_newest_of_a_declared_framework_is_one_file_or_folder_of_its_own(name, steps):
    numbered, values, beside = DECLARED[name]
    with folder() as root:
        for step in steps:
            more = {**values, "step": step, **({"epoch": step} if name == "protomotions" else {})}
            path = root / numbered.format(step)
            declared_runs.weights(path, step, **more)
            if name == "rllib":
                declared_runs.weights(path.parent / "learner_group/learner/rl_module/p/module_state.pt", step)
                write_json(path.parent / "rllib_checkpoint.json", {"type": "Algorithm"})
        for item in beside:
            write_json(root / item, {"model": {}}) if item.endswith(".json") else write_bytes(root / item)
        tree, run, layout = planned(root)
        assert layout == name
        (chosen,) = choose(tree, run, "final")
        checkpoint = chosen.checkpoint
        assert checkpoint.step == (None if name == "rllib" else steps[-1])
        newest = numbered.format(steps[-1]).removeprefix(tree.root + "/" if tree.root else "")
        assert newest.startswith(checkpoint.path)
        assert all(path.startswith(checkpoint.path) for path in checkpoint.weights)


# --- made up by an adversary: (what writes the folder, what is right: a path, or 64) -----------------------


def last_with_a_number(root: Path) -> None:
    write_numbered(root, "checkpoints/policy_{}.pt", [1000, 2000])
    plain(root / "checkpoints/policy_last_2.pt", 3)


def run_in_a_run_of_no_framework(root: Path) -> None:
    write_numbered(root, "checkpoints/policy_{}.pt", [10, 20])
    write_numbered(root, "rsl_rl/run/model_{}.pt", [10, 20], rsl_rl)


def run_in_its_checkpoints(root: Path) -> None:
    write_numbered(root, "model_{}.pt", [10, 20], rsl_rl)
    write_numbered(root, "checkpoints/stage2/model_{}.pt", [5], rsl_rl)


def modules_of_another_training(root: Path) -> None:
    plain(root / "checkpoints/policy_900.pt", 900)
    plain(root / "checkpoints/discriminator_1000.pt", 1000)


def root_of_an_accelerate_script(root: Path) -> None:
    for step in (10, 20):
        huggingface(root / f"checkpoint-{step}", step)
        (root / f"checkpoint-{step}/trainer_state.json").unlink()
        safetensors(root / f"checkpoint-{step}/ema/model.safetensors", step + 7)
    safetensors(root / "model.safetensors", 77)
    write_json(root / "config.json", {})


def bare_weights_at_the_end(root: Path) -> None:
    write_numbered(root, "checkpoints/epoch=1-step={}.ckpt", [100, 200], lightning)
    plain(root / "checkpoints/model_final.pt", 9)


def policy_in_the_root_of_lerobot(root: Path) -> None:
    write_numbered(root, "checkpoints/{:06d}", [100, 200], lerobot)
    lerobot(root, 200, 7)
    shutil.rmtree(root / "training_state")


def two_ends_of_tdmpc2(root: Path) -> None:
    for seed, name in enumerate(("final", "model_final")):
        declared_runs.weights(root / f"models/{name}.pt", seed, model=0)
    write_bytes(root / "eval.csv", b"step,episode_reward\n0,1.5\n")


def note_of_the_last_save(root: Path) -> None:
    write_numbered(root, "checkpoints/model/iter_{:09d}.pt", [100, 200])
    write_bytes(root / "checkpoints/latest_checkpoint.txt", b"iter_000000100.pt")
    write_bytes(root / "config.yaml", b"lr: 0.1\n")


def old_note(root: Path) -> None:
    for step in (100, 200, 300):
        safetensors(root / f"checkpoints/global_step_{step}/model.safetensors", step)
    write_bytes(root / "checkpoints/latest_checkpointed_iteration.txt", b"100")


def steps_with_adapters(root: Path) -> None:
    for step in (10, 20):
        safetensors(root / f"ckpts/step_{step}/adapter_model.safetensors", step)
        write_json(root / f"ckpts/step_{step}/adapter_config.json", {"base_model_name_or_path": "org/pi0"})


def lone_end(root: Path) -> None:
    plain(root / "pick_1_final/model.pt", 3)


def seeds_of_td3(root: Path) -> None:
    for seed in (0, 3):
        for part in ("actor", "critic", "actor_optimizer"):
            plain(root / f"models/TD3_Walker2d-v4_{seed}_{part}.pth", seed, len(part))


def pipeline_in_the_root(root: Path) -> None:
    for step in (500, 1000):
        safetensors(root / f"checkpoint-{step}/unet/diffusion_pytorch_model.safetensors", step)
        write_bytes(root / f"checkpoint-{step}/random_states_0.pkl", b"\x80\x04N.")
    safetensors(root / "unet/diffusion_pytorch_model.safetensors", 1500)
    write_json(root / "model_index.json", {"unet": ["diffusers", "UNet"]})


def policies_of_two_folders(root: Path) -> None:
    write_numbered(root, "rl_model_{}_steps.zip", [100, 200], stable_baselines3)
    write_numbered(root, "adversary/rl_model_{}_steps.zip", [900], stable_baselines3)


def stage_in_a_folder_of_an_end(root: Path) -> None:
    write_numbered(root, "checkpoint-{}", [100, 200], huggingface)
    write_numbered(root, "final_stage/checkpoint-{}", [10], huggingface)


def student_without_a_log(root: Path) -> None:
    write_numbered(root, "model_{}.pt", [10, 20], rsl_rl)
    write_numbered(root, "student/policy_{}.pt", [10, 20])


def steps_of_sample_factory(root: Path) -> None:
    for updates, frames in ((500, 2048000), (978, 4005888)):
        plain(root / f"checkpoint_p0/checkpoint_{updates:09d}_{frames}.pth", updates)


def one_more_file(root: Path) -> None:
    write_numbered(root, "checkpoints/{:06d}", [100, 200, 300], lerobot)
    write_bytes(root / "checkpoints/000300/pretrained_model/model.safetensors.d5a5bb1f.partial")
    write_bytes(root / "checkpoints/000300/pretrained_model/notes.txt")
    (root / "checkpoints/000300/pretrained_model/model.safetensors").unlink()


def series_in_numbered_folders(root: Path) -> None:
    for seed in (1, 2):
        write_numbered(root, f"ckpt/{seed}/policy_step_{{}}.pt", [100 * seed, 900])


def folders_that_contradict_their_files(root: Path) -> None:
    plain(root / "ckpt/1/policy-209.pt", 1)
    plain(root / "ckpt/2/policy-193.pt", 2)


def end_in_a_numbered_folder(root: Path) -> None:
    for job in (81, 82):
        for name in ("policy", "final"):
            plain(root / f"models/{job}/{name}.pt", job, len(name))


def number_of_a_job(root: Path) -> None:
    write_numbered(root, "checkpoints/8123_checkpoint_iter_{}.pt", [63, 445])
    write_numbered(root, "checkpoints/8124_checkpoint_iter_{}.pt", [165, 474])


def checkpoint_that_counts_no_saves(root: Path) -> None:
    write_numbered(root, "checkpoints/checkpoint_1_step{}.pt", [28, 872])
    write_numbered(root, "checkpoints/checkpoint_2_step{}.pt", [214, 649])


def words_of_counters_alone(root: Path) -> None:
    write_numbered(root, "models/ep-ppo-step{}.pt", [501, 557])
    write_numbered(root, "models/it-ppo-step{}.pt", [45, 57])


def learning_rates(root: Path) -> None:
    for rate in (3, 4):
        plain(root / f"ckpt/lr1e-{rate}/policy.pt", rate)


def end_without_a_word_of_a_model(root: Path) -> None:
    write_numbered(root, "ckpt/go2/go2_ppo_step{}.pt", [64, 509])
    plain(root / "ckpt/go2/go2_ppo_final.pt", 7)


def end_of_an_iteration(root: Path) -> None:
    write_numbered(root, "weights/ppo_iter1_{}steps.pt", [844, 883])
    plain(root / "weights/ppo_iter1_final.pt", 7)


def layers_of_a_pipeline(root: Path) -> None:
    for step in (500, 1000):
        write_numbered(root, f"ckpt/global_step_{step}/layer_{{:03d}}-model_states.pt", [0, 1, 120])


@pytest.mark.parametrize(
    ("write", "right"),
    [
        (layers_of_a_pipeline, "ckpt/global_step_1000"),
        (series_in_numbered_folders, None),
        (folders_that_contradict_their_files, None),
        (end_in_a_numbered_folder, None),
        (number_of_a_job, None),
        (checkpoint_that_counts_no_saves, None),
        (words_of_counters_alone, None),
        (learning_rates, None),
        (end_without_a_word_of_a_model, "go2_ppo_final.pt"),
        (end_of_an_iteration, "weights/ppo_iter1_final.pt"),
        (seeds_of_td3, None),
        (pipeline_in_the_root, None),
        (policies_of_two_folders, None),
        (stage_in_a_folder_of_an_end, None),
        (student_without_a_log, None),
        (steps_of_sample_factory, "checkpoint_000000978_4005888.pth"),
        (one_more_file, "checkpoints/000200/pretrained_model"),
        (last_with_a_number, None),
        (run_in_a_run_of_no_framework, None),
        (run_in_its_checkpoints, None),
        (modules_of_another_training, None),
        (root_of_an_accelerate_script, None),
        (bare_weights_at_the_end, None),
        (policy_in_the_root_of_lerobot, None),
        (two_ends_of_tdmpc2, None),
        (note_of_the_last_save, "checkpoints/model/iter_000000100.pt"),
        (old_note, "checkpoints/global_step_300"),
        (steps_with_adapters, "ckpts/step_20"),
        (lone_end, "pick_1_final"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_folders_of_an_adversary(tmp_path: Path, write, right) -> None:
    root = tmp_path / "input"
    write(root)
    if right is None:
        with pytest.raises(UsageError) as raised:
            tree, run, _ = planned(root)
            list(choose(tree, run, "final"))
        assert raised.value.hint
        return
    tree, run, _ = planned(root)
    (chosen,) = choose(tree, run, "final")
    assert chosen.checkpoint.path == right


def test_a_policy_takes_the_statistics_of_its_number_with_it(tmp_path: Path) -> None:
    for step in (100, 200):
        plain(tmp_path / f"checkpoints/actor_{step}.pt", step)
        plain(tmp_path / f"checkpoints/obs_rms_{step}.pt", step, 3)
        write_bytes(tmp_path / f"checkpoints/vecnormalize_{step}.pkl", b"\x80\x04N.")
    tree, run, _ = planned(tmp_path)
    (chosen,) = choose(tree, run, "final")
    assert chosen.checkpoint.files == tuple(
        f"checkpoints/{name}" for name in ("actor_200.pt", "obs_rms_200.pt", "vecnormalize_200.pkl")
    )


def test_torch_distributed_beside_the_whole_model_is_left_out(tmp_path: Path) -> None:
    for step in (10, 20):
        safetensors(tmp_path / f"checkpoints/step_{step}/model.safetensors", step)
        write_bytes(tmp_path / f"checkpoints/step_{step}/dcp/__0_0.distcp", b"x" * 90)
        write_bytes(tmp_path / f"checkpoints/step_{step}/dcp/.metadata")
    tree, run, _ = planned(tmp_path)
    (chosen,) = choose(tree, run, "final")
    assert chosen.checkpoint.files == ("checkpoints/step_20/model.safetensors",)
    assert [path for path, _ in chosen.checkpoint.left_out] == [
        "checkpoints/step_20/dcp/.metadata",
        "checkpoints/step_20/dcp/__0_0.distcp",
    ]


def test_an_end_of_a_fork_has_what_its_framework_needs(tmp_path: Path) -> None:
    for step in (300, 600, "final"):
        for seed, module in enumerate(("policy", "value", "state_preprocessor")):
            plain(tmp_path / f"checkpoints/{module}_{step}.pt", 9 if step == "final" else int(step), seed)
    tree, run, layout = planned(tmp_path)
    assert layout == "skrl"
    (chosen,) = choose(tree, run, "checkpoints/policy_final.pt")
    assert chosen.checkpoint.files == (
        "checkpoints/policy_final.pt",
        "checkpoints/state_preprocessor_final.pt",
    )


def kept_by_lightning(root: Path) -> None:
    for epoch, score in ((3, "0.31"), (7, "0.12")):
        lightning(root / f"checkpoints/epoch={epoch}-val_loss={score}.ckpt", epoch * 100)


def kept_by_robomimic(root: Path) -> None:
    robomimic(root / "models/model_epoch_50_best_validation_0.12.pth", 50)


def kept_by_groot(root: Path) -> None:
    groot(root / "checkpoint-40-best-eval_loss_3.34", 40)
    write_json(root / "checkpoint-40-best-eval_loss_3.34/experiment_cfg/conf.json", {})


@pytest.mark.parametrize("write", [kept_by_lightning, kept_by_robomimic, kept_by_groot])
def test_where_only_the_best_are_left_none_is_called_final(tmp_path: Path, write) -> None:
    root = tmp_path / "input"
    write(root)
    tree, run, _ = planned(root)
    assert any("best" in warning for warning in run.warnings)
    try:
        (chosen,) = choose(tree, run, "final")
    except DataError as error:
        assert "best" in error.hint
    else:
        assert chosen.checkpoint.role == "unknown"


def test_files_that_are_all_there_were_not_kept_for_their_scores(tmp_path: Path) -> None:
    for epoch in (1, 2, 3, 4):
        lightning(tmp_path / f"checkpoints/epoch={epoch}-val_loss=0.{epoch}.ckpt", epoch * 100)
    _, run, _ = planned(tmp_path)
    assert run.checkpoints[0].role == "final" and not run.warnings


def test_an_old_last_of_robomimic_is_told(tmp_path: Path) -> None:
    for epoch in (100, 300):
        robomimic(tmp_path / f"models/model_epoch_{epoch}.pth", epoch)
    robomimic(tmp_path / "last.pth", 100)
    _, run, _ = planned(tmp_path)
    assert run.checkpoints[0].step == 300
    assert "last.pth contains epoch 100" in run.warnings[0]


def test_a_hint_never_proposes_a_part_of_a_model(tmp_path: Path) -> None:
    for part in ("llm", "mm_projector", "vision_tower"):
        safetensors(tmp_path / f"out/{part}/model.safetensors", len(part))
    with pytest.raises(DataError) as raised:
        find_run(tree_of(tmp_path))
    assert "--checkpoint 'out'" in raised.value.hint


def test_a_hint_takes_a_folder_of_digits_as_a_path(tmp_path: Path) -> None:
    openpi = tmp_path / "input"
    shutil.copytree(Path(__file__).parents[1] / "data/runs/openpi_torch/checkpoints/pi0_libero/exp1", openpi)
    write_numbered(openpi / "student", "model_{}.pt", [10], rsl_rl)
    with pytest.raises(UsageError) as raised:
        find_run(tree_of(openpi))
    assert "--checkpoint ./99" in raised.value.hint
    assert find_run(tree_of(openpi), path="99").layout.name == "openpi"


def test_what_no_layout_lists_has_what_every_checkpoint_has(tmp_path: Path) -> None:
    write_numbered(tmp_path, "models/model_epoch_{}.pth", [10, 20], robomimic)
    write_bytes(tmp_path / "logs/normalization_params.txt")
    plain(tmp_path / "tuned/mine.pth", 7)
    tree, run, _ = planned(tmp_path)
    (chosen,) = choose(tree, run, "tuned/mine.pth")
    assert chosen.checkpoint.files == ("logs/normalization_params.txt", "tuned/mine.pth")


def test_the_one_best_file_beside_the_newest_is_the_best(tmp_path: Path) -> None:
    write_numbered(tmp_path, "checkpoints/agent_{}.pt", [10, 20])
    plain(tmp_path / "checkpoints/agent_best.pt", 7)
    _, run, _ = planned(tmp_path)
    assert run.best is not None and run.best.path == "checkpoints/agent_best.pt"
