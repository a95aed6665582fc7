"""Policies recognised by one word in their names, and copies of older ones with such a name."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aml_mirror.core.errors import DataError, UsageError
from aml_mirror.layouts import find_runs
from aml_mirror.layouts.run_evidence import why_no_run
from aml_mirror.pipeline.select import choose
from builders.numbered_runs import (
    Save,
    folder,
    huggingface,
    plain,
    planned,
    rsl_rl,
    torch_file,
    tree_of,
    write_numbered,
)
from builders.runs import write_events
from builders.saved import safetensors, write_bytes, write_json

FEW = settings(max_examples=20)  # each example is a folder on the disk
STEPS = st.lists(st.integers(1, 10**6), min_size=2, max_size=12, unique=True).map(sorted)
ENDS = st.sampled_from(["final", "last", "latest", "finish"])
NAMES = st.sampled_from(
    ["pick_{}", "seed_{}", "cube_v{}", "go2-flat-{}", "ppo", "2026-01-02_{}", "h1_step_{}"]
)
FORMATS = st.sampled_from(["pt", "pth", "ckpt", "safetensors"])
PLACES = st.sampled_from(["", "out/", "checkpoints/", "exp 7/models/"])


def write(path: Path, seed: int) -> None:
    if path.suffix == ".safetensors":
        safetensors(path, seed)
    else:
        plain(path, seed)


@FEW
@given(name=NAMES, number=st.integers(0, 99), end=ENDS, suffix=FORMATS, place=PLACES, best=st.booleans())
def test_a_lone_end_is_final_and_of_no_step_that_it_does_not_state(name, number, end, suffix, place, best):
    stem = name.format(number)
    with folder() as root:
        write(root / f"{place}{stem}_{end}.{suffix}", 1)
        if best:
            write(root / f"{place}{stem}_best.{suffix}", 2)
        tree, run, layout = planned(root)
        (chosen,) = choose(tree, run, "final")
        assert layout == "generic"
        assert chosen.checkpoint.path.endswith(f"{stem}_{end}.{suffix}")
        assert chosen.checkpoint.role == "final"
        assert chosen.checkpoint.step == (number if "step" in stem else None)
        # A backfill takes it only next to other files of a training.
        (found,) = find_runs(tree_of(root))
        assert why_no_run(found.tree(tree_of(root)), found.layout)
        write_events(root / place / "events.out.tfevents.1760000000.host.1.0", [("loss", 1, 0.5)])
        (found,) = find_runs(tree_of(root))
        assert not why_no_run(found.tree(tree_of(root)), found.layout)


@FEW
@given(
    name=NAMES,
    number=st.integers(0, 99),
    suffix=FORMATS,
    place=PLACES,
    word=st.sampled_from(["best", "top_1"]),
)
def test_a_lone_best_one_is_never_final(name, number, suffix, place, word):
    with folder() as root:
        write(root / f"{place}{name.format(number)}_{word}.{suffix}", 1)
        write_bytes(root / place / "config.yaml", b"lr: 1\n")
        tree, run, _ = planned(root)
        with pytest.raises(DataError) as raised:
            list(choose(tree, run, "final"))
        assert "--checkpoint best" in raised.value.hint
        (chosen,) = choose(tree, run, "best")
        assert (chosen.checkpoint.role, chosen.checkpoint.step) == ("best", None)
        (found,) = find_runs(tree_of(root))
        assert "for its score" in why_no_run(found.tree(tree_of(root)), found.layout)


@FEW
@given(ends=ENDS, numbers=st.lists(st.integers(0, 99), min_size=2, max_size=4, unique=True))
def test_several_lone_ends_are_undecided(ends, numbers):
    with folder() as root:
        for number in numbers:
            plain(root / f"pick_{number}_{ends}.pt", number)
        tree, run, _ = planned(root)
        with pytest.raises(UsageError) as raised:
            list(choose(tree, run, "final"))
        for number in numbers:
            assert f"--checkpoint pick_{number}_{ends}.pt" in raised.value.hint


@FEW
@given(steps=STEPS, at=st.integers(0, 11), end=st.sampled_from(["latest", "last", "final"]))
def test_an_end_that_is_a_copy_of_any_numbered_one_is_none(steps, at, end):
    at = min(at, len(steps) - 1)
    with folder() as root:
        write_numbered(root, "checkpoints/policy_{}.pt", steps)
        shutil.copy(root / f"checkpoints/policy_{steps[at]}.pt", root / f"checkpoints/policy_{end}.pt")
        tree, run, _ = planned(root)
        (chosen,) = choose(tree, run, "final")
        assert chosen.checkpoint.step == steps[-1]
        is_old = at < len(steps) - 1
        assert any("is stale" in warning for warning in run.warnings) == is_old


@FEW
@given(steps=STEPS, others=STEPS, word=st.sampled_from(["student", "teacher", "stage2", "go2"]))
def test_a_second_series_of_a_known_framework_is_undecided(steps, others, word):
    with folder() as root:
        write_numbered(root, "model_{}.pt", steps, rsl_rl)
        write_numbered(root, word + "_{}.pt", others, lambda path, step: rsl_rl(path, step, seed=9))
        tree, run, layout = planned(root)
        with pytest.raises(UsageError) as raised:
            list(choose(tree, run, "final"))
        assert layout == "rsl_rl"
        for name in (f"model_{steps[-1]}.pt", f"{word}_{others[-1]}.pt"):
            assert f"--checkpoint {name}" in raised.value.hint
            (chosen,) = choose(tree, run, name)
            assert chosen.checkpoint.path == name


def adapter(path: Path, step: int) -> None:
    huggingface(path, step)
    (path / "model.safetensors").rename(path / "adapter_model.safetensors")
    write_json(path / "adapter_config.json", {"base_model_name_or_path": "a/b"})


def shards(path: Path) -> None:
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for number, name in enumerate(names):
        safetensors(path / name, 70 + number)
    write_json(path / "model.safetensors.index.json", {"weight_map": {"a": names[0], "b": names[1]}})


@pytest.mark.parametrize("save", [adapter, huggingface])
@pytest.mark.parametrize("form", ["whole", "shards"])
@pytest.mark.parametrize("planned_steps", [20, 1000])
def test_a_root_that_cannot_be_compared_is_undecided_unless_it_states_its_step(
    tmp_path: Path, save: Save, form: str, planned_steps: int
) -> None:
    for step in (10, 20):
        save(tmp_path / f"checkpoint-{step}", step)
        write_json(
            tmp_path / f"checkpoint-{step}/trainer_state.json",
            {"global_step": step, "max_steps": planned_steps},
        )
    safetensors(tmp_path / "model.safetensors", 99) if form == "whole" else shards(tmp_path)
    write_json(tmp_path / "config.json", {"model_type": "gpt2"})
    tree, run, _ = planned(tmp_path)
    with pytest.raises(UsageError) as raised:
        list(choose(tree, run, "final"))
    assert "--checkpoint ., --checkpoint checkpoint-20" in raised.value.hint
    write_json(tmp_path / "trainer_state.json", {"global_step": 25, "max_steps": planned_steps})
    tree, run, _ = planned(tmp_path)
    (chosen,) = choose(tree, run, "final")
    assert (chosen.checkpoint.path, chosen.checkpoint.step) == (".", 25)


def test_tianshous_newest_is_no_best_one(tmp_path: Path) -> None:
    run_folder = tmp_path / "260102-030405"
    torch_file(run_folder / "policy.pth", 1, 1)
    torch_file(run_folder / "checkpoint.pth", 2, 1, model={})
    write_events(run_folder / "events.out.tfevents.1760000000.host.1.0", [("loss", 1, 0.5)])
    tree, run, layout = planned(run_folder)
    (chosen,) = choose(tree, run, "final")
    assert layout == "tianshou" and run.best and run.best.path == "policy.pth"
    assert (chosen.checkpoint.path, chosen.checkpoint.step) == ("checkpoint.pth", None)
    # No script of Tianshou saves both.
    torch_file(run_folder / "checkpoint_9.pth", 3, 1, model={})
    tree, run, _ = planned(run_folder)
    assert list(run.choices) == ["checkpoint.pth", "checkpoint_9.pth"]


def test_diffusion_policys_latest_beside_another_end(tmp_path: Path) -> None:
    for seed, name in enumerate(("latest", "final")):
        pickles = {"global_step": pickle.dumps(100), "epoch": pickle.dumps(1)}
        torch_file(tmp_path / f"checkpoints/{name}.ckpt", 100, seed, cfg={}, state_dicts={}, pickles=pickles)
    write_bytes(tmp_path / ".hydra/config.yaml", b"a: 1\n")
    tree, run, layout = planned(tmp_path)
    with pytest.raises(UsageError) as raised:
        list(choose(tree, run, "final"))
    assert layout == "diffusion_policy"
    assert "checkpoints/latest.ckpt" in raised.value.hint and "checkpoints/final.ckpt" in raised.value.hint
    shutil.copy(tmp_path / "checkpoints/latest.ckpt", tmp_path / "checkpoints/final.ckpt")
    tree, run, _ = planned(tmp_path)
    assert not run.undecided and run.checkpoints[0].path == "checkpoints/latest.ckpt"


@pytest.mark.parametrize("whole", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("place", ["", "global_step{}/"])
def test_deepspeeds_shards_beside_a_whole_model_are_left_out(tmp_path: Path, whole: str, place: str) -> None:
    names = ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    for step in (20, 40):
        write(tmp_path / f"checkpoints/step_{step}/{whole}", step)
        for name in names:
            plain(tmp_path / f"checkpoints/step_{step}" / place.format(step) / name, step)
    write_bytes(tmp_path / "config.yaml", b"lr: 1\n")
    tree, run, _ = planned(tmp_path)
    (chosen,) = choose(tree, run, "final")
    assert chosen.checkpoint.weights == (f"checkpoints/step_40/{whole}",)


@pytest.mark.parametrize("beside", ["config.yaml", "events.out.tfevents.1760000000.host.1.0"])
@pytest.mark.parametrize("inside", ["warmup", "old/warmup", "stage2", "distill/student"])
def test_a_run_of_no_known_framework_inside_a_run_is_a_second_run(
    tmp_path: Path, inside: str, beside: str
) -> None:
    write_numbered(tmp_path, "model_{}.pt", [100, 200], rsl_rl)
    write_numbered(tmp_path / inside, "checkpoints/policy_{}.pt", [10, 20])
    # Numbers alone do not identify a training, but names may.
    says = inside in ("stage2", "distill/student")
    assert [run.root for run in find_runs(tree_of(tmp_path))] == ["", *([inside] if says else [])]
    write_bytes(tmp_path / inside / beside)
    assert [(run.root, run.layout.name) for run in find_runs(tree_of(tmp_path))] == [
        ("", "rsl_rl"),
        (inside, "generic"),
    ]


@pytest.mark.parametrize(
    "beside", ["buffer/transitions_1000.pkl", "demo_buffer/transitions_2.pkl", "replay_buffer.pkl"]
)
def test_what_a_policy_did_is_evidence_of_its_training(tmp_path: Path, beside: str) -> None:
    """HIL-SERL writes no log and no configuration."""
    for step in (5000, 20000):
        write_bytes(tmp_path / f"checkpoint_{step}", b"\x81\xa3abc\x01")
    (found,) = find_runs(tree_of(tmp_path))
    assert why_no_run(found.tree(tree_of(tmp_path)), found.layout)
    write_bytes(tmp_path / beside)
    (found,) = find_runs(tree_of(tmp_path))
    assert not why_no_run(found.tree(tree_of(tmp_path)), found.layout)
    assert found.read(tree_of(tmp_path)).checkpoints[0].step == 20000


@pytest.mark.parametrize("end", ["model_final.pt", "model_last.pt", "final.pt"])
def test_an_end_of_a_fork_that_states_no_step_is_undecided(tmp_path: Path, end: str) -> None:
    write_numbered(tmp_path, "model_{}.pt", [100, 200], rsl_rl)
    torch_file(tmp_path / end, 1, 7, model_state_dict={}, iter=None, infos=None)
    tree, run, _ = planned(tmp_path)
    with pytest.raises(UsageError) as raised:
        list(choose(tree, run, "final"))
    assert f"--checkpoint {end}, --checkpoint model_200.pt" in raised.value.hint
    rsl_rl(tmp_path / end, 250, seed=7)
    tree, run, _ = planned(tmp_path)
    assert (run.checkpoints[0].path, run.checkpoints[0].step, run.undecided) == (end, 250, "")


@pytest.mark.parametrize("word", ["final", "last"])
@pytest.mark.parametrize("counts", [1, 20])
def test_an_end_in_the_place_of_a_number_needs_no_word_of_a_model(
    tmp_path: Path, word: str, counts: int
) -> None:
    write_numbered(tmp_path, "go2_flat_2_{}.pt", list(range(100, 100 * counts + 1, 100)))
    plain(tmp_path / f"go2_flat_2_{word}.pt", 7)
    tree, run, _ = planned(tmp_path)
    (chosen,) = choose(tree, run, "final")
    assert (chosen.checkpoint.path, chosen.checkpoint.step) == (f"go2_flat_2_{word}.pt", None)
    # Another task is another training.
    plain(tmp_path / "go2_rough_2_900.pt", 9)
    with pytest.raises(UsageError):
        planned(tmp_path)


@pytest.mark.parametrize(("step", "expected"), [(150, "model.pt"), (90, "model_100.pt")])
def test_what_rsl_rl_saves_is_told_by_its_iteration(tmp_path: Path, step: int, expected: str) -> None:
    write_numbered(tmp_path, "model_{}.pt", [50, 100], rsl_rl)
    rsl_rl(tmp_path / "model.pt", step, 7)
    tree, run, _ = planned(tmp_path)
    (chosen,) = choose(tree, run, "final")
    assert (chosen.checkpoint.path, chosen.checkpoint.step) == (expected, max(step, 100))
