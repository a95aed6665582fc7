"""logs.py: points from the frameworks' own logs. numpy writes the arrays."""

from __future__ import annotations

import csv
import io
import json
import math
import pickle
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aml_mirror.formats import npy as npy_format
from aml_mirror.metrics.log_files import LogFile, newest
from aml_mirror.metrics.readers import log_formats
from aml_mirror.metrics.readers.event_file import TRUNCATED, EventFile
from aml_mirror.sources import Tree
from aml_mirror.sources.local import LocalSource

DATA = Path(__file__).parents[1] / "data" / "events"


def tree_of(path: Path) -> Tree:
    source = LocalSource(path)
    return Tree(source, source.scan())


def read(path: Path) -> tuple[list[tuple[str, int, float]], LogFile]:
    log = LogFile(tree_of(path.parent), path.name)
    return [(tag, step, value) for tag, step, _, value in log], log


def trainer_state(path: Path, *history: Any, text: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if text is not None else json.dumps({"log_history": history}))
    return path


def lines(path: Path, *entries: Any, tail: str = "") -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries) + tail)
    return path


def evaluations(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_trainer_state_says_what_the_trainers_own_event_file_says() -> None:
    points, log = read(DATA / "huggingface" / "trainer_state.json")
    (events,) = (DATA / "huggingface").glob("*.tfevents.*")
    with events.open("rb") as stream:
        written = [(tag, step, value) for tag, step, _, value in EventFile(stream, events.name)]
    # Event files hold single precision.
    assert sorted((tag, step, float(np.float32(value))) for tag, step, value in points) == sorted(written)
    assert (log.ended, log.skipped_records) == (None, 0)


def test_trainer_state_names_tags_as_the_callback_does(tmp_path: Path) -> None:
    entry = {"loss": 1, "eval_loss": 2.0, "test_acc": 3.0, "epoch": 0.5, "step": 10, "note": "x", "on": True}
    points, _ = read(trainer_state(tmp_path / "trainer_state.json", entry))
    assert points == [
        ("train/loss", 10, 1.0),
        ("eval/loss", 10, 2.0),
        ("test/acc", 10, 3.0),
        ("train/epoch", 10, 0.5),
    ]


def test_values_that_are_not_finite_are_read_from_json(tmp_path: Path) -> None:
    text = '{"log_history": [{"step": 1, "loss": NaN, "a": Infinity, "b": -Infinity}]}'
    points, _ = read(trainer_state(tmp_path / "trainer_state.json", text=text))
    assert math.isnan(points[0][2])
    assert [value for _, _, value in points[1:]] == [math.inf, -math.inf]


def test_entries_without_a_usable_step_are_counted(tmp_path: Path) -> None:
    history = [
        {"loss": 1.0},
        {"step": "1"},
        {"step": 1.5},
        {"step": 1 << 63},
        {"step": True},
        7,
        {"step": 2.0, "a": 1},
    ]
    points, log = read(trainer_state(tmp_path / "trainer_state.json", *history))
    assert points == [("train/a", 2, 1.0)]
    assert log.skipped_records == 6


def test_a_number_no_float_can_hold_is_counted(tmp_path: Path) -> None:
    points, log = read(trainer_state(tmp_path / "trainer_state.json", {"step": 1, "a": 10**400, "b": 1}))
    assert points == [("train/b", 1, 1.0)]
    assert log.skipped_records == 1


def test_half_a_surrogate_pair_in_a_key_becomes_text(tmp_path: Path) -> None:
    text = '{"log_history": [{"step": 1, "a\\ud800": 1}]}'
    points, _ = read(trainer_state(tmp_path / "trainer_state.json", text=text))
    assert points == [("train/a?", 1, 1.0)]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"log_history": {}}', '{"log_history": [', "[" * 100_000, "\0"]
)
def test_a_malformed_trainer_state_is_told_not_raised(tmp_path: Path, text: str) -> None:
    points, log = read(trainer_state(tmp_path / "trainer_state.json", text=text))
    assert points == []
    assert log.ended


def test_the_wall_time_is_the_step_in_milliseconds(tmp_path: Path) -> None:
    path = trainer_state(tmp_path / "trainer_state.json", {"step": 1500, "a": 1}, {"step": -3, "a": 1})
    assert [point[2] for point in LogFile(tree_of(path.parent), path.name)] == [1.5, 0.0]


def test_of_the_copies_of_a_trainer_state_the_one_that_goes_furthest_is_read(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        trainer_state(tmp_path / f"checkpoint-{step}" / "trainer_state.json", {"step": step, "a": 1})
    trainer_state(tmp_path / "other" / "trainer_state.json", {"step": 1, "a": 1})
    (tmp_path / "logs.json.txt").write_text("")
    tree = tree_of(tmp_path)
    others = ["logs.json.txt", "other/trainer_state.json"]
    assert newest(tree, list(tree.files)) == sorted([*others, "checkpoint-100/trainer_state.json"])
    trainer_state(tmp_path / "trainer_state.json", {"step": 100, "a": 1})
    assert newest(tree_of(tmp_path), list(tree_of(tmp_path).files)) == sorted([*others, "trainer_state.json"])
    # A copy in the root from an earlier training is older than the checkpoint of the resumed training.
    trainer_state(tmp_path / "trainer_state.json", {"step": 50, "a": 1})
    chosen = newest(tree_of(tmp_path), list(tree_of(tmp_path).files))
    assert chosen == sorted([*others, "checkpoint-100/trainer_state.json"])


def table(path: Path, header: list[str], *rows: dict[str, Any], tail: str = "") -> Path:
    """As Lightning's CSVLogger writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, header)
        writer.writeheader()
        writer.writerows(rows)
        stream.write(tail)
    return path


def test_a_table_of_lightning(tmp_path: Path) -> None:
    path = table(
        tmp_path / "metrics.csv",
        ["epoch", "step", "train/loss", "väl, loss", "note"],
        {"epoch": 0, "step": 49, "train/loss": 0.1 + 0.2, "note": "warm-up"},
        {"epoch": 0, "step": 49, "väl, loss": float("nan")},
        {"epoch": 1, "step": 99, "train/loss": "1_000", "väl, loss": float("-inf")},
    )
    points, log = read(path)
    assert points[:2] == [("epoch", 49, 0.0), ("train/loss", 49, 0.1 + 0.2)]
    assert points[2:4] == [("epoch", 49, 0.0), ("väl, loss", 49, pytest.approx(math.nan, nan_ok=True))]
    assert points[4:] == [("epoch", 99, 1.0), ("väl, loss", 99, -math.inf)]
    assert (log.ended, log.skipped_records, log.points) == (None, 0, 6)


def test_a_table_of_stable_baselines3_says_what_its_event_file_would(tmp_path: Path) -> None:
    path = tmp_path / "progress.csv"
    path.write_text(
        "time/iterations,rollout/ep_rew_mean,time/time_elapsed,time/fps,time/total_timesteps,note\n"
        '1,,0,512,2048,"say ""so"", twice"\n'
        "2,-3.5,1,500,4096.0,\n"
    )
    points, log = read(path)
    assert points == [("time/fps", 2048, 512), ("rollout/ep_rew_mean", 4096, -3.5), ("time/fps", 4096, 500)]
    assert (log.ended, log.skipped_records) == (None, 0)


def test_rows_without_a_usable_step_are_counted_and_a_short_one_is_read_as_far_as_it_goes(
    tmp_path: Path,
) -> None:
    path = tmp_path / "metrics.csv"
    steps = ("", "x", "1.5", str(1 << 63), "nan", "inf", "9" * 5000)
    path.write_text("a,step,b\n" + "".join(f"1,{step},2\n" for step in steps) + "3\n,,\n\n4,7\n5,8,6,9\n")
    points, log = read(path)
    assert points == [("a", 7, 4), ("a", 8, 5), ("b", 8, 6)]
    assert log.skipped_records == len(steps) + 1


def test_half_a_row_at_the_end_is_not_taken_for_a_number(tmp_path: Path) -> None:
    path = table(tmp_path / "metrics.csv", ["step", "a"], {"step": 1, "a": 0.25}, tail="2,0.12")
    points, log = read(path)
    assert (points, log.ended) == ([("a", 1, 0.25)], TRUNCATED)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no column 'step'"),
        ("a,b\n1,2\n", "no column 'step'"),
        ("step,a\n1,2\n2," + "9" * (2 << 20) + "\n3,4\n", "longer than 1 MiB"),
        ('step,a\n1,2\n2,"' + "9\n" * 100_000 + '"\n', "it is not a table"),
    ],
)
def test_what_is_no_table_is_told_and_what_stands_before_it_read(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    points, log = read(path)
    assert points == ([("a", 1, 2)] if "1,2\n2" in text else [])
    assert why in (log.ended or "")


def test_evaluations_that_stand_in_the_table_too_are_read_once(tmp_path: Path) -> None:
    evaluations(tmp_path / "evaluations.npz", timesteps=[100], results=[[1.0]])
    step, tag = "time/total_timesteps", "eval/mean_reward"
    table(tmp_path / "log" / "progress.csv", [step, tag], {step: 100, tag: 1.0})
    tree = tree_of(tmp_path)
    assert newest(tree, list(tree.files)) == ["log/progress.csv"]
    table(tmp_path / "log" / "progress.csv", [step, tag], {step: 100})
    tree = tree_of(tmp_path)
    assert newest(tree, list(tree.files)) == ["evaluations.npz", "log/progress.csv"]


def test_json_lines(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "logs.json.txt",
        {"train_loss": 0.5, "global_step": 0, "epoch": 0, "lr": 1e-4},
        {"train_loss": float("nan"), "global_step": 1, "epoch": 0, "videos": ["a"], "test/mean_score": 1.0},
    )
    points, log = read(path)
    assert points[:3] == [("train_loss", 0, 0.5), ("epoch", 0, 0.0), ("lr", 0, 1e-4)]
    assert [tag for tag, _, _ in points[3:]] == ["train_loss", "epoch", "test/mean_score"]
    assert math.isnan(points[3][2])
    assert (log.ended, log.skipped_records) == (None, 0)


def test_a_cut_last_line_ends_the_log(tmp_path: Path) -> None:
    whole = json.dumps({"global_step": 1, "a": 12.5})
    first = json.dumps({"global_step": 0, "a": 1.0}) + "\n"
    for cut in range(1, len(whole)):
        path = lines(tmp_path / "logs.json.txt", tail=first + whole[:cut])
        points, log = read(path)
        assert points == [("a", 0, 1.0)]
        assert (log.ended, log.skipped_records) == (TRUNCATED, 0)


def test_bad_lines_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "logs.json.txt"
    path.write_bytes(
        b'{"global_step": 0, "a": 1}\nrubbish\n\xff\xfe\n{"a": 1}\n[]\n\n{"global_step": 3, "a": 2}\n'
    )
    points, log = read(path)
    assert points == [("a", 0, 1.0), ("a", 3, 2.0)]
    assert (log.ended, log.skipped_records) == (None, 4)


def test_a_line_too_long_to_hold_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "logs.json.txt"
    long = '{"global_step": 0, "a": "' + "x" * (3 * log_formats.MAX_LINE) + '"}\n'
    path.write_text(long + '{"global_step": 1, "a": 2}\n')
    points, log = read(path)
    assert points == [("a", 1, 2.0)]
    assert log.skipped_records == 1


@settings(max_examples=200)
@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=8).map(sorted), max_size=4))
def test_a_resumed_json_log_yields_the_resumed_values(sessions: list[list[int]]) -> None:
    entries = [
        (step, (number, index)) for number, steps in enumerate(sessions) for index, step in enumerate(steps)
    ]
    steps = [step for step, _ in entries]
    # The rule in its simple, slow form: a step that goes back replaces everything from there on.
    kept = [
        (f"s{number}.{index}", step)
        for position, (step, (number, index)) in enumerate(entries)
        if not any(
            steps[later] < steps[later - 1] and step >= steps[later]
            for later in range(position + 1, len(steps))
        )
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = lines(
            Path(folder) / "logs.json.txt",
            *({"global_step": step, f"s{number}.{index}": 1} for step, (number, index) in entries),
        )
        points, log = read(path)
    assert [(tag, step) for tag, step, _ in points] == kept
    assert log.superseded == len(entries) - len(kept)


def test_evaluations_that_stable_baselines3_wrote() -> None:
    points, log = read(DATA / "stable_baselines3" / "evaluations.npz")
    (events,) = (DATA / "stable_baselines3").glob("*.tfevents.*")
    with events.open("rb") as stream:
        written = [point for point in EventFile(stream, events.name) if point[0].startswith("eval/mean_")]
    assert len(points) == 14
    assert sorted((tag, step, float(np.float32(value))) for tag, step, value in points) == sorted(
        (tag, step, value) for tag, step, _, value in written
    )
    assert (log.ended, log.skipped_records) == (None, 0)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", "<f2", "<i8", ">i4", "<u2", "i1", "?"])
def test_arrays_of_every_plain_dtype_and_order(tmp_path: Path, dtype: str, order: Any) -> None:
    results = np.array([[1, 0, 1], [1, 1, 1], [0, 0, 0]], dtype, order=order)
    path = evaluations(tmp_path / "evaluations.npz", timesteps=np.array([10, 20, 30]), results=results)
    points, _ = read(path)
    means = [float(row.astype(float).mean()) for row in results]
    assert [value for _, _, value in points] == means
    assert [point[:2] for point in points] == [("eval/mean_reward", step) for step in (10, 20, 30)]


def test_all_tags_of_evaluations_and_values_that_are_not_finite(tmp_path: Path) -> None:
    path = evaluations(
        tmp_path / "evaluations.npz",
        timesteps=np.array([1, 2, 3]),
        results=np.array([[math.inf, -math.inf], [math.inf, 1.0], [1e308, 1e308]]),
        ep_lengths=np.array([[1, 2], [3, 4], [5, 5]]),
        successes=np.array([[True, False], [True, True], [False, False]]),
    )
    points, _ = read(path)
    tags = [tag for tag, _, _ in points[::3]]
    assert tags == ["eval/mean_reward", "eval/mean_ep_length", "eval/success_rate"]
    assert math.isnan(points[0][2])
    assert points[1][2] == math.inf
    assert [value for tag, _, value in points if tag == "eval/success_rate"] == [0.5, 1.0, 0.0]


class Boom:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("it was unpickled",))


def test_object_arrays_are_refused_and_never_unpickled(tmp_path: Path) -> None:
    objects = np.empty(1, object)
    objects[0] = Boom()
    path = evaluations(tmp_path / "evaluations.npz", timesteps=np.array([1]), results=objects)
    points, log = read(path)
    assert points == []
    assert log.ended and "not plain numbers" in log.ended
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("timesteps.npy", pickle.dumps(Boom()))
    assert read(path)[1].ended


def npy(shape: str, descr: str = "'<f8'", data: bytes = b"") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    "member",
    [
        b"",
        b"\x93NUMPY\x01\x00\xff\xff{",
        npy("(1000000000, 1000)"),
        npy("(10**9,)"),
        npy("(-1,)"),
        npy("(2097153, 0)"),
        npy("(1, 1, 1)", data=b"\0" * 8),
        npy("()", data=b"\0" * 8),
        npy("(2,)", data=b"\0" * 8),
        npy("(1,)", "[('a', '<f8')]", b"\0" * 8),
        npy("(1,)", "'<U2'", b"\0" * 8),
        npy("(" * 300),
        npy("__import__('os')"),
    ],
)
def test_malformed_arrays_are_told_not_raised(tmp_path: Path, member: bytes) -> None:
    path = tmp_path / "evaluations.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("timesteps.npy", npy("(1,)", data=b"\0" * 8))
        archive.writestr("results.npy", member)
    points, log = read(path)
    assert points == []
    assert log.ended


def test_a_zip_bomb_is_not_inflated(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.npz"
    claimed = npy(f"({npy_format.MAX_ARRAY // 8 + 1},)")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("timesteps.npy", claimed + b"\0" * (64 << 20))
    assert "larger than" in (read(path)[1].ended or "")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("timesteps.npy", npy("(1,)", data=b"\0" * 8))
    assert "compressed" in (read(path)[1].ended or "")


def test_an_archive_damaged_anywhere_never_raises(tmp_path: Path) -> None:
    path = evaluations(
        tmp_path / "evaluations.npz", timesteps=np.array([1, 2]), results=np.array([[1.0], [2.0]])
    )
    whole = path.read_bytes()
    for at in range(len(whole)):
        for mask in (0x01, 0x80, 0xFF):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :])
            read(path)
        path.write_bytes(whole[:at])
        assert read(path)[1].ended


@settings(max_examples=200)
@given(st.sampled_from(sorted(log_formats.READERS)), st.binary(max_size=200))
def test_no_bytes_can_make_a_log_raise(name: str, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        read(path)


def test_a_log_of_another_name_is_told(tmp_path: Path) -> None:
    path = tmp_path / "monitor.csv"
    path.write_text("a,b\n")
    assert read(path)[1].ended


def test_the_runtime_has_no_numpy() -> None:
    code = "import sys, aml_mirror.metrics.series; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_array_written_by_hand_is_one_numpy_reads() -> None:
    # The tests above assume that npy() makes arrays with only the intended errors.
    assert np.load(io.BytesIO(npy("(1,)", data=b"\0" * 8))).tolist() == [0.0]
