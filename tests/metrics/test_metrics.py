"""metrics.py, sessions.py and metric_names.py: which points are sent, under which names, in which order."""

from __future__ import annotations

import json
import math
import os
import posixpath
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from aml_mirror.core.errors import DataError
from aml_mirror.metrics import series as metrics_module
from aml_mirror.metrics.main_series import main_series
from aml_mirror.metrics.readers.event_file import TRUNCATED
from aml_mirror.metrics.series import Metrics, read_metrics
from aml_mirror.metrics.series_names import MAX_NAME, assign_names, valid_name
from aml_mirror.sources import Tree
from aml_mirror.sources.local import LocalSource

DATA = Path(__file__).parents[1] / "data" / "events"
# The first moment of 2024, in seconds since the epoch.
START = 1704067200.0


def scalar(tag: str, step: int, value: float, wall_time: float | None = None) -> Event:
    when = START + step if wall_time is None else wall_time
    return Event(
        wall_time=when, step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)])
    )


def restart(step: int) -> Event:
    return Event(wall_time=START + step, step=step, session_log=SessionLog(status=SessionLog.START))


def write(root: Path, path: str, *events: Event) -> Path:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    with (root / path).open("wb") as stream:
        writer = RecordWriter(stream)
        for event in events:
            writer.write(event.SerializeToString())
    return root / path


def tree_of(path: Path) -> Tree:
    source = LocalSource(path)
    return Tree(source, source.scan())


def read(path: Path, *logs: str) -> Metrics:
    return read_metrics(tree_of(path), list(logs))


def sent(found: Metrics) -> list[tuple[str, int, float]]:
    return [(name, step, value) for name, value, _, step in found.stream()]


@pytest.mark.parametrize(
    ("folder", "points", "tags", "last"),
    [
        # Counts and last values from TensorBoard's own loader, recorded when the runs were made.
        ("huggingface", 374, 14, ("eval/accuracy", 160, 0.375)),
        ("lightning", 1001, 6, ("val/loss", 399, 0.4834848642349243)),
        ("stable_baselines3", 1421, 14, ("eval/mean_reward", 14000, 500.0)),
        ("rsl_rl_cut", 2639, 16, ("Train/mean_reward", 164, 37.73516845703125)),
    ],
)
def test_real_runs(folder: str, points: int, tags: int, last: tuple[str, int, float]) -> None:
    found = read(DATA / folder, "trainer_state.json", "evaluations.npz")
    assert (found.points, found.points_read, len(found.series), len(found.tags)) == (
        points,
        points,
        tags,
        tags,
    )
    assert (found.skipped_records, found.warnings) == (0, ())
    main = main_series(found.series)
    assert main is not None
    assert (main.name, main.last_step, main.last) == last
    assert len(sent(found)) == points
    (source,) = found.sources
    assert source["points"] == points
    assert source.get("ended") == (TRUNCATED if folder == "rsl_rl_cut" else None)


def test_points_carry_their_own_step_and_wall_time(tmp_path: Path) -> None:
    write(
        tmp_path, "a.tfevents.1.x", scalar("loss", 7, 0.5, START + 0.0625), scalar("loss", 8, 0.25, START + 1)
    )
    milliseconds = int(START * 1000)
    assert list(read(tmp_path).stream()) == [
        ("loss", 0.5, milliseconds + 62, 7),
        ("loss", 0.25, milliseconds + 1000, 8),
    ]


def test_a_series_tells_its_range_and_skips_what_is_not_finite(tmp_path: Path) -> None:
    values = [3.0, math.inf, 1.0, 5.0, 1.0, 5.0, -math.inf, math.nan]
    write(tmp_path, "a.tfevents.1.x", *(scalar("a", step, value) for step, value in enumerate(values)))
    (series,) = read(tmp_path).series
    assert (series.points, series.first_step, series.last_step) == (8, 0, 7)
    assert math.isnan(series.last_value)
    assert (series.min_value, series.min_step) == (1.0, 2)
    assert (series.max_value, series.max_step) == (5.0, 3)
    assert len(sent(read(tmp_path))) == 8


def test_the_last_value_is_the_last_written_at_the_largest_step(tmp_path: Path) -> None:
    write(tmp_path, "a.tfevents.1.x", *(scalar("a", *point) for point in ((9, 1.0), (9, 2.0), (3, 7.0))))
    (series,) = read(tmp_path).series
    assert (series.first_step, series.last_step, series.last_value) == (3, 9, 2.0)


# --- sessions ---


def test_a_resumed_session_supersedes_from_its_first_step_of_each_tag(tmp_path: Path) -> None:
    write(
        tmp_path,
        "events.out.tfevents.100.vm.1.0",
        *(scalar("a", step, 1.0) for step in range(5)),
        *(scalar("b", step, 1.0) for step in range(5)),
        scalar("gone", 9, 1.0),
    )
    write(
        tmp_path,
        "events.out.tfevents.200.vm.2.0",
        *(scalar("a", step, 2.0) for step in range(3, 7)),
        scalar("b", 4, 2.0),
    )
    found = read(tmp_path)
    assert sent(found) == [
        *(("a", step, 1.0) for step in (0, 1, 2)),
        *(("b", step, 1.0) for step in (0, 1, 2, 3)),
        ("gone", 9, 1.0),
        *(("a", step, 2.0) for step in (3, 4, 5, 6)),
        ("b", 4, 2.0),
    ]
    assert (found.points, found.points_read) == (13, 16)
    (warning,) = found.warnings
    assert warning.startswith("3 points")
    assert {series.tag: series.points for series in found.series} == {"a": 7, "b": 5, "gone": 1}
    assert {series.tag: series.last_value for series in found.series} == {"a": 2.0, "b": 2.0, "gone": 1.0}


def test_sessions_are_in_order_of_their_time_not_of_their_names(tmp_path: Path) -> None:
    # Sorted by name, 1000 comes before 999, and pid 9 after pid 10.
    write(tmp_path, "events.out.tfevents.1000.vm.9.0", scalar("a", 1, 2.0))
    write(tmp_path, "events.out.tfevents.1000.vm.10.0", scalar("a", 1, 3.0))
    write(tmp_path, "events.out.tfevents.999.vm.99.0", scalar("a", 1, 1.0))
    write(tmp_path, "z.tfevents.99.vm.99.0", scalar("a", 1, 0.0))
    assert sent(read(tmp_path)) == [("a", 1, 3.0)]


def test_three_sessions_each_restating_the_one_before(tmp_path: Path) -> None:
    for number, steps in enumerate((range(10), range(5, 12), range(3, 4))):
        write(
            tmp_path,
            f"events.out.tfevents.{number}.vm",
            *(scalar("a", step, float(number)) for step in steps),
        )
    assert sent(read(tmp_path)) == [("a", 0, 0.0), ("a", 1, 0.0), ("a", 2, 0.0), ("a", 3, 2.0)]


def test_a_restart_supersedes_every_tag_from_its_step_on(tmp_path: Path) -> None:
    write(tmp_path, "e.tfevents.1.x", *(scalar(tag, step, 1.0) for tag in "ab" for step in (1, 2, 3)))
    write(tmp_path, "e.tfevents.2.x", restart(2), scalar("a", 5, 2.0))
    found = read(tmp_path)
    assert sent(found) == [("a", 1, 1.0), ("b", 1, 1.0), ("a", 5, 2.0)]
    assert found.points_read == 7
    assert found.warnings[0].startswith("4 points")


def test_of_several_restarts_the_one_that_goes_back_furthest_counts(tmp_path: Path) -> None:
    write(tmp_path, "e.tfevents.1.x", *(scalar("a", step, 1.0) for step in range(1, 6)))
    write(tmp_path, "e.tfevents.2.x", restart(4), scalar("b", 1, 2.0))
    write(tmp_path, "e.tfevents.3.x", restart(2), scalar("c", 1, 3.0))
    assert sent(read(tmp_path)) == [("a", 1, 1.0), ("b", 1, 2.0), ("c", 1, 3.0)]


def test_a_series_that_is_superseded_whole_is_none_but_its_tag_was_read(tmp_path: Path) -> None:
    write(tmp_path, "e.tfevents.1.x", scalar("old", 1, 1.0))
    write(tmp_path, "e.tfevents.2.x", restart(0), scalar("new", 1, 1.0))
    found = read(tmp_path)
    assert [series.name for series in found.series] == ["new"]
    assert found.tags == ("new", "old")


def test_within_a_file_repeated_and_falling_steps_are_kept(tmp_path: Path) -> None:
    points = [(5, 1.0), (5, 2.0), (3, 3.0), (5, 1.0)]
    write(tmp_path, "e.tfevents.1.x", *(scalar("Train/mean_reward/time", *point) for point in points))
    assert sent(read(tmp_path)) == [("Train/mean_reward/time", *point) for point in points]


@pytest.mark.parametrize("below", ["", "/parts"])
def test_trainer_session_folders_are_sessions_of_one_series(tmp_path: Path, below: str) -> None:
    first, second = f"runs/Dec31_23-59-00_pod-a{below}", f"runs/Jan01_00-10-00_pod-b{below}"
    write(tmp_path, f"{first}/events.out.tfevents.1000.a.1.0", *(scalar("a", step, 1.0) for step in range(4)))
    write(
        tmp_path, f"{second}/events.out.tfevents.2000.b.1.0", *(scalar("a", step, 2.0) for step in (2, 3, 4))
    )
    found = read(tmp_path)
    assert sent(found) == [("a", step, 1.0 if step < 2 else 2.0) for step in range(5)]
    (series,) = found.series
    assert (series.name, series.folder) == ("a", first)


def test_session_folders_with_different_parents_are_different_series(tmp_path: Path) -> None:
    write(tmp_path, "x/Nov24_06-09-06_vm/e.tfevents.1.a", scalar("a", 1, 1.0))
    write(tmp_path, "y/Nov24_07-09-06_vm/e.tfevents.2.a", scalar("a", 1, 2.0))
    assert [step for _, step, _ in sent(read(tmp_path))] == [1, 1]


def test_writers_begun_in_the_same_second_are_not_sessions_of_one_another(tmp_path: Path) -> None:
    for kind, value in (("train", 1.0), ("eval", 2.0)):
        write(tmp_path, f"runs/Nov24_06-09-06_vm_{kind}/e.tfevents.100.a", scalar("loss", 5, value))
        write(tmp_path, f"runs/Nov24_09-00-00_vm_{kind}/e.tfevents.200.a", scalar("loss", 5, value + 10))
    assert sent(read(tmp_path)) == [
        ("runs/Nov24_06-09-06_vm_eval/loss", 5, 12.0),
        ("runs/Nov24_06-09-06_vm_train/loss", 5, 11.0),
    ]


def test_other_folders_are_never_merged(tmp_path: Path) -> None:
    for folder in ("version_0", "version_1"):
        write(
            tmp_path,
            f"lightning_logs/{folder}/e.tfevents.1.x",
            scalar("loss", 1, 1.0),
            scalar(folder, 1, 2.0),
        )
    found = read(tmp_path)
    assert sorted(sent(found)) == [
        ("lightning_logs/version_0/loss", 1, 1.0),
        ("lightning_logs/version_1/loss", 1, 1.0),
        ("version_0", 1, 2.0),
        ("version_1", 1, 2.0),
    ]
    assert found.tags == ("loss", "version_0", "version_1")
    assert found.warnings == ()
    assert found.renamed == {
        f"lightning_logs/version_{number}/loss": f"loss (in lightning_logs/version_{number})"
        for number in (0, 1)
    }


def test_the_root_folder_keeps_the_tag(tmp_path: Path) -> None:
    write(tmp_path, "e.tfevents.1.x", scalar("loss", 1, 1.0))
    write(tmp_path, "validation/e.tfevents.1.x", scalar("loss", 1, 2.0))
    assert sorted(sent(read(tmp_path))) == [("loss", 1, 1.0), ("validation/loss", 1, 2.0)]


def test_an_event_file_that_wandb_copied_is_not_read_twice(tmp_path: Path) -> None:
    name = "events.out.tfevents.1700000000.vm.7.0"
    write(tmp_path, f"tb/{name}", scalar("loss", 1, 1.0), scalar("loss", 2, 2.0))
    copies = tmp_path / "wandb/run-20260102_030405-abc/files/tb"
    copies.mkdir(parents=True)
    shutil.copy(tmp_path / "tb" / name, copies)
    # Points that only W&B has are used.
    write(copies.parent, "eval/events.out.tfevents.1700000000.vm.7.1", scalar("score", 1, 1.0))
    found = read(tmp_path)
    assert [(one.name, one.points) for one in found.series] == [("loss", 2), ("score", 1)]


def test_a_link_to_an_event_file_is_not_read_twice(tmp_path: Path) -> None:
    write(tmp_path, "logs/e.tfevents.1.x", scalar("loss", 1, 1.0))
    (tmp_path / "latest.tfevents.1.x").symlink_to("logs/e.tfevents.1.x")
    assert sent(read(tmp_path)) == [("loss", 1, 1.0)]


def test_what_lies_in_a_folder_of_such_a_name_is_no_event_file(tmp_path: Path) -> None:
    write(tmp_path, "x.tfevents.1/e.tfevents.1.x", scalar("loss", 1, 1.0))
    (tmp_path / "x.tfevents.1/notes.txt").write_text("no event")
    found = read(tmp_path)
    assert sent(found) == [("loss", 1, 1.0)] and found.warnings == ()


# --- names ---


def names_of(*tags: str, folder: str = "") -> dict[str, str]:
    return {tag: name for (_, tag), name in assign_names([(folder, tag) for tag in tags]).items()}


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("Reward / Total reward (mean)", "Reward / Total reward _mean_"),
        ("/metrics/distance", "metrics/distance"),
        ("//a///b/", "a/b"),
        ("a:b=c,d", "a_b_c_d"),
        ("verlust/größe", "verlust/größe"),
        ("损失/训练", "损失/训练"),
        ("./a/../b/.", "_/a/__/b/_"),
        ("..a", "__a"),
        ("...", "__."),
        (".", "_"),
        ("..", "__"),
        ("a\nb\x00c\U0001f600", "a_b_c_"),
        ("", "unnamed"),
        ("///", "unnamed"),
        (" ", "unnamed"),
    ],
)
def test_names_are_made_valid(tag: str, name: str) -> None:
    assert valid_name(tag) == name
    assert names_of(tag)[tag] == name


def test_a_tag_and_its_prefix_are_both_kept() -> None:
    assert names_of("loss", "loss/a", "loss/a/b") == {tag: tag for tag in ("loss", "loss/a", "loss/a/b")}


def test_of_tags_that_clash_the_one_that_needs_no_change_keeps_its_name() -> None:
    names = names_of("a_b", "a:b", "a(b", "/a_b")
    assert names["a_b"] == "a_b"
    assert len(set(names.values())) == 4
    assert all(name.startswith("a_b_") and len(name) == 12 for tag, name in names.items() if tag != "a_b")
    # A suffix depends on its own tag only.
    assert names_of("a:b", "a_b", "c")["a:b"] == names["a:b"]
    assert names_of("a:b", "a_b", folder="x")["a:b"] != names["a:b"]


def test_where_no_clashing_tag_is_unchanged_none_gets_the_plain_name() -> None:
    assert "a_b" not in names_of("a:b", "a=b").values()


def test_no_two_names_are_equal_for_a_server_that_ignores_case_and_accents() -> None:
    names = names_of("Loss", "loss", "LOSS", "löss", "loss ", "other")
    assert names["LOSS"] == "LOSS"
    assert names["other"] == "other"
    assert len({name.casefold() for name in names.values()}) == 6
    assert all("_" in name for tag, name in names.items() if tag not in ("LOSS", "other"))


def test_a_folders_name_for_a_tag_yields_to_a_tag_of_that_name() -> None:
    names = assign_names([("", "loss"), ("eval", "loss"), ("", "eval/loss")])
    assert names["", "loss"] == "loss"
    assert names["", "eval/loss"] == "eval/loss"
    assert names["eval", "loss"].startswith("eval/loss_")


def test_long_names_are_cut_and_kept_apart() -> None:
    names = names_of("x" * MAX_NAME, "x" * (MAX_NAME + 1), "x" * 4000)
    assert names["x" * MAX_NAME] == "x" * MAX_NAME
    assert {len(name) for name in names.values()} == {MAX_NAME}
    assert len(set(names.values())) == 3


TAGS = st.one_of(st.text(max_size=300), st.text("aA./:_ éß\n", max_size=6))


@settings(max_examples=400)
@given(st.lists(st.tuples(st.sampled_from(["", "eval", "a/b"]), TAGS), max_size=12))
def test_every_name_is_valid_for_mlflow_and_stands_for_one_series(keys: list[tuple[str, str]]) -> None:
    names = assign_names(keys)
    assert set(names) == set(keys)
    assert len({name.casefold().rstrip() for name in names.values()}) == len(set(keys))
    for (_, tag), name in names.items():
        _validate_metric(name, 1.0, 0, 0)
        assert ":" not in name and "//" not in name and posixpath.normpath(name) == name
        assert name.strip()
        assert len(name) <= MAX_NAME
        assert valid_name(name) == name
        assert tag == name or valid_name(tag) != tag or len(names) > 1 or len(tag) > MAX_NAME
    assert assign_names(reversed(keys)) == names


def test_what_was_renamed_is_told_with_the_original_tag(tmp_path: Path) -> None:
    write(tmp_path, "e.tfevents.1.x", scalar("/a", 1, 1.0), scalar("fine", 1, 1.0), scalar("b(c)", 1, 1.0))
    found = read(tmp_path)
    assert found.renamed == {"a": "/a", "b_c_": "b(c)"}
    assert found.tags == ("/a", "b(c)", "fine")


# --- limits, damage ---


def test_a_limit_keeps_the_most_useful_series_and_names_the_rest(tmp_path: Path) -> None:
    tags = ["time/fps", "grad_norm", "train/loss", "eval/mean_reward", "val/perplexity", "train/mean_reward"]
    write(tmp_path, "e.tfevents.1.x", *(scalar(tag, step, 1.0) for tag in tags for step in (1, 2)))
    found = read(tmp_path)
    assert found.limited(6) is found
    limited = found.limited(3)
    assert [series.name for series in limited.series] == [
        "eval/mean_reward",
        "train/loss",
        "train/mean_reward",
    ]
    assert limited.left_out == ("grad_norm", "time/fps", "val/perplexity")
    assert (limited.points, limited.points_read, limited.tags) == (6, 12, found.tags)
    assert sent(limited) == [point for point in sent(found) if point[0] not in limited.left_out]
    assert "grad_norm, time/fps, val/perplexity" in limited.warnings[-1]
    assert found.left_out == () and found.warnings == ()
    assert [series.name for series in found.limited(4).series if series not in limited.series] == [
        "val/perplexity"
    ]
    assert found.limited(5).left_out == ("time/fps",)


def test_a_limit_does_not_change_names(tmp_path: Path) -> None:
    write(
        tmp_path,
        "e.tfevents.1.x",
        *(scalar(tag, step, 1.0) for tag in ("loss:a", "loss=a") for step in (1, 2)),
    )
    found = read(tmp_path)
    assert found.limited(1).series[0].name in [series.name for series in found.series]


def test_series_beyond_all_reason_are_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_module, "MAX_SERIES", 3)
    write(tmp_path, "e.tfevents.1.x", *(scalar(f"tag{n}", step, 1.0) for n in range(5) for step in (1, 2)))
    found = read(tmp_path)
    assert [series.name for series in found.series] == ["tag0", "tag1", "tag2"]
    assert (found.points, found.points_read, len(sent(found))) == (6, 10, 6)
    (warning,) = found.warnings
    assert warning.startswith("4 points") and "tag3, tag4" in warning


def test_damage_is_counted_and_told(tmp_path: Path) -> None:
    path = write(tmp_path, "e.tfevents.1.x", *(scalar("a", step, 1.0) for step in (1, 2, 3)))
    data = bytearray(path.read_bytes())
    data[len(data) // 3 + 14] ^= 1
    path.write_bytes(data)
    other = write(tmp_path, "sub/e.tfevents.1.x", scalar("b", 1, 1.0))
    other.write_bytes(other.read_bytes() + b"\1" * 40)
    found = read(tmp_path)
    assert sent(found) == [("a", 1, 1.0), ("a", 3, 1.0), ("b", 1, 1.0)]
    assert found.skipped_records == 1
    assert found.sources[0] == {"path": "e.tfevents.1.x", "points": 2, "skipped_records": 1}
    assert found.sources[1]["path"] == "sub/e.tfevents.1.x" and "checksum" in found.sources[1]["ended"]
    assert len(found.warnings) == 2


def test_wall_times_that_are_no_dates_are_moved_and_counted(tmp_path: Path) -> None:
    walls = [math.nan, -5.0, math.inf, 1e300, START]
    write(tmp_path, "e.tfevents.1.x", *(scalar("a", step, 1.0, wall) for step, wall in enumerate(walls)))
    found = read(tmp_path)
    end = 253402300799000
    assert [milliseconds for _, _, milliseconds, _ in found.stream()] == [0, 0, end, end, int(START * 1000)]
    assert found.warnings[0].startswith("4 points")
    for name, value, milliseconds, step in found.stream():
        _validate_metric(name, value, milliseconds, step)


def test_extreme_steps_come_through(tmp_path: Path) -> None:
    write(tmp_path, "e.tfevents.1.x", scalar("a", -(1 << 63), 1.0), scalar("a", (1 << 63) - 1, 2.0))
    assert [step for _, step, _ in sent(read(tmp_path))] == [-(1 << 63), (1 << 63) - 1]


def test_a_file_that_changes_between_the_passes_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, "e.tfevents.1.x", scalar("a", 1, 1.0))
    found = read(tmp_path)
    write(tmp_path, "e.tfevents.1.x", scalar("a", 1, 2.0))
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError):
        list(found.stream())


def test_a_run_without_metrics(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert (found.series, found.points, found.points_read, found.tags, found.sources) == ((), 0, 0, (), ())
    assert main_series(found.series) is None


# --- logs if no event file has a point ---


def test_logs_are_read_where_no_event_file_holds_a_point(tmp_path: Path) -> None:
    write(tmp_path, "e.tfevents.1.x")
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": [{"step": 3, "loss": 0.5}]}))
    found = read(tmp_path, "trainer_state.json")
    assert list(found.stream()) == [("train/loss", 0.5, 3, 3)]
    assert list(found.sources) == [
        {"path": "e.tfevents.1.x", "points": 0},
        {"path": "trainer_state.json", "points": 1},
    ]
    write(tmp_path, "e.tfevents.1.x", scalar("a", 1, 1.0))
    assert sent(read(tmp_path, "trainer_state.json")) == [("a", 1, 1.0)]


def test_all_logs_of_a_run_are_read_and_none_merged(tmp_path: Path) -> None:
    shutil.copy(DATA / "stable_baselines3" / "evaluations.npz", tmp_path)
    (tmp_path / "logs.json.txt").write_text('{"global_step": 1, "eval/mean_reward": 1}\n')
    found = read(tmp_path, "evaluations.npz", "logs.json.txt")
    assert found.points == found.points_read == 15
    assert [series.name for series in found.series] == [
        "eval/mean_ep_length",
        "evaluations.npz/eval/mean_reward",
        "logs.json.txt/eval/mean_reward",
    ]


def test_what_a_log_restates_is_counted_and_what_is_malformed_told(tmp_path: Path) -> None:
    steps = (1, 2, 3, 2)
    (tmp_path / "logs.json.txt").write_text("".join(f'{{"global_step": {step}, "a": 1}}\n' for step in steps))
    (tmp_path / "trainer_state.json").write_text("{")
    found = read(tmp_path, "logs.json.txt", "trainer_state.json")
    assert [step for _, step, _ in sent(found)] == [1, 2]
    assert (found.points, found.points_read) == (2, 4)
    assert sorted(warning.split()[0] for warning in found.warnings) == ["2", "trainer_state.json"]


# --- the series for a model card ---


@pytest.mark.parametrize(
    ("chosen", "others"),
    [
        (
            "eval/mean_reward",
            ["train/loss", "rollout/ep_rew_mean", "eval/mean_ep_length", "train/value_loss"],
        ),
        ("Train/mean_reward", ["Train/mean_reward/time", "Episode_Reward/track", "Loss/value"]),
        (
            "Reward / Total reward (mean)",
            ["Reward / Total reward (max)", "Reward / Instantaneous reward (mean)", "Loss / Policy loss"],
        ),
        ("val/success_rate", ["val/mean_reward", "train/loss"]),
        ("eval/accuracy", ["eval/loss", "train/loss"]),
        ("eval_loss", ["train/loss", "train/loss_scale"]),
        ("testLoss", ["lr", "loss_weight"]),
    ],
)
def test_the_main_series_is_what_a_person_would_look_at(
    tmp_path: Path, chosen: str, others: list[str]
) -> None:
    tags = [chosen, *others]
    write(tmp_path, "e.tfevents.1.x", *(scalar(tag, step, step % 3) for tag in tags for step in range(1, 5)))
    main = main_series(read(tmp_path).series)
    assert main is not None
    assert main.name == valid_name(chosen)
    assert (main.last, main.last_step) == (1.0, 4)
    expected = ("min", 0.0, 3) if "loss" in chosen.lower() else ("max", 2.0, 2)
    assert (main.direction, main.best, main.best_step) == expected


def test_a_series_without_a_finite_value_is_not_the_main_one(tmp_path: Path) -> None:
    events = [scalar("eval/reward", step, math.nan) for step in (1, 2)]
    write(tmp_path, "e.tfevents.1.x", *events, scalar("loss", 1, 1.0), scalar("loss", 2, 1.0))
    main = main_series(read(tmp_path).series)
    assert main is not None and main.name == "loss"


# --- memory ---

# VmHWM starts again with the program; a child's ru_maxrss starts at the peak of its parent.
MEASURE = """
import sys
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
bare = peak()
from aml_mirror.metrics.series import read_metrics
from aml_mirror.sources import Tree
from aml_mirror.sources.local import LocalSource
source = LocalSource(sys.argv[1])
found = read_metrics(Tree(source, source.scan()))
count = sum(1 for _ in found.stream())
assert count == found.points
print(count, peak() - bare)
"""


def measured(root: Path) -> tuple[int, int]:
    done = subprocess.run([sys.executable, "-c", MEASURE, root], capture_output=True, text=True, check=True)
    count, kilobytes = done.stdout.split()
    return int(count), int(kilobytes)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_points(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "few/e.tfevents.1.x",
        *(scalar(f"layer {step % 50}/gradient", step // 50, 0.5) for step in range(10_000)),
    )
    many = tmp_path / "many" / path.name
    many.parent.mkdir()
    many.write_bytes(path.read_bytes() * 14)
    points, few_kilobytes = measured(path.parent)
    assert points == 10_000
    points, many_kilobytes = measured(many.parent)
    assert points == 140_000
    assert many_kilobytes < 40_000
    assert many_kilobytes - few_kilobytes < 3_000


def test_equal_points_stay_apart(tmp_path: Path) -> None:
    """MLflow stores rows with equal name, step, time and value only once, so each point must be a distinct
    row.
    """
    rows = [("epoch", 5, 1.0)] * 3 + [("epoch", 5, math.nan)] * 2 + [("epoch", 6, 1.0)]
    with (tmp_path / "events.out.tfevents.1.h.1.0").open("wb") as stream:
        writer = RecordWriter(stream)
        for tag, step, value in rows:
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            writer.write(Event(wall_time=1.0, step=step, summary=summary).SerializeToString())
        writer.flush()
    source = LocalSource(tmp_path)
    points = list(read_metrics(Tree(source, source.scan())).stream())
    assert len({repr(point) for point in points}) == len(rows)
    assert [moment for _, _, moment, _ in points] == [1000, 1001, 1002, 1000, 1001, 1000]
