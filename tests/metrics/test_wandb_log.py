"""wandb_log.py: points from W&B's log. The data are offline logs of wandb 0.31.0, without its settings."""

from __future__ import annotations

import io
import math
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aml_mirror.metrics.readers import wandb_log
from aml_mirror.metrics.readers.event_file import TRUNCATED, Point
from aml_mirror.metrics.readers.wandb_log import WandbLog
from aml_mirror.metrics.series import Metrics, read_metrics
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from builders.program import Call
from builders.saved import write_json
from builders.wandb_file import BLOCK, defined, field, framed, row
from builders.wandb_file import wandb_log as written

DATA = Path(__file__).parents[1] / "data"
RESUMED, HUGGINGFACE = DATA / "events" / "wandb_resumed", DATA / "events" / "wandb_huggingface"


def read(data: bytes) -> tuple[list[Point], WandbLog]:
    log = WandbLog(io.BytesIO(data), "run-a.wandb")
    return list(log), log


def metrics_of(folder: Path, *logs: str) -> Metrics:
    source = LocalSource(folder)
    return read_metrics(Tree(source, source.scan()), logs)


def steps_of(found: Metrics, name: str) -> list[int]:
    return [step for other, _, _, step in found.stream() if other == name]


def test_a_training_that_was_resumed() -> None:
    """Steps 50 to 4200, and again from 3050 on under the same id: each step once, with its last value."""
    found = metrics_of(RESUMED)
    assert {one.name: one.points for one in found.series} == {
        **dict.fromkeys(
            ["train/loss", "train/grad_norm", "train/lr", "train/update_s", "train/dataloading_s"], 120
        ),
        "train/epochs": 120,
        "train/samples": 120,
        "eval/pc_success": 6,
        "eval/avg_sum_reward": 6,
    }
    losses = {step: value for name, value, _, step in found.stream() if name == "train/loss"}
    assert losses == {
        step: pytest.approx(math.exp(-step / 2000) + (50 if step < 3050 else 3050) / 1e6, rel=1e-12)
        for step in range(50, 6001, 50)
    }
    assert found.points_read == 1022
    assert "resumed session" in found.warnings[0]
    moments = [moment for name, _, moment, _ in found.stream() if name == "eval/pc_success"]
    # On the date in the names of the files' folders, in the order of the steps.
    assert moments == sorted(moments)
    assert {moment // 86_400_000 for moment in moments} == {20_786}


def test_the_step_is_the_one_that_define_metric_names() -> None:
    found = metrics_of(HUGGINGFACE)
    assert [(one.name, one.first_step, one.last_step) for one in found.series] == [
        ("eval/loss", 30, 30),
        ("train/loss", 10, 30),
    ]


def test_what_is_a_number_and_what_is_not() -> None:
    data = framed(
        row(
            4,
            {
                "nan": float("nan"),
                "inf": float("inf"),
                "big": "1e+30",
                "on": True,
                "note": '"7"',
                "list": [1, 2],
                "nothing": None,
                ("a", "b c", "d"): 3,
                ("image", "_type"): '"image-file"',
                ("image", "width"): 64,
                ("image", "more", "size"): 64,
                ("deep", "table", "_type"): '"table-file"',
                ("deep", "table", "rows"): 2,
                ("deep", "other"): 5,
                "_runtime": 0.5,
                ("_wandb", "runtime"): 1,
            },
            time=1e9,
        )
    )
    points, log = read(data)
    assert {tag: value for tag, _, _, value in points} == {
        "nan": pytest.approx(math.nan, nan_ok=True),
        "inf": math.inf,
        "big": 1e30,
        "a.b c.d": 3,
        "deep.other": 5,
    }
    assert {(step, moment) for _, step, moment, _ in points} == {(4, 1e9)}
    assert (log.skipped_records, log.ended, log.points) == (0, None, 5)


def test_keys_of_older_versions_stand_in_a_field_of_their_own() -> None:
    item = field(1, b"loss") + field(16, b"0.5")
    points, _ = read(framed(field(2, field(1, item) + field(2, field(1, 9)))))
    assert points == [("loss", 9, 0.0, 0.5)]


def test_which_key_holds_the_step() -> None:
    data = framed(
        defined("global", glob="*"),
        defined("eval_step", glob="eval/*"),
        defined("mine", name="eval/own"),
        row(1, {"global": 10, "eval_step": 20, "mine": 30, "loss": 1, "eval/a": 2, "eval/own": 3}),
        row(2, {"global": 10.5, "loss": 1, "eval/a": 2}),
        row(3, {"global": "1e+300", "eval_step": "NaN", "loss": 1, "eval/a": 2}),
    )
    points, _ = read(data)
    assert [(tag, step) for tag, step, _, _ in points] == [
        ("loss", 10),
        ("eval/a", 20),
        ("eval/own", 30),
        ("loss", 2),
        ("eval/a", 2),
        ("loss", 3),
        ("eval/a", 3),
    ]


RECORDS = st.lists(
    st.one_of(
        st.integers(0, 40).map(lambda step: row(step, {"a": step, "b": -step})),
        st.integers(0, 3 * BLOCK).map(lambda size: field(4, bytes(size))),
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(RECORDS)
def test_records_are_found_wherever_the_blocks_divide_them(records: list[bytes]) -> None:
    points, log = read(framed(*records))
    assert points == [point for record in records for point in read(framed(record))[0]]
    assert (log.ended, log.skipped_records) == (None, 0)


# The header of a part ends one byte before the end of the block, at its end, and so on.
@pytest.mark.parametrize("left", range(20))
def test_what_is_left_of_a_block_holds_a_head_or_nothing(left: int) -> None:
    first = row(1, {"a": 1})
    fill = BLOCK - len(framed(first)) - left - 7
    records = [first, field(4, bytes(fill - 4)), row(2, {"a": 2}), row(3, {"a": 3})]
    assert len(framed(*records[:2])) in (BLOCK - left, BLOCK)
    points, log = read(framed(*records))
    assert [point[1] for point in points] == [1, 2, 3]
    assert (log.ended, log.skipped_records) == (None, 0)


def test_a_log_that_was_cut_anywhere() -> None:
    (path,) = HUGGINGFACE.glob("wandb/*/*.wandb")
    data = path.read_bytes()
    whole, _ = read(data)
    ended = set()
    for cut in range(len(data)):
        points, log = read(data[:cut])
        assert points == whole[: len(points)]
        assert log.skipped_records == 0
        ended.add(log.ended)
    assert ended == {None, TRUNCATED, "it is not a W&B log"}


def test_a_log_that_was_cut_inside_a_record_of_several_parts() -> None:
    long = field(4, bytes(3 * BLOCK))
    data = framed(row(1, {"a": 1}), long)
    for cut in (len(data) - 1, 2 * BLOCK, 2 * BLOCK + 3, BLOCK + 10):
        points, log = read(data[:cut])
        assert (len(points), log.ended) == (1, TRUNCATED)


def test_damage_costs_the_record_and_is_counted() -> None:
    records = [row(step, {"a": step}) for step in range(5)]
    data = bytearray(framed(*records))
    at = len(framed(*records[:2])) + 12
    data[at] ^= 0x40
    points, log = read(bytes(data))
    assert [step for _, step, _, _ in points] == [0, 1, 3, 4]
    assert (log.skipped_records, log.ended) == (1, None)


def test_a_part_that_reaches_beyond_its_block_takes_the_rest_of_it() -> None:
    records = [row(step, {"a": step}) for step in range(2000)]
    data = bytearray(framed(*records))
    at = len(framed(*records[:2])) + 4
    data[at : at + 2] = b"\xff\xff"
    points, log = read(bytes(data))
    steps = [step for _, step, _, _ in points]
    assert steps[:2] == [0, 1]
    assert steps[2] > 100
    assert steps[2:] == list(range(steps[2], 2000))
    assert (log.skipped_records, log.ended) == (1, None)


def test_a_record_that_is_too_long_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_log, "MAX_RECORD", 2 * BLOCK)
    points, log = read(framed(row(1, {"a": 1}), field(4, bytes(3 * BLOCK)), row(2, {"a": 2})))
    assert [step for _, step, _, _ in points] == [1, 2]
    assert log.skipped_records == 1


def test_a_key_that_is_too_long_is_counted() -> None:
    points, log = read(framed(row(1, {"a" * 5000: 1, "b": 2})))
    assert ([tag for tag, _, _, _ in points], log.skipped_records) == (["b"], 1)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=300))
def test_no_bytes_can_make_it_raise(noise: bytes, record: bytes) -> None:
    read(noise)
    read(wandb_log.MAGIC + noise)
    read(framed(record, field(2, record), field(12, record)))


def test_it_is_read_only_where_nothing_else_tells_of_the_training(tmp_path: Path) -> None:
    shutil.copytree(RESUMED, tmp_path, dirs_exist_ok=True)
    # W&B's link, and the copy that a tool makes if it follows links.
    (tmp_path / "wandb" / "latest-run").symlink_to(next((tmp_path / "wandb").iterdir()).name)
    assert metrics_of(tmp_path).points_read == 1022
    history = {"log_history": [{"step": 1, "loss": 1.0}]}
    write_json(tmp_path / "trainer_state.json", history)
    assert metrics_of(tmp_path, "trainer_state.json").points_read == 1
    write_json(tmp_path / "trainer_state.json", {"log_history": []})
    assert metrics_of(tmp_path, "trainer_state.json").points_read == 1022
    events = DATA / "events" / "huggingface"
    shutil.copytree(events, tmp_path / "runs", ignore=shutil.ignore_patterns("*.json"))
    found = metrics_of(tmp_path)
    assert not any("wandb" in source["path"] for source in found.sources)
    assert found.points_read > 0


def test_processes_that_log_at_once_are_told_apart(tmp_path: Path) -> None:
    for identifier in ("one", "two"):
        for second, steps in (("20261124_060906", (1, 2)), ("20261124_070000", (2, 3))):
            records = [row(step, {"loss": len(identifier) + step}) for step in steps]
            written(tmp_path / "run", identifier, second, records)
    found = metrics_of(tmp_path)
    assert [(one.tag, one.folder, one.points) for one in found.series] == [
        ("loss", "run/wandb/one", 3),
        ("loss", "run/wandb/two", 3),
    ]
    assert len({one.name for one in found.series}) == 2


def test_a_new_id_goes_on_where_the_one_before_it_was_resumed(tmp_path: Path) -> None:
    written(tmp_path, "a", "20261124_060906", [row(step, {"x": step}) for step in (1, 2, 3, 4)])
    written(tmp_path, "b", "20261124_080000", [row(step, {"x": -step}) for step in (3, 4, 5)], cut=1)
    found = metrics_of(tmp_path)
    assert steps_of(found, "x") == [1, 2, 3, 4]
    assert [value for _, value, _, _ in found.stream()] == [1, 2, -3, -4]
    assert found.sources[1]["ended"] == TRUNCATED


def test_a_run_of_lerobot_with_its_metrics(tmp_path: Path, aml_mirror: Call) -> None:
    run = tmp_path / "run"
    shutil.copytree(DATA / "runs" / "lerobot_act", run, symlinks=True)
    shutil.copytree(RESUMED, run, dirs_exist_ok=True)
    plan = aml_mirror("plan", "--source", run, "--model-name", "m", "--json").json
    assert plan["framework"] == "lerobot"
    assert (plan["metrics"]["points"], plan["metrics"]["series"]) == (852, 9)
    assert all("wandb" not in file["path"] for file in plan["files"])
