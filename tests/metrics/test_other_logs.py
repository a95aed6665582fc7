"""Logs of no known framework are read if a column or key names the step, and reported otherwise."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aml_mirror.metrics.readers.other_logs import other_logs
from aml_mirror.metrics.series import Metrics, read_metrics
from aml_mirror.metrics.unread_logs import unread_logs
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from builders.runs import write_events


def tree_of(path: Path) -> Tree:
    source = LocalSource(path)
    return Tree(source, source.scan())


def read(path: Path, *logs: str) -> Metrics:
    return read_metrics(tree_of(path), list(logs))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def points(metrics: Metrics) -> list[tuple[str, int, float]]:
    return sorted((name, step, value) for name, value, _, step in metrics.stream())


def test_the_tables_of_tdmpc2_and_rllib(tmp_path: Path) -> None:
    write(tmp_path / "a/eval.csv", "step,episode_reward\n0,10.0\n50000,500.5\n")
    assert points(read(tmp_path / "a")) == [("episode_reward", 0, 10.0), ("episode_reward", 50000, 500.5)]
    # RLlib's step is timesteps_total if present, or else the iteration.
    write(tmp_path / "b/progress.csv", "training_iteration,env_runners/return\n1,10.5\n2,20.5\n")
    write(tmp_path / "b/result.json", '{"training_iteration": 1, "config": {"lr": 1}}\n')
    assert points(read(tmp_path / "b")) == [("env_runners/return", 1, 10.5), ("env_runners/return", 2, 20.5)]
    write(tmp_path / "c/progress.csv", "timesteps_total,training_iteration,return\n4000,1,10.5\n,2,20.5\n")
    assert points(read(tmp_path / "c")) == [("return", 2, 20.5), ("return", 4000, 10.5)]


def test_objects_in_lines(tmp_path: Path) -> None:
    write(
        tmp_path / "a/metrics.jsonl", '{"step": 8, "episode/score": 1.5}\n{"step": 16, "episode/score": 2}\n'
    )
    assert points(read(tmp_path / "a")) == [("episode/score", 8, 1.5), ("episode/score", 16, 2.0)]
    result = {"training_iteration": 3, "config": {"lr": 1}, "env_runners": {"return": 2.5, "num": {"x": 1}}}
    write(tmp_path / "b/result.json", json.dumps(result) + "\n")
    assert points(read(tmp_path / "b")) == [("env_runners/num/x", 3, 1.0), ("env_runners/return", 3, 2.5)]
    write(tmp_path / "c/metrics.json", '{"iteration": 19, "total_loss": 0.5}\n')
    assert points(read(tmp_path / "c")) == [("total_loss", 19, 0.5)]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("eval.csv", "reward,length\n1,2\n", "no column"),
        ("eval_results.jsonl", '{"reward": 1}\n{"reward": 2}\n', "none of its entries has a step"),
        ("train_log.csv", "", "no column"),
        ("metrics.json", '{\n "final": 1\n}\n', "none of its entries has a step"),
    ],
)
def test_a_log_that_is_not_read_is_named(tmp_path: Path, name: str, text: str, why: str) -> None:
    write(tmp_path / name, text)
    found = read(tmp_path)
    (warning,) = found.warnings
    assert warning.startswith(f"{name} was not read: ") and why in warning
    assert found.note.startswith("no metrics were found")


def test_where_event_files_hold_points_the_others_are_named(tmp_path: Path) -> None:
    write_events(tmp_path / "events.out.tfevents.1764000000.vm.1.0", [("loss", 1, 0.5)])
    write(tmp_path / "eval.csv", "step,episode_reward\n0,10.0\n")
    write(tmp_path / "metrics.csv", "step,loss\n1,0.5\n")
    found = read(tmp_path, "metrics.csv")
    assert found.points == 1 and found.note == ""
    (warning,) = found.warnings
    assert warning.startswith("eval.csv was not read")


@pytest.mark.parametrize("events", [False, True])
@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("0.monitor.csv", "0.monitor.csv"),
        ("logs/losses.npz", "logs/losses.npz"),
        ("metrics.jsonl.gz", "metrics.jsonl.gz"),
        ("train.csv.gz", "train.csv.gz"),
        ("train_log.pkl", "train_log.pkl"),
        ("history.json", "history.json"),
        ("metrics.parquet", "metrics.parquet"),
        ("mlflow.db", "mlflow.db"),
        ("mlruns/0/abc/metrics/loss", "mlruns/"),
        ("a/wandb/run-20260101_010101-abc/files/wandb-summary.json", "a/wandb/"),
        (".aim/meta/chunks/abc/LOG", ".aim/"),
        ("a/.cometml-runs/0123.zip", "a/.cometml-runs/"),
        (".neptune/async/run__1/exec-0/data-1.log", ".neptune/"),
        ("swanlog/run-1/backup.swanlab", "swanlog/"),
        ("dvclive/plots/metrics/loss.tsv", "dvclive/"),
    ],
)
def test_a_log_of_a_format_that_is_not_read_is_named(
    tmp_path: Path, path: str, named: str, events: bool
) -> None:
    write(tmp_path / path, "x")
    if events:
        write_events(tmp_path / "events.out.tfevents.1764000000.vm.1.0", [("loss", 1, 0.5)])
    (warning,) = read(tmp_path).warnings
    assert warning.startswith(f"{named} was not read: ")


def test_a_tracker_in_a_folder_that_is_no_runs_is_not_named(tmp_path: Path) -> None:
    write(tmp_path / ".venv/lib/python3.12/site-packages/x/.neptune/data.log", "x")
    write(tmp_path / "node_modules/.aim/db", "x")
    assert not read(tmp_path).warnings


def test_of_many_logs_of_a_folder_one_is_named(tmp_path: Path) -> None:
    for number in range(70):
        write(tmp_path / f"monitors/{number:02}.monitor.csv", "r,l,t\n")
        write(tmp_path / f"eval/eval_{number:02}.csv", "step,reward\n1,2.0\n")
    assert [warning.partition(" was")[0].partition(" were")[0] for warning in read(tmp_path).warnings] == [
        "eval/eval_00.csv and 69 like it",
        "monitors/00.monitor.csv and 69 like it",
    ]


def test_the_tables_of_spinning_up_and_prismatic(tmp_path: Path) -> None:
    write(tmp_path / "a/progress.txt", "Epoch\tAverageEpRet\tTotalEnvInteracts\n0\t1.5\t4000\n")
    assert ("AverageEpRet", 4000, 1.5) in points(read(tmp_path / "a"))
    write(tmp_path / "b/run-metrics.jsonl", '{"run_id": "x", "hparams": {}}\n')
    write(tmp_path / "b/bridge+x7.jsonl", '{"VLA Train/Step": 3, "VLA Train/Loss": 0.5}\n')
    found = read(tmp_path / "b")
    assert ("VLA Train/Loss", 3, 0.5) in points(found) and not found.warnings


def test_data_is_no_log(tmp_path: Path) -> None:
    for path in (
        "meta/episodes.jsonl",
        "dataset/train.jsonl",
        "episodes.jsonl",
        "tasks.jsonl",
        "wandb/run-1/files/metrics.jsonl",
        "data/train.csv",
        "config.json",
        "vocab.csv",
        "dataset_stats.pkl",
        "motions.npz",
        "train_actions.npy",
        "params/agent.pkl",
        "all_results.json",
        "run-metrics.jsonl",
    ):
        write(tmp_path / path, "{}\n")
    tree = tree_of(tmp_path)
    assert other_logs(tree) == []
    assert unread_logs(tree, ()) == ["wandb/"]


NAMES = st.sampled_from(["eval.csv", "logs/train.csv", "scores.csv", "train_metrics.csv", "x/progress.csv"])
STEPS = st.sampled_from(["step", "global_step", "iteration", "total_steps", "epoch", "training_iteration"])
CELLS = st.one_of(st.floats(allow_nan=False, allow_infinity=False, width=32), st.integers(-99, 99))


@settings(max_examples=60)
@given(
    name=NAMES,
    column=STEPS,
    rows=st.dictionaries(st.integers(0, 10**9), CELLS, min_size=1, max_size=5),
)
def test_every_row_of_a_table_is_a_point_at_its_own_step(
    name: str, column: str, rows: dict[int, float]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"reward,{column}", *(f"{value!r},{step}" for step, value in rows.items())]
        write(Path(folder) / name, "\n".join(lines) + "\n")
        found = read(Path(folder))
        assert points(found) == sorted(("reward", step, float(value)) for step, value in rows.items())
        assert not found.warnings
