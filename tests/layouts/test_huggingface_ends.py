"""Models in the root and in final/ next to numbered checkpoints: resumed trainings, folders used twice."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aml_mirror.layouts.base import Run
from aml_mirror.layouts.huggingface.layout import HuggingFace
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from builders.saved import safetensors, write_bytes, write_json

MakeTree = Callable[[Path], Tree]


@dataclass
class Training:
    """Writes what the Trainer leaves of one training. The weights depend on its seed and the step."""

    root: Path
    seed: int
    every: int

    def go(self, start: int, stop: int, plan: int, call: int, state: bool = True) -> None:
        """Train from one step to another, and save the model into the root at the planned end."""
        for step in range(start + 1, stop + 1):
            if step % self.every == 0:
                self.save(self.root / f"checkpoint-{step}", step, plan, call, state=True)
        if stop == plan:
            self.save(self.root, stop, plan, call, state)

    def save(self, folder: Path, step: int, plan: int, call: int, state: bool) -> None:
        safetensors(folder / "model.safetensors", self.weights(step))
        write_json(folder / "config.json", {"model_type": "gpt2"})
        write_bytes(folder / "training_args.bin", f"{self.seed} {call} {plan}".encode())
        (folder / "trainer_state.json").unlink(missing_ok=True)
        if state:
            history = [{"step": at, "loss": self.seed + 1 / at} for at in range(1, step + 1)]
            values = {"global_step": step, "max_steps": plan, "save_steps": self.every}
            write_json(folder / "trainer_state.json", {**values, "log_history": history})

    def weights(self, step: int) -> int:
        return self.seed * 1000 + step


def read(folder: Path) -> Run:
    source = LocalSource(folder)
    tree = Tree(source, source.scan())
    assert HuggingFace().find(tree) == [""]
    return HuggingFace().read(tree)


def holds(folder: Path, run: Run, weights: int) -> bool:
    """Whether the run's final checkpoint has these weights."""
    (path,) = run.checkpoints[0].weights
    return (folder / path).read_bytes() == safetensors(folder.parent / "expected", weights).read_bytes()


steps = st.integers(1, 30)


@given(first=steps, more=steps, killed=steps, every=st.integers(1, 9), state=st.booleans())
def test_a_training_that_went_on(first: int, more: int, killed: int, every: int, state: bool) -> None:
    plan, stopped = first + more, first + min(killed, more)
    with tempfile.TemporaryDirectory() as parent:
        root = Path(parent, "run")
        training = Training(root, 1, every)
        training.go(0, first, first, call=1, state=state)
        training.go(first, stopped, plan, call=2, state=state)
        run = read(root)
        newest = max([first, *(step for step in range(1, stopped + 1) if step % every == 0)])
        newest = plan if stopped == plan else newest
        if run.undecided:
            assert len(run.choices) > 1
        else:
            assert holds(root, run, training.weights(newest))
            assert run.checkpoints[0].step in (newest, None)
        # Whatever is chosen, no checkpoint has a step that is in no file.
        for item in run.checkpoints:
            assert item.step is None or (root / item.path / "model.safetensors").read_bytes() == (
                safetensors(root.parent / "other", training.weights(item.step)).read_bytes()
            )


@given(
    first=steps,
    second=steps,
    plans=st.tuples(steps, steps),
    every=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_a_folder_that_was_used_twice(
    first: int, second: int, plans: tuple[int, int], every: tuple[int, int]
) -> None:
    with tempfile.TemporaryDirectory() as parent:
        root = Path(parent, "run")
        stops = min(first, plans[0]), min(second, plans[1])
        for number in (0, 1):
            Training(root, number + 1, every[number]).go(0, stops[number], plans[number], call=number)
        if not list(root.glob("**/model.safetensors")):
            return
        run = read(root)
        saved = [step for step in range(1, stops[1] + 1) if step % every[1] == 0]
        newest = stops[1] if stops[1] == plans[1] else max(saved, default=0)
        if run.undecided:
            assert len(run.choices) > 1
        elif newest:
            assert holds(root, run, Training(root, 2, every[1]).weights(newest))


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint-final",
        "checkpoint-last",
        "Final_Model",
        "last-checkpoint",
        "adapter_final",
        "final_merged_model",
    ],
)
def test_a_folder_that_says_it_is_the_end(tmp_path: Path, name: str) -> None:
    root = tmp_path / "run"
    training = Training(root, 1, 10)
    training.go(0, 25, 100, call=1)
    training.save(root / name, 25, 100, call=1, state=False)
    run = read(root)
    assert (run.checkpoints[0].path, run.checkpoints[0].step) == (name, None)
    assert not run.undecided and not run.warnings
    # Of two copies the numbered one is taken, because it has the step.
    shutil.copy(root / "checkpoint-20/model.safetensors", root / name)
    assert [item.path for item in read(root).checkpoints] == ["checkpoint-20", "checkpoint-10"]
    # A model that was saved before the training continued is stale.
    shutil.copy(root / "checkpoint-10/model.safetensors", root / name)
    run = read(root)
    assert run.checkpoints[0].path == "checkpoint-20" and name in run.warnings[0]


def test_two_folders_that_say_so_are_undecided(tmp_path: Path) -> None:
    root = tmp_path / "run"
    training = Training(root, 1, 10)
    training.go(0, 20, 100, call=1)
    for step, name in ((25, "final"), (26, "final_model")):
        training.save(root / name, step, 100, call=1, state=False)
    assert set(read(root).choices) == {"final", "final_model"}


def test_a_root_and_a_folder_that_both_may_be_the_end_are_undecided(tmp_path: Path) -> None:
    root = tmp_path / "run"
    training = Training(root, 1, 10)
    training.go(0, 25, 25, call=1)
    training.save(root / "final_model", 26, 25, call=1, state=False)
    # The state in the root belongs to the model in the root.
    assert set(read(root).choices) == {".", "final_model"}


def test_the_stale_root_of_a_resumed_training(tmp_path: Path) -> None:
    root = tmp_path / "run"
    training = Training(root, 1, 10)
    training.go(0, 20, 20, call=1, state=False)
    training.go(20, 45, 100, call=2)
    run = read(root)
    assert (run.checkpoints[0].path, run.checkpoints[0].step) == ("checkpoint-40", 40)
    assert (".", 20) in [(item.path, item.step) for item in run.checkpoints]
    assert "the root of the run holds the model of checkpoint-20" in run.warnings[0]
    # If checkpoint-20 is gone, the model's arguments still show that it is from an older call.
    shutil.rmtree(root / "checkpoint-20")
    run = read(root)
    assert run.checkpoints[0].path == "checkpoint-40" and "arguments of an older training" in run.warnings[0]
    shutil.rmtree(root / "checkpoint-10")
    assert set(read(root).choices) == {".", "checkpoint-40"}


def test_a_root_that_ended_below_a_finished_checkpoint_is_undecided(tmp_path: Path) -> None:
    root = tmp_path / "run"
    Training(root, 1, 5).go(0, 10, 10, call=1)
    Training(root, 2, 2).go(0, 6, 6, call=2)
    run = read(root)
    assert set(run.choices) == {".", "checkpoint-10"}
    assert "step 6" in run.undecided and "step 10" in run.undecided


def test_checkpoints_of_another_plan_below_the_root_are_of_another_training(tmp_path: Path) -> None:
    root = tmp_path / "run"
    Training(root, 1, 5).go(0, 10, 20, call=1)
    Training(root, 2, 2).go(0, 6, 6, call=2)
    # Nothing was logged. Only the planned ends show that checkpoint-5 is not from the training that ended at
    # 6.
    for path in root.glob("**/trainer_state.json"):
        write_json(path, {**json.loads(path.read_text()), "log_history": []})
    assert set(read(root).choices) == {".", "checkpoint-10"}


def test_a_later_root_with_other_losses_is_of_another_training(tmp_path: Path) -> None:
    root = tmp_path / "run"
    Training(root, 1, 10).go(0, 15, 20, call=1)
    Training(root, 2, 40).go(0, 30, 30, call=2)
    run = read(root)
    assert set(run.choices) == {".", "checkpoint-10"} and "belong to different trainings" in run.undecided


def test_a_model_in_parts(tmp_path: Path) -> None:
    root = tmp_path / "run"
    for folder, step in ((root / "checkpoint-500", 500), (root / "checkpoint-1000", 1000), (root, 1234)):
        write_json(folder / "config.json", {"model_type": "llava_llama"})
        write_json(folder / "trainer_state.json", {"global_step": step, "max_steps": 1234})
        for number, part in enumerate(("llm", "mm_projector", "vision_tower")):
            # The vision tower is frozen, so it is the same in each.
            safetensors(folder / part / "model.safetensors", number if number == 2 else step + number)
            write_json(folder / part / "config.json", {})
    run = read(root)
    assert [(item.path, item.step) for item in run.checkpoints] == [
        (".", 1234),
        ("checkpoint-1000", 1000),
        ("checkpoint-500", 500),
    ]
    assert len(run.checkpoints[0].weights) == 3 and not run.warnings
    # A model with the same parts as the newest checkpoint is not another model.
    for part in ("llm", "mm_projector"):
        shutil.copy(root / f"checkpoint-1000/{part}/model.safetensors", root / part)
    assert [item.path for item in read(root).checkpoints] == ["checkpoint-1000", "checkpoint-500"]
    # A root without checkpoints is a run, too.
    for step in (500, 1000):
        shutil.rmtree(root / f"checkpoint-{step}")
    assert [item.path for item in read(root).checkpoints] == ["."]


def test_many_checkpoints_are_compared_in_few_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "run"
    training = Training(root, 1, 1)
    training.go(0, 40, 100, call=1)
    size = 1 << 16
    for step in range(1, 41):
        safetensors(root / f"checkpoint-{step}/model.safetensors", step, numbers=size)
    safetensors(root / "model.safetensors", 7, numbers=size)
    amount = 0
    original = LocalSource.read

    def counted(self: LocalSource, entry: object, offset: int, length: int) -> bytes:
        nonlocal amount
        data = original(self, entry, offset, length)  # type: ignore[arg-type]
        amount += len(data) if str(getattr(entry, "path", "")).endswith(".safetensors") else 0
        return data

    monkeypatch.setattr(LocalSource, "read", counted)
    run = read(root)
    assert run.checkpoints[0].path == "checkpoint-40" and "checkpoint-7" in run.warnings[0]
    # Two files completely, and a few places in the others: far less than their total of 10 MB.
    assert amount < 4 * 4 * size
