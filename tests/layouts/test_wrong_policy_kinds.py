"""Invented runs of known frameworks: what inference needs, old ``last``, nested runs, adapters."""

from __future__ import annotations

import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aml_mirror.core.errors import UsageError
from aml_mirror.layouts import find_run, find_runs
from aml_mirror.layouts.adapters import base_model_of
from aml_mirror.metrics.series import read_metrics
from aml_mirror.pipeline.select import choose
from builders.declared_runs import copied_store, weights
from builders.numbered_runs import (
    brax,
    folder,
    groot,
    huggingface,
    lerobot,
    lightning,
    planned,
    rlinf,
    robomimic,
    rsl_rl,
    stable_baselines3,
    torch_file,
    tree_of,
    write_numbered,
)
from builders.runs import write_events
from builders.saved import safetensors, write_bytes, write_json

# Each example is a folder on the disk.
FEW = settings(max_examples=50)
STEPS = st.lists(st.integers(1, 10**6), min_size=1, max_size=4, unique=True).map(sorted)
SEEDS = st.integers(0, 50)
TASKS = st.sampled_from(["pick", "go2-flat", "h1-walk-v0", "Isaac-Lift_v1", "task_3"])


# (what writes the run, the files next to the weights that its player opens or gets by flags)
PLAYED: dict[str, tuple[Callable[[Path, list[int]], object], tuple[str, ...]]] = {
    "robomimic": (
        lambda root, steps: write_numbered(root, "models/model_epoch_{}.pth", steps, robomimic),
        ("logs/normalization_params.txt",),
    ),
    "protomotions": (
        lambda root, steps: [
            weights(
                root / f"epoch_{step}.ckpt",
                step,
                model={},
                epoch=step,
                step_count=step,
                run_start_time=1.5,
                best_evaluated_score=0.5,
            )
            for step in steps
        ],
        ("resolved_configs_inference.pt",),
    ),
    "act": (
        lambda root, steps: write_numbered(
            root, ("policy_epoch_{}_seed_3.ckpt", "policy_step_{}_seed_3.ckpt")[len(steps) % 2], steps
        ),
        ("dataset_stats.pkl", "latent_model_last.ckpt"),
    ),
    "huggingface": (
        lambda root, steps: write_numbered(root, "checkpoint-{}", steps, huggingface),
        tuple(f"checkpoint-{{}}/{name}" for name in ("non_lora_trainables.bin", "tokenizer.json")),
    ),
    "tianshou": (
        lambda root, steps: [
            write_numbered(root, "policy_epoch_{}.pt", steps),
            write_bytes(root / "experiment.pkl", pickle.dumps("tianshou.highlevel.experiment")),
        ],
        ("env_obs_rms.pkl",),
    ),
    "prismatic": (
        lambda root, steps: [
            weights(root / f"checkpoints/step-{step:06d}-epoch-03-loss=0.2500.pt", step, model={})
            for step in steps
        ],
        ("config.json", "dataset_statistics.json"),
    ),
    "octo": (
        lambda root, steps: [copied_store(root / f"{step}/default") for step in steps[:2]],
        ("config.json", "dataset_statistics.json", "example_batch.msgpack"),
    ),
    "groot": (
        lambda root, steps: write_numbered(root, "checkpoint-{}", steps, groot),
        ("experiment_cfg/metadata.json", "processor/processor_config.json", "processor/statistics.json"),
    ),
    "brax": (
        lambda root, steps: [brax(root / f"checkpoints/{step:012d}") for step in steps[:2]],
        ("checkpoints/config.json", "checkpoints/{:012d}/ppo_network_config.json"),
    ),
    "rlinf": (
        lambda root, steps: write_numbered(root, "checkpoints/global_step_{}", steps, rlinf),
        ("checkpoints/global_step_{}/libero/norm_stats.json",),
    ),
    "stable_baselines3": (
        lambda root, steps: write_numbered(root, "rl_model_{}_steps.zip", steps, stable_baselines3),
        ("rl_model_vecnormalize_{}_steps.pkl", "Ant-v4/args.yml", "Ant-v4/config.yml", "params/agent.yaml"),
    ),
    "lerobot": (
        lambda root, steps: write_numbered(root, "checkpoints/{:06d}", steps, lerobot),
        tuple(
            f"checkpoints/{{:06d}}/pretrained_model/{name}"
            for name in ("config.json", "train_config.json", "stats.safetensors", "policy_preprocessor.json")
        ),
    ),
}
# Without these the run has no known framework, or is not complete.
ALWAYS = {
    "groot": ("experiment_cfg/metadata.json",),
    "brax": ("checkpoints/{:012d}/ppo_network_config.json",),
    "act": ("dataset_stats.pkl",),
    "prismatic": ("config.json", "dataset_statistics.json"),
    "protomotions": ("resolved_configs_inference.pt",),
    "octo": ("config.json", "example_batch.msgpack"),
    "lerobot": PLAYED["lerobot"][1][:2],
}


@FEW
@given(name=st.sampled_from(sorted(PLAYED)), steps=STEPS, data=st.data(), logged=st.booleans())
def test_what_inference_needs_is_in_every_version(name, steps, data, logged):
    write, needed = PLAYED[name]
    there = [item for item in needed if item in ALWAYS.get(name, ()) or data.draw(st.booleans())]
    steps = steps[:2] if name in ("octo", "brax") else steps
    with folder() as root:
        write(root, steps)
        for item in there:
            for step in steps if "{" in item else [0]:
                path = root / item.format(step)
                if path.suffix == ".safetensors":
                    safetensors(path)
                elif path.suffix == ".json":
                    write_json(path, {"model": {"heads": {}}, "vla": {}})
                elif path.suffix in (".yml", ".yaml"):
                    write_bytes(path, b"normalize: true\n")
                else:
                    write_bytes(path, b"\x80" if path.suffix == ".msgpack" else pickle.dumps({}))
        if logged:
            write_events(root / "events.out.tfevents.1760000000.host.1.0", [("loss", steps[-1], 0.5)])
        tree, run, layout = planned(root)
        assert layout == name
        for chosen in [*choose(tree, run, "all"), *choose(tree, run, "final")]:
            checkpoint = chosen.checkpoint
            assert checkpoint.step in steps
            assert {item.format(checkpoint.step) for item in there} <= set(checkpoint.files)
            assert not any("dcp_checkpoint" in path for path in checkpoint.files)
            # Only its own weights, and no file that states another step.
            others = {step for step in steps if step != checkpoint.step}
            numbers = {int(digits) for path in checkpoint.weights for digits in re.findall("[0-9]+", path)}
            assert checkpoint.step in numbers
            assert not any(
                path in checkpoint.weights
                for item in run.checkpoints
                if item.step in others
                for path in item.weights
            )
        assert chosen.checkpoint.step == steps[-1]


@FEW
@given(
    steps=STEPS,
    target=st.integers(0, 3),
    kind=st.sampled_from(["link", "copy", "none"]),
    half=st.booleans(),
)
def test_an_old_last_hides_no_whole_checkpoint(steps, target, kind, half):
    """A link one step behind has not been moved yet. A copy, or a link further behind, is old."""
    at = steps[min(target, len(steps) - 1)]
    with folder() as root:
        write_numbered(root, "checkpoints/{:06d}", steps, lerobot)
        last = root / "checkpoints/last"
        if kind == "link":
            last.symlink_to(f"{at:06d}")
        elif kind == "copy":
            shutil.copytree(root / f"checkpoints/{at:06d}", last)
        whole = list(steps)
        if half and steps[-1] != at and len(steps) > 1:
            shutil.rmtree(root / f"checkpoints/{steps[-1]:06d}/training_state")
            whole.pop()
        tree, run, _ = planned(root)
        (chosen,) = choose(tree, run, "final")
        above = [step for step in whole if step > at]
        expected = at if kind == "link" and above == [steps[-1]] else whole[-1]
        assert chosen.checkpoint.step == expected
        # Everything that is skipped is named.
        assert len(chosen.passed_over) == sum(step > expected for step in steps)
        if kind != "none" and expected != at:
            assert any(f"last points to step {at}" in warning for warning in run.warnings)


INSIDE = st.sampled_from(
    ["stage2", "stage_3", "student", "teacher", "rl", "finetune/2026-01-02", "seed_{}", "v{}"]
)
RUNS = {
    "huggingface": (huggingface, "checkpoint-{}"),
    "rsl_rl": (rsl_rl, "model_{}.pt"),
    "lerobot": (lerobot, "checkpoints/{:06d}"),
    "lightning": (lightning, "checkpoints/epoch=1-step={}.ckpt"),
    "stable_baselines3": (stable_baselines3, "rl_model_{}_steps.zip"),
}


@FEW
@given(
    outer=st.sampled_from(sorted(RUNS)),
    inner=st.sampled_from(sorted(RUNS)),
    inside=INSIDE,
    number=SEEDS,
    steps=STEPS,
    others=STEPS,
)
def test_a_run_inside_a_run_is_a_second_run(outer, inner, inside, number, steps, others):
    inside = inside.format(number)
    with folder() as root:
        for place, name, own in ((root, outer, steps), (root / inside, inner, others)):
            save, numbered = RUNS[name]
            write_numbered(place, numbered, own, save)
        whole = tree_of(root)
        assert [(item.root, item.layout.name) for item in find_runs(whole, "")] == [
            ("", outer),
            (inside, inner),
        ]
        with pytest.raises(UsageError) as raised:
            find_run(whole)
        assert inside in raised.value.message
        tree, run, _ = planned(root / inside)
        (chosen,) = choose(tree, run, "final")
        assert chosen.checkpoint.step == others[-1]


LOGS = st.sampled_from(
    [
        "eval.csv",
        "metrics.jsonl",
        "train_log.csv",
        "scores.csv",
        "eval_results.jsonl",
        "result.json",
        "metrics.json",
        "log.tsv",
        "bridge+b16+x7.jsonl",
    ]
)


@FEW
@given(
    name=LOGS,
    below=st.sampled_from(["", "logs/", "eval/"]),
    steps=STEPS,
    read=st.booleans(),
    events=st.booleans(),
    seed=SEEDS,
)
def test_a_log_is_read_or_named(name, below, steps, read, events, seed):
    """Logs without a step column, and logs next to event files, are not read."""
    keys = ("training_iteration" if name == "result.json" else "step") if read else "moment", "reward"
    with folder() as root:
        rsl_rl(root / "model_9.pt", 9)
        rows = [f'{{"{keys[0]}": {step}, "{keys[1]}": {seed}.5}}' for step in steps]
        if name.endswith(".csv"):
            rows = [",".join(keys), *(f"{step},{seed}.5" for step in steps)]
        elif name.endswith(".tsv"):
            rows = ["\t".join(keys), *(f"{step}\t{seed}.5" for step in steps)]
        write_bytes(root / below / name, ("\n".join(rows) + "\n").encode())
        if events:
            write_events(root / "events.out.tfevents.1760000000.host.1.0", [("loss", 9, 0.5)])
        tree, run, _ = planned(root)
        metrics = read_metrics(tree, run.logs)
        named = [warning for warning in metrics.warnings if warning.startswith(f"{below}{name} was not read")]
        points = {(tag, step) for tag, _, _, step in metrics.stream()}
        if read and not events:
            assert points == {("reward", step) for step in steps} and not named
        else:
            assert points == ({("loss", 9)} if events else set())
            assert len(named) == 1
            assert bool(metrics.note) != events


@FEW
@given(
    steps=STEPS,
    base=st.from_regex(r"[a-z]{1,8}/[A-Za-z0-9._-]{1,20}", fullmatch=True),
    framework=st.sampled_from(["huggingface", "lerobot"]),
    state=st.sets(st.sampled_from(["global_step", "pytorch_model_fsdp_0", "optimizer_0"])),
    adapter=st.booleans(),
)
def test_an_adapter_names_its_base_and_repeated_weights_are_left_out(steps, base, framework, state, adapter):
    with folder() as root:
        save, numbered = RUNS[framework]
        for step in steps:
            save(root / numbered.format(step), step)
            model = root / numbered.format(step) / ("pretrained_model" if framework == "lerobot" else "")
            if adapter:
                (model / "model.safetensors").rename(model / "adapter_model.safetensors")
                write_json(model / "adapter_config.json", {"base_model_name_or_path": base})
            if "pytorch_model_fsdp_0" in state:
                write_bytes(model / "pytorch_model_fsdp_0/__0_0.distcp", b"x" * 80)
                write_bytes(model / "pytorch_model_fsdp_0/.metadata")
            if framework == "huggingface":
                if "global_step" in state:
                    weights(model / f"global_step{step}/mp_rank_00_model_states.pt", step)
                    write_bytes(model / "latest", f"global_step{step}".encode())
                if "optimizer_0" in state:
                    write_bytes(model / "optimizer_0/__0_0.distcp", b"x" * 80)
                    write_bytes(model / "optimizer_0/.metadata")
        tree, run, _ = planned(root)
        for chosen in choose(tree, run, "all"):
            (weight,) = chosen.checkpoint.weights
            assert weight.endswith(("/model.safetensors", "/adapter_model.safetensors"))
            assert base_model_of(tree, chosen.checkpoint) == (base if adapter else "")
            repeated = ("distcp", "mp_rank_00", ".metadata")
            assert not any(word in path for path in chosen.checkpoint.files for word in repeated)
        assert chosen.checkpoint.step == steps[-1]


@FEW
@given(
    task=TASKS,
    seeds=st.lists(SEEDS, min_size=2, max_size=3, unique=True),
    steps=STEPS,
    ended=st.booleans(),
)
def test_two_trainings_of_a_known_framework_are_undecided(task, seeds, steps, ended):
    """FastTD3 saves every training into one folder."""
    with folder() as root:
        for seed in seeds:
            for step in [*steps, *(["final"] if ended else [])]:
                number = steps[-1] + 1 if step == "final" else step
                path = root / f"models/{task}__FastTD3__{seed}_{step}.pt"
                torch_file(path, number, seed, actor_state_dict={}, global_step=number, args={"seed": seed})
        tree, run, layout = planned(root)
        assert layout == "fasttd3"
        with pytest.raises(UsageError) as raised:
            list(choose(tree, run, "final"))
        for seed in seeds:
            assert f"__FastTD3__{seed}_{'final' if ended else steps[-1]}.pt" in raised.value.hint
        for chosen in choose(tree, run, "all"):
            assert chosen.checkpoint.weights == (chosen.checkpoint.path,)
            assert chosen.checkpoint.step in (*steps, None)
