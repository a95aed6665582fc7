"""The guard: compares the logs with the chosen checkpoint, in real event files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aml_mirror.core.run import Checkpoint, Run
from aml_mirror.layouts import find_run
from aml_mirror.metrics.series import read_metrics
from aml_mirror.pipeline.contradictions import Contradictions, contradictions
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from builders.program import Call
from builders.runs import WALL_TIME, write_events
from builders.torch_zip import save

RUNS = Path(__file__).parents[1] / "data" / "runs"
TAG = "Train/mean_reward"


def checkpoints(*steps: int) -> list[Checkpoint]:
    """Checkpoints as RSL-RL's layout lists them: the largest step is the final one."""
    return [
        Checkpoint(name, step, "periodic" if at else "final", (name,), (name,))
        for at, step in enumerate(sorted(steps, reverse=True))
        if (name := f"model_{step}.pt")
    ]


def judged(
    root: Path, steps: tuple[int, ...], *sessions: range, framework: str = "rsl_rl", tag: str = TAG
) -> Contradictions:
    for number, logged in enumerate(sessions):
        path = root / f"events.out.tfevents.{int(WALL_TIME) + 10_000 * number}.vm.1.0"
        write_events(path, [(tag, step, 1.0) for step in logged], WALL_TIME + 10_000 * number)
    source = LocalSource(root)
    metrics = read_metrics(Tree(source, source.scan()))
    run = Run(checkpoints(*steps))
    return contradictions(framework, run, run.checkpoints[0], metrics)


@pytest.mark.parametrize(
    ("steps", "sessions"),
    [
        # A training that ended, one that was killed, one whose last points were lost.
        ((0, 500, 1000, 1499), [range(1500)]),
        ((0, 500, 1000), [range(1400)]),
        ((0, 500, 1000), [range(950)]),
        # Resumed: from a checkpoint, and from one with later points, which are logged again.
        ((0, 500, 1000, 1500), [range(1000), range(1001, 1501)]),
        ((0, 500, 1000, 1500), [range(800), range(501, 1501)]),
        # Saved once, and killed before the next save.
        ((1000,), [range(1900)]),
        # An evaluation logged one step.
        ((0, 500, 999), [range(1000), range(999, 1000)]),
    ],
)
def test_ordinary_trainings(tmp_path: Path, steps: tuple[int, ...], sessions: list[range]) -> None:
    assert judged(tmp_path, steps, *sessions) == Contradictions()


def test_a_checkpoint_beyond_the_log(tmp_path: Path) -> None:
    (warning,) = judged(tmp_path, (2000, 2500, 3000), range(900)).warnings
    assert "model_3000.pt has step 3000, but the newest log ends at step 899" in warning


def test_a_log_beyond_the_newest_checkpoint(tmp_path: Path) -> None:
    (warning,) = judged(tmp_path, (0, 500, 1000), range(5000)).warnings
    assert "continues to step 4999" in warning and "model_1000.pt has the step 1000" in warning


def test_a_log_goes_on_after_any_checkpoint_but_the_final_one(tmp_path: Path) -> None:
    judged(tmp_path, (0, 500, 1000), range(5000))
    source = LocalSource(tmp_path)
    metrics = read_metrics(Tree(source, source.scan()))
    run = Run(checkpoints(0, 500, 1000))
    assert contradictions("rsl_rl", run, run.checkpoints[1], metrics) == Contradictions()
    assert contradictions("rsl_rl", run, run.checkpoints[0], metrics).warnings


def test_a_log_that_was_cut_does_not_say_where_the_training_ended(tmp_path: Path) -> None:
    assert judged(tmp_path, (2000, 2500, 3000), range(900)).warnings
    (path,) = tmp_path.glob("events*")
    path.write_bytes(path.read_bytes()[:-3])
    source = LocalSource(tmp_path)
    metrics = read_metrics(Tree(source, source.scan()))
    run = Run(checkpoints(2000, 2500, 3000))
    assert contradictions("rsl_rl", run, run.checkpoints[0], metrics) == Contradictions()


def test_steps_of_another_unit_are_not_compared(tmp_path: Path) -> None:
    assert judged(tmp_path, (0, 500, 1000), range(5000), framework="generic") == Contradictions()
    assert judged(tmp_path / "b", (0, 500, 1000), range(5000), framework="lightning") == Contradictions()
    # RSL-RL also logs the same values with the training's seconds as steps.
    assert judged(tmp_path / "c", (0, 500, 1000), range(5000), tag=TAG + "/time") == Contradictions()


def test_of_lightning_only_a_log_that_goes_on_far_says_something(tmp_path: Path) -> None:
    # Two optimizers: a checkpoint counts twice as many steps as the log.
    ordinary = ((2000, range(1000)), (1000, range(1900)))
    for number, (step, logged) in enumerate(ordinary):
        found = judged(tmp_path / str(number), (step,), logged, framework="lightning", tag="epoch")
        assert found == Contradictions()
    (warning,) = judged(tmp_path / "c", (100,), range(9000), framework="lightning", tag="epoch").warnings
    assert "continues to step 8999" in warning


@settings(max_examples=40)
@given(
    older=st.integers(3, 30),
    newer=st.integers(2, 29),
    interval=st.integers(5, 20),
    every=st.integers(1, 5),
)
def test_a_folder_that_was_used_again(older: int, newer: int, interval: int, every: int) -> None:
    """If the newer training did not get as far, a file of the older one is never final without a warning."""
    if newer >= older:
        older, newer = newer + 1, older
    ends = [older * interval, newer * interval]
    steps = {step for end in ends for step in (*range(0, end, interval), end - 1)}
    with tempfile.TemporaryDirectory() as folder:
        found = judged(Path(folder), tuple(steps), *(range(0, end, every) for end in ends))
    assert any("older training" in warning for warning in found.warnings)
    # The newer one's log ends at least one interval before the older one's last save.
    assert found.undecided
    assert f"model_{ends[1] - 1}.pt" in found.choices and f"model_{ends[0] - 1}.pt" in found.choices


def test_the_order_is_that_of_the_points_where_names_tell_none(tmp_path: Path) -> None:
    # Started in the same second: the name shows that the first one is older.
    write_events(
        tmp_path / "events.out.tfevents.1795989180.vm.9.1", [(TAG, n, 1.0) for n in range(900)], 1.77e9
    )
    write_events(
        tmp_path / "events.out.tfevents.1795989180.vm.9.2", [(TAG, n, 1.0) for n in range(2900)], 1.76e9
    )
    source = LocalSource(tmp_path)
    (restart,) = read_metrics(Tree(source, source.scan())).restarts
    assert (restart.older.last, restart.newer.last) == (2899, 899)


def test_the_plan_stops_and_a_path_decides(aml_mirror: Call, tmp_path: Path) -> None:
    run = tmp_path / "input"
    for step in (0, 500, 999, 1000, 2999):
        save(run / f"model_{step}.pt", {"iter": step, "infos": None}, b"%d" % step)
    for begun, end in ((1_760_000_000, 3000), (1_770_000_000, 1000)):
        rows = [(TAG, step, 1.0) for step in range(0, end, 10)]
        write_events(run / f"events.out.tfevents.{begun}.vm.1.0", rows, float(begun))
    failed = aml_mirror("plan", "--source", run, "--json", code=64)
    for name in ("model_999.pt", "model_2999.pt"):
        assert f"--checkpoint {name}" in failed.err
        plan: dict[str, Any] = aml_mirror("plan", "--source", run, "--json", "--checkpoint", name).json
        assert plan["checkpoint"]["path"] == name
        assert any("older training" in warning for warning in plan["warnings"])


@pytest.mark.parametrize("name", sorted(path.name for path in RUNS.iterdir() if path.is_dir()))
def test_nothing_speaks_against_the_runs_of_real_frameworks(name: str) -> None:
    source = LocalSource(RUNS / name)
    tree = Tree(source, source.scan())
    found = find_run(tree)
    run = found.read(tree)
    metrics = read_metrics(tree.below(found.root), run.logs)
    assert contradictions(found.layout.name, run, run.checkpoints[0], metrics) == Contradictions()
