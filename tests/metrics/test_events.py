"""events.py: framing, damage, and what is a scalar. TensorBoard writes the files and is the oracle."""

from __future__ import annotations

import io
import math
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DataType
from tensorboard.plugins.histogram import summary_v2 as histogram_summary
from tensorboard.plugins.hparams import summary_v2 as hparams_summary
from tensorboard.plugins.scalar import summary_v2 as scalar_summary
from tensorboard.plugins.text import summary_v2 as text_summary
from tensorboard.util import tensor_util

from aml_mirror.metrics.readers import event_file
from aml_mirror.metrics.readers.event_file import TRUNCATED, EventFile, masked_crc32c

DATA = Path(__file__).parents[1] / "data" / "events"
REAL = sorted(DATA.rglob("*.tfevents.*"))
DIMENSION = TensorShapeProto.Dim
# The first moment of 2024, in seconds since the epoch.
START = 1704067200.0


def scalar(tag: str, step: int, value: float, wall_time: float | None = None) -> Event:
    """A classic scalar, as torch's SummaryWriter writes it."""
    when = START + step if wall_time is None else wall_time
    return Event(
        wall_time=when, step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)])
    )


def tensor(tag: str, step: int, proto: TensorProto, plugin: str | None = "scalars") -> Event:
    """A tensor with or without the tag's plugin, as TF2's tf.summary writes it."""
    value = Summary.Value(tag=tag, tensor=proto)
    if plugin is not None:
        value.metadata.CopyFrom(SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin)))
    return Event(wall_time=START + step, step=step, summary=Summary(value=[value]))


def restart(step: int) -> Event:
    """What torch's SummaryWriter writes for ``purge_step``."""
    return Event(wall_time=START + step, step=step, session_log=SessionLog(status=SessionLog.START))


def read(data: bytes) -> tuple[list[event_file.Point], EventFile]:
    file = EventFile(io.BytesIO(data), "events")
    return list(file), file


def framed(*payloads: bytes | Event) -> bytes:
    out = bytearray()
    for payload in payloads:
        data = payload if isinstance(payload, bytes) else payload.SerializeToString()
        length = struct.pack("<Q", len(data))
        out += length + struct.pack("<I", masked_crc32c(length))
        out += data + struct.pack("<I", masked_crc32c(data))
    return bytes(out)


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.parent.name)
def test_real_files_read_as_tensorboard_reads_them(path: Path) -> None:
    oracle = EventAccumulator(str(path), size_guidance={"scalars": 0, "tensors": 0})
    oracle.Reload()
    points, _ = read(path.read_bytes())
    found: dict[str, list[Any]] = {}
    for tag, step, wall_time, value in points:
        found.setdefault(tag, []).append((wall_time, step, value))
    expected = {
        tag: [(item.wall_time, item.step, item.value) for item in oracle.Scalars(tag)]
        for tag in oracle.Tags()["scalars"]
    }
    assert found == expected


@pytest.mark.parametrize(
    ("folder", "points", "ended"),
    [
        ("huggingface", 374, None),
        ("lightning", 1001, None),
        ("stable_baselines3", 1421, None),
        ("rsl_rl_cut", 2639, TRUNCATED),
    ],
)
def test_real_files_have_the_points_that_were_written(folder: str, points: int, ended: str | None) -> None:
    (path,) = (DATA / folder).glob("*.tfevents.*")
    found, file = read(path.read_bytes())
    assert (len(found), file.points, file.ended, file.skipped_records) == (points, points, ended, 0)


def test_the_tensorboard_writer_is_read(tmp_path: Path) -> None:
    from tensorboard.summary import Writer

    writer = Writer(str(tmp_path))
    for step in range(5):
        writer.add_scalar("loss", step / 2, step, wall_time=START + step)
    writer.close()
    (path,) = tmp_path.iterdir()
    points, file = read(path.read_bytes())
    assert points == [("loss", step, START + step, step / 2) for step in range(5)]
    assert file.ended is None


def test_a_file_cut_anywhere_yields_the_whole_records_before_the_cut() -> None:
    records = [framed(scalar(f"tag/{step}", step, step / 3)) for step in range(3)]
    data = b"".join(records)
    ends = [sum(map(len, records[: count + 1])) for count in range(3)]
    for cut in range(len(data)):
        points, file = read(data[:cut])
        assert len(points) == sum(end <= cut for end in ends)
        assert file.ended == (None if cut in (0, *ends) else TRUNCATED), cut
        assert file.skipped_records == 0


@settings(max_examples=300)
@given(st.data())
def test_a_flipped_bit_costs_one_record_or_what_is_behind_it(data: st.DataObject) -> None:
    records = [framed(scalar("a", step, float(step))) for step in (1, 2, 3, 4)]
    whole = bytearray(b"".join(records))
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    hit, offset = divmod(bit // 8, len(records[0]))
    points, file = read(bytes(whole))
    steps = [step for _, step, _, _ in points]
    if offset < 12:
        assert steps == [1, 2, 3, 4][:hit]
        assert file.ended is not None and file.ended != TRUNCATED
        assert file.skipped_records == 0
    else:
        assert steps == [step for step in (1, 2, 3, 4) if step != hit + 1]
        assert (file.ended, file.skipped_records) == (None, 1)


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_no_bytes_can_make_it_raise(data: bytes) -> None:
    read(data)
    _, file = read(framed(data))
    assert file.ended is None


@settings(max_examples=500)
@given(st.data())
def test_a_record_says_the_same_after_others_of_its_tag(data: st.DataObject) -> None:
    """The first record of a tag is parsed as a message. Later records are recognised by their bytes."""
    tag = data.draw(st.sampled_from(["a", "train/loss", "ü" * 70, "t" * 300]))
    bits = data.draw(st.integers(0, 63))
    step = data.draw(st.integers(-(1 << bits), (1 << bits) - 1))
    record = bytearray(scalar(tag, step, data.draw(st.floats(width=32))).SerializeToString())
    # Damage that the checksum does not detect: the rest may still be an event with another meaning.
    for _ in range(data.draw(st.integers(0, 2))):
        record[data.draw(st.integers(0, min(len(record), 24) - 1))] = data.draw(st.integers(0, 255))
    alone, first = read(framed(bytes(record)))
    behind, second = read(framed(scalar(tag, 1, 1.0), bytes(record)))
    assert repr(behind[1:]) == repr(alone)
    assert (second.skipped_records, second.purge_step) == (first.skipped_records, first.purge_step)


@pytest.mark.parametrize("length", range(1, 11))
def test_a_step_of_any_length_says_the_same_after_others_of_its_tag(length: int) -> None:
    # Varints need not be as short as possible. One of six bytes may even end with the key of the summary.
    plain = scalar("a", 0, 2.0).SerializeToString()
    for last in (0x00, 0x01, 0x2A):
        step = bytes([0x80] * (length - 1) + [last])
        record = plain[:9] + b"\x10" + step + plain[9:]
        swallowed = plain[:9] + b"\x10" + bytes([0x80] * length) + plain[9:]
        for payload in (record, swallowed):
            alone, _ = read(framed(payload))
            behind, _ = read(framed(scalar("a", 1, 1.0), payload))
            assert behind[1:] == alone


def test_a_payload_that_is_no_event_is_skipped_and_counted() -> None:
    points, file = read(framed(scalar("a", 1, 1.0), b"\x0a\xff\xff", scalar("a", 2, 2.0)))
    assert [step for _, step, _, _ in points] == [1, 2]
    assert (file.skipped_records, file.ended) == (1, None)


@pytest.mark.parametrize("claimed", [1 << 31, 1 << 60, (1 << 64) - 1])
def test_a_length_no_event_can_have_ends_the_file(claimed: int) -> None:
    length = struct.pack("<Q", claimed)
    bad = length + struct.pack("<I", masked_crc32c(length)) + b"\0" * 100
    points, file = read(framed(scalar("a", 1, 1.0)) + bad + framed(scalar("a", 2, 2.0)))
    assert len(points) == 1
    assert file.ended is not None and str(claimed) in file.ended


def test_a_length_with_a_wrong_checksum_ends_the_file() -> None:
    record = bytearray(framed(scalar("a", 2, 2.0)))
    record[8] ^= 1
    points, file = read(framed(scalar("a", 1, 1.0)) + bytes(record) + framed(scalar("a", 3, 3.0)))
    assert len(points) == 1
    assert file.ended is not None and "checksum" in file.ended


def test_a_length_seen_before_still_has_its_checksum_checked() -> None:
    one = framed(scalar("a", 1, 1.0))
    damaged = bytearray(one)
    damaged[9] ^= 0x10
    points, file = read(one + one + bytes(damaged))
    assert len(points) == 2
    assert file.ended is not None and "checksum" in file.ended


class Trickle(io.RawIOBase):
    """A stream that returns a few bytes at a time, as sockets do."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data, self._step, self._at = data, step, 0

    def read(self, size: int = -1) -> bytes:
        found = self._data[self._at : self._at + min(size, self._step)]
        self._at += len(found)
        return found


@pytest.mark.parametrize("step", [1, 7, 4096])
def test_short_reads_do_not_end_a_file(step: int) -> None:
    data = framed(*(scalar("a", number, 1.0) for number in range(50)))
    file = EventFile(Trickle(data, step), "events")  # type: ignore[arg-type]
    assert [point[1] for point in file] == list(range(50))
    assert file.ended is None


def bulky(image_bytes: int) -> Event:
    event = scalar("before", 7, 1.5)
    event.summary.value.add(tag="picture").image.encoded_image_string = b"\x5a" * image_bytes
    event.summary.value.add(tag="after", simple_value=0.0)
    return event


def test_a_record_too_large_to_hold_still_yields_its_scalars() -> None:
    data = framed(scalar("x", 1, 1.0), bulky(3 << 20), scalar("x", 2, 2.0))
    points, file = read(data)
    assert [(tag, step, value) for tag, step, _, value in points] == [
        ("x", 1, 1.0),
        ("before", 7, 1.5),
        ("after", 7, 0.0),
        ("x", 2, 2.0),
    ]
    assert (file.ended, file.skipped_records) == (None, 0)


def test_damage_in_a_large_record_is_found() -> None:
    record = bytearray(framed(bulky(3 << 20)))
    record[2 << 20] ^= 1
    points, file = read(bytes(record) + framed(scalar("x", 2, 2.0)))
    assert [point[0] for point in points] == ["x"]
    assert (file.ended, file.skipped_records) == (None, 1)


@pytest.mark.parametrize("kept", [13, 1 << 20, (3 << 20) - 1])
def test_a_large_record_that_is_cut_ends_the_file(kept: int) -> None:
    points, file = read(framed(bulky(3 << 20))[:kept])
    assert points == []
    assert file.ended == TRUNCATED


@settings(max_examples=50)
@given(st.binary(max_size=60))
def test_a_large_record_of_rubbish_is_skipped(head: bytes) -> None:
    data = framed(b"\xff" + head + b"\0" * (1 << 20), scalar("x", 2, 2.0))
    points, file = read(data)
    assert [point[0] for point in points] == ["x"]
    assert file.skipped_records == 1


def test_values_that_are_not_finite_are_points() -> None:
    points, _ = read(framed(*(scalar("a", 1, value) for value in (math.nan, math.inf, -math.inf, 0.0, -0.0))))
    values = [point[3] for point in points]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf, 0.0, 0.0]


def test_extreme_steps_and_wall_times_come_through() -> None:
    written = [scalar("a", step, 1.0, wall_time=-1e300) for step in (-(1 << 63), (1 << 63) - 1)]
    points, _ = read(framed(*written))
    assert [(step, wall) for _, step, wall, _ in points] == [(-(1 << 63), -1e300), ((1 << 63) - 1, -1e300)]


@pytest.mark.parametrize(
    ("name", "dtype", "value"),
    [
        ("DT_FLOAT", "<f4", 1.5),
        ("DT_DOUBLE", "<f8", 0.1),
        ("DT_HALF", "<f2", -2.5),
        ("DT_INT8", "<i1", -3),
        ("DT_INT16", "<i2", -300),
        ("DT_INT32", "<i4", -70000),
        ("DT_INT64", "<i8", -(1 << 40)),
        ("DT_UINT8", "<u1", 200),
        ("DT_UINT16", "<u2", 60000),
        ("DT_UINT32", "<u4", 4_000_000_000),
        ("DT_UINT64", "<u8", 1 << 60),
        ("DT_BOOL", "?", True),
    ],
)
def test_tensor_content_of_every_plain_dtype(name: str, dtype: str, value: float) -> None:
    number = DataType.Value(name)
    for shape in (TensorShapeProto(), TensorShapeProto(dim=[DIMENSION(size=1), DIMENSION(size=1)])):
        proto = TensorProto(dtype=number, tensor_shape=shape, tensor_content=np.array(value, dtype).tobytes())
        points, file = read(framed(tensor("a", 1, proto)))
        assert [point[3] for point in points] == [float(np.array(value, dtype))]
        assert file.skipped_records == 0


@pytest.mark.parametrize(
    ("name", "field", "stored", "value"),
    [
        ("DT_FLOAT", "float_val", 0.0, 0.0),
        ("DT_DOUBLE", "double_val", 0.1, 0.1),
        ("DT_HALF", "half_val", int(np.array(-2.5, "<f2").view("<u2")), -2.5),
        ("DT_BFLOAT16", "half_val", 0xC020, -2.5),
        ("DT_INT32", "int_val", -5, -5.0),
        ("DT_UINT8", "int_val", 255, 255.0),
        ("DT_INT64", "int64_val", -(1 << 40), -float(1 << 40)),
        ("DT_UINT32", "uint32_val", 4_000_000_000, 4e9),
        ("DT_UINT64", "uint64_val", 1 << 60, float(1 << 60)),
        ("DT_BOOL", "bool_val", True, 1.0),
    ],
)
def test_value_fields_of_every_plain_dtype(name: str, field: str, stored: Any, value: float) -> None:
    proto = TensorProto(dtype=DataType.Value(name), **{field: [stored]})
    points, _ = read(framed(tensor("a", 1, proto)))
    assert [point[3] for point in points] == [value]


def test_bfloat16_content() -> None:
    proto = TensorProto(dtype=DataType.DT_BFLOAT16, tensor_content=b"\x20\xc0")
    assert read(framed(tensor("a", 1, proto)))[0][0][3] == -2.5


def test_the_plugin_may_stand_on_the_first_event_of_a_tag_only() -> None:
    one = TensorProto(dtype=DataType.DT_FLOAT, float_val=[1.0])
    data = framed(
        tensor("a", 1, one),
        tensor("a", 2, one, plugin=None),
        tensor("never told", 2, one, plugin=None),
        tensor("other", 1, one, plugin="hparams"),
        tensor("other", 2, one, plugin=None),
    )
    points, file = read(data)
    assert [(tag, step) for tag, step, _, _ in points] == [("a", 1), ("a", 2)]
    assert file.skipped_records == 0


@pytest.mark.parametrize(
    "proto",
    [
        TensorProto(dtype=DataType.DT_FLOAT),
        TensorProto(dtype=DataType.DT_FLOAT, tensor_content=b"\0\0"),
        TensorProto(dtype=DataType.DT_STRING, string_val=[b"1"]),
        TensorProto(
            dtype=DataType.DT_FLOAT,
            tensor_shape=TensorShapeProto(dim=[DIMENSION(size=2)]),
            float_val=[1.0, 2.0],
        ),
        # One value for all elements.
        TensorProto(
            dtype=DataType.DT_FLOAT, tensor_shape=TensorShapeProto(dim=[DIMENSION(size=2)]), float_val=[1.0]
        ),
    ],
)
def test_a_scalar_that_is_no_single_number_is_counted(proto: TensorProto) -> None:
    points, file = read(framed(tensor("a", 1, proto)))
    assert (points, file.skipped_records) == ([], 1)


def test_other_summaries_are_no_points_and_no_damage() -> None:
    summaries = [
        Summary(value=[Summary.Value(tag="histogram", histo=HistogramProto(min=0, max=1, num=1))]),
        Summary(value=[Summary.Value(tag="image", image=Summary.Image(encoded_image_string=b"png"))]),
        Summary(value=[Summary.Value(tag="nothing")]),
        histogram_summary.histogram_pb("histogram2", np.arange(9.0)),
        text_summary.text_pb("text", "1.5"),
        hparams_summary.hparams_pb({"lr": 0.1}),
        tensor("pr", 1, tensor_util.make_tensor_proto(np.zeros((6, 3))), plugin="pr_curves").summary,
        scalar_summary.scalar_pb("scalar", 2.5),
    ]
    points, file = read(framed(*(Event(step=1, summary=summary) for summary in summaries)))
    assert [(point[0].split("/")[0], point[3]) for point in points] == [("scalar", 2.5)]
    assert file.skipped_records == 0


def test_the_smallest_restart_is_told() -> None:
    _, file = read(framed(restart(50), scalar("a", 50, 1.0), restart(40)))
    assert file.purge_step == 40
    _, file = read(framed(restart(40), scalar("a", 50, 1.0), restart(50)))
    assert file.purge_step == 40
    assert read(framed(scalar("a", 1, 1.0)))[1].purge_step is None


def test_several_scalars_in_one_event() -> None:
    event = scalar("a", 3, 1.0)
    event.summary.value.add(tag="b/ü (x)", simple_value=2.0)
    points, _ = read(framed(event))
    assert points == [("a", 3, START + 3, 1.0), ("b/ü (x)", 3, START + 3, 2.0)]


def test_a_tag_beyond_all_reason_is_counted_not_kept() -> None:
    points, file = read(framed(scalar("a" * (event_file.MAX_TAG + 1), 1, 1.0), scalar("b", 1, 1.0)))
    assert [point[0] for point in points] == ["b"]
    assert file.skipped_records == 1


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
# VmHWM starts again with the program; a child's ru_maxrss starts at the peak of its parent.
MEASURE = """
import sys
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
bare = peak()
from aml_mirror.metrics.readers.event_file import EventFile
with open(sys.argv[1], "rb") as stream:
    file = EventFile(stream, "events")
    count = sum(1 for _ in file)
assert "numpy" not in sys.modules and "tensorboard" not in sys.modules
print(count, peak() - bare)
"""


def measured(path: Path) -> tuple[int, int]:
    """The points in the file, and the kB of memory that reading it takes beyond the bare interpreter,
    including imports.
    """
    done = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True)
    count, kilobytes = done.stdout.split()
    return int(count), int(kilobytes)


@needs_proc
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    block = framed(*(scalar(f"tag {step % 20}", step // 20, 0.5) for step in range(10_000)))
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(block * 2)
    large.write_bytes(block * 20)
    points, few = measured(small)
    assert points == 20_000
    points, many = measured(large)
    assert points == 200_000
    assert many < 25_000
    assert abs(many - few) < 2_000


@needs_proc
def test_memory_depends_neither_on_a_record_nor_on_what_a_length_claims(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(framed(bulky(100 << 20)))
    points, kilobytes = measured(path)
    assert points == 2
    assert kilobytes < 30_000
    claimed = struct.pack("<Q", event_file.MAX_RECORD)
    path.write_bytes(claimed + struct.pack("<I", masked_crc32c(claimed)) + b"\x0a\x01a" * 100)
    points, kilobytes = measured(path)
    assert points == 0
    assert kilobytes < 30_000
