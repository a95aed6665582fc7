"""Final models next to numbered checkpoints, also those that only forks write: taken, or the program
stops.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aml_mirror.core.errors import UsageError
from aml_mirror.pipeline.select import choose
from builders.numbered_runs import (
    Save,
    folder,
    huggingface,
    lerobot,
    lightning,
    plain,
    planned,
    robomimic,
    rsl_rl,
    skrl,
)
from builders.saved import safetensors, write_bytes

RUNS = Path(__file__).parents[1] / "data" / "runs"
FEW = settings(max_examples=60)  # each example is a folder on the disk
STEPS = st.lists(st.integers(1, 10**6), min_size=1, max_size=4, unique=True).map(sorted)
# (what saves one, the numbered name, names for the end in trainers and their forks)
ENDS: list[tuple[Save, str, tuple[str, ...]]] = [
    (
        huggingface,
        "checkpoint-{}",
        ("checkpoint-final", "checkpoint-last", "final", "final_model", "last-checkpoint"),
    ),
    (rsl_rl, "model_{}.pt", ("model_final.pt", "model_last.pt", "final_model.pt", "final.pt")),
    (lightning, "checkpoints/epoch=1-step={}.ckpt", ("checkpoints/last.ckpt", "checkpoints/final.ckpt")),
    (plain, "checkpoints/agent_{}.pt", ("checkpoints/agent_final.pt", "checkpoints/final_agent.pt")),
    (plain, "models/{}.pt", ("models/final.pt", "models/last.pt")),
    (robomimic, "models/model_epoch_{}.pth", ("models/model_final.pth", "models/model_last.pth", "last.pth")),
    (skrl, "checkpoints/agent_{}.pt", ("checkpoints/agent_final.pt", "checkpoints/final_agent.pt")),
    (plain, "nn/last_Ant_ep_{}_rew_5.0.pth", ("nn/Ant_final.pth", "nn/final.pth")),
    (
        plain,
        "policy_epoch_{}_seed_0.ckpt",
        ("policy_last.ckpt", "policy_final.ckpt", "policy_epoch_final_seed_0.ckpt"),
    ),
    (
        plain,
        "checkpoints/step-{}-epoch-01-loss=0.5.pt",
        ("checkpoints/final-checkpoint.pt", "checkpoints/last.pt"),
    ),
    (lerobot, "checkpoints/{:06d}", ("checkpoints/final", "checkpoints/final_model")),
]


@FEW
@given(steps=STEPS, more=st.integers(1, 999), which=st.sampled_from(ENDS), data=st.data())
def test_a_later_end_is_taken_or_the_program_stops(steps, more, which, data):
    save, numbered, ends = which
    end = data.draw(st.sampled_from(ends))
    with folder() as root:
        for step in steps:
            save(root / numbered.format(step), step)
        # The final model differs from every numbered one.
        save(root / end, steps[-1] + more, seed=7)
        write_bytes(root / "dataset_stats.pkl")
        tree, run, _ = planned(root)
        below = tree.root + "/" if tree.root else ""
        try:
            (chosen,) = choose(tree, run, "final")
        except UsageError as error:
            picks = [pick.strip("'") for pick in re.findall(r"--checkpoint ('[^']*'|[^ ,]+)", error.hint)]
            assert any((below + pick).startswith(end) for pick in picks), (end, error.hint)
            for pick in picks:
                (chosen,) = choose(tree, run, pick)
                assert chosen.checkpoint.path == pick
            return
        assert (below + chosen.checkpoint.path).startswith(end), chosen
        assert all((below + path).startswith(end) for path in chosen.checkpoint.weights)
        assert chosen.checkpoint.step in (None, steps[-1] + more)


@pytest.mark.parametrize(
    ("save", "numbered", "other"),
    [
        (rsl_rl, "model_{}.pt", "optimizer_last.pt"),
        (rsl_rl, "model_{}.pt", "teacher_final.pt"),
        (rsl_rl, "model_{}.pt", "model_final.onnx"),
        (robomimic, "models/model_epoch_{}.pth", "models/optimizer_last.pth"),
        (skrl, "checkpoints/agent_{}.pt", "checkpoints/optimizer_final.pt"),
    ],
)
def test_what_is_of_something_else_is_no_end(tmp_path: Path, save: Save, numbered: str, other: str) -> None:
    for step in (10, 20):
        save(tmp_path / numbered.format(step), step)
    plain(tmp_path / other, 5)
    tree, run, _ = planned(tmp_path)
    (chosen,) = choose(tree, run, "final")
    assert chosen.checkpoint.path == numbered.format(20).removeprefix(tree.root + "/" if tree.root else "")


def test_an_end_of_before_the_training_went_on(tmp_path: Path) -> None:
    for step in (100, 150, 200):
        rsl_rl(tmp_path / f"model_{step}.pt", step)
    rsl_rl(tmp_path / "model_final.pt", 160, seed=3)
    tree, run, _ = planned(tmp_path)
    (chosen,) = choose(tree, run, "final")
    assert (chosen.checkpoint.path, chosen.checkpoint.step) == ("model_200.pt", 200)
    assert "model_final.pt contains step 160" in run.warnings[0]
    # A copy of the newest one is the newest one.
    rsl_rl(tmp_path / "model_final.pt", 200)
    tree, run, _ = planned(tmp_path)
    assert [item.path for item in run.checkpoints] == ["model_200.pt", "model_150.pt", "model_100.pt"]
    assert not run.warnings and not run.undecided


def test_two_ends_of_one_training_are_undecided(tmp_path: Path) -> None:
    for seed, name in enumerate(("policy_epoch_100_seed_0", "policy_last", "policy_final")):
        plain(tmp_path / f"{name}.ckpt", 100, seed)
    write_bytes(tmp_path / "dataset_stats.pkl")
    _, run, layout = planned(tmp_path)
    assert layout == "act" and set(run.choices) == {"policy_last.ckpt", "policy_final.ckpt"}


@pytest.mark.parametrize("end", ["final", "checkpoint_final", "last"])
@pytest.mark.parametrize("name", ["openpi_torch", "rlinf"])
def test_folders_that_say_so_are_undecided_and_each_can_be_picked(
    tmp_path: Path, name: str, end: str
) -> None:
    run_folder = shutil.copytree(RUNS / name, tmp_path / "input", symlinks=True)
    tree, run, _ = planned(run_folder)
    (newest,) = choose(tree, run, "final")
    copy = run_folder / tree.root / newest.checkpoint.path
    other = shutil.copytree(copy, copy.with_name(end))
    # A copy is not another model.
    tree, run, _ = planned(run_folder)
    assert list(choose(tree, run, "final")) == [newest]
    weights = other / newest.checkpoint.weights[0][len(newest.checkpoint.path) + 1 :]
    weights.unlink()
    save = safetensors if weights.suffix == ".safetensors" else lambda path: plain(path, 5)
    save(weights)
    tree, run, _ = planned(run_folder)
    with pytest.raises(UsageError) as raised:
        list(choose(tree, run, "final"))
    picks = re.findall("--checkpoint ([^ ,]+)", raised.value.hint)
    assert len(picks) == 2
    for pick in picks:
        (chosen,) = choose(tree, run, pick)
        assert chosen.checkpoint.path == pick.removeprefix("./")
