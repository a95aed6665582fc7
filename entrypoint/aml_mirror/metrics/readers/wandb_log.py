"""Reads the log that Weights & Biases keeps locally: ``wandb/run-<time>-<id>/run-<id>.wandb``.

It also exists offline. For frameworks that log only to W&B (LeRobot), it is the only record of the training.
It contains everything about a run. The numbers of its history are read, with their own wall times. Facts from
wandb 0.31.0, whose runs were seen, and its ``wandb/proto/wandb_internal.proto``:

- Seven bytes (``:W&B``, 0xBEE1, a version), then a LevelDB log: blocks of 32 KiB, with parts of records. Each
  part has its CRC-32, length and kind (whole, first, middle, last). If no header of seven bytes fits, the
  rest of a block is zeros.
- A record of history is one step: keys, each a list of names, with a value in JSON. ``_step`` counts the
  calls, unless the training set the step.
- ``define_metric`` names another key whose value is the step, for one key or for all that a glob matches (HF
  Trainer: ``train/global_step`` for ``*``).

Damage: a part with a wrong checksum is skipped with its record and counted. A part that extends beyond its
block makes the rest of the block unusable. If a training was killed, the file ends inside a record.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, BinaryIO

from google.protobuf.message import DecodeError

from aml_mirror.formats.protobuf import Messages, message_class
from aml_mirror.metrics.readers.event_file import MAX_TAG, TRUNCATED, Point
from aml_mirror.metrics.readers.log_formats import STEPS
from aml_mirror.sources.ranged_file import read_into

MAGIC = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
BLOCK = 32 << 10
# The largest record, in bytes. A row with some thousand numbers has 100 kB.
MAX_RECORD = 16 << 20
# The number of define_metric calls that are evaluated. A training makes a few.
MAX_DEFINED = 10_000

_HEAD = struct.Struct("<IHB")
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_MESSAGES: Messages = {
    "Record": {"history": (2, "History", ""), "metric": (12, "Metric", "")},
    "History": {"item": (1, "Item", "repeated"), "step": (2, "Step", "")},
    "Item": {
        "key": (1, "string", ""),
        "nested_key": (2, "string", "repeated"),
        "value_json": (16, "string", ""),
    },
    "Step": {"num": (1, "int64", "")},
    "Metric": {"name": (1, "string", ""), "glob_name": (2, "string", ""), "step_metric": (4, "string", "")},
}
Record = message_class("wandb", _MESSAGES, "Record")


class WandbLog:
    """The scalar points of one log, in order. Iterate once.

    ``stream`` is not closed. Its errors are passed on; damage does not raise an error.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.name = name
        self.points = 0
        # Damaged records, or parts of one.
        self.skipped_records = 0
        self.ended: str | None = None
        self.purge_step: int | None = None
        self._stream = stream
        # Key, or glob of keys -> the key with the step.
        self._exact: dict[str, str] = {}
        self._globs: dict[str, str] = {}
        self._step_keys: set[str] = set()

    def __iter__(self) -> Iterator[Point]:
        for data in self._records():
            try:
                record = Record.FromString(data)
            except DecodeError:
                self.skipped_records += 1
                continue
            if record.HasField("metric"):
                self._define(record.metric)
            elif record.HasField("history"):
                for point in self._row(record.history):
                    self.points += 1
                    yield point

    def _define(self, metric: Any) -> None:
        if metric.step_metric and len(self._exact) + len(self._globs) < MAX_DEFINED:
            self._step_keys.add(metric.step_metric)
            if metric.glob_name:
                self._globs[metric.glob_name] = metric.step_metric
            else:
                self._exact[metric.name] = metric.step_metric

    def _row(self, history: Any) -> Iterator[Point]:
        values: dict[tuple[str, ...], float] = {}
        # A value with a type is an image, a table or a histogram. Its numbers are its size and similar.
        typed: set[tuple[str, ...]] = set()
        for item in history.item:
            key = tuple(item.nested_key) or (item.key,)
            if key[-1] == "_type":
                typed.add(key[:-1])
            try:
                values[key] = float(item.value_json)
            except ValueError:
                continue  # a text, a list, a truth value
        numbers = {".".join(key): value for key, value in values.items() if not _is_inside(key, typed)}
        wall_time = numbers.get("_timestamp", 0.0)
        for tag, value in numbers.items():
            if tag.startswith("_") or tag in self._step_keys:
                continue
            if len(tag) > MAX_TAG:
                self.skipped_records += 1
                continue
            yield tag, self._step(tag, numbers, history.step.num), wall_time, value

    def _step(self, tag: str, numbers: dict[str, float], counted: int) -> int:
        named = self._exact.get(tag)
        if named is None and self._globs:
            matching = [glob for glob in self._globs if fnmatchcase(tag, glob)]
            named = self._globs[max(matching, key=len)] if matching else None
        step = numbers.get(named, 0.5) if named else 0.5
        return int(step) if step.is_integer() and int(step) in STEPS else counted

    def _records(self) -> Iterator[bytes]:
        """Yield the complete records."""
        data, count = bytearray(), -1  # count: parts of the current record; -1: none has begun
        at = len(MAGIC)
        for block in self._blocks():
            while len(block) - at >= _HEAD.size:
                crc, length, kind = _HEAD.unpack_from(block, at)
                end = at + _HEAD.size + length
                if end > len(block):
                    if len(block) < BLOCK:
                        self.ended = TRUNCATED
                        return
                    self.skipped_records += 1
                    count = -1
                    break
                if not kind and not length:
                    break  # nothing was written to the rest of the block
                part = block[at + _HEAD.size : end]
                if zlib.crc32(part, zlib.crc32(block[end - length - 1 : end - length])) != crc:
                    self.skipped_records += 1
                    count = -1
                elif kind in (_WHOLE, _FIRST):
                    data, count = bytearray(part), 0
                elif kind in (_MIDDLE, _LAST) and count >= 0:
                    count += 1
                    data += part
                    if len(data) > MAX_RECORD:
                        self.skipped_records += 1
                        count = -1
                if kind in (_WHOLE, _LAST) and count >= 0:
                    yield bytes(data)
                    count = -1
                at = end
            else:
                if len(block) < BLOCK and len(block) > at:
                    self.ended = TRUNCATED
            at = 0
        if count >= 0:
            self.ended = TRUNCATED

    def _blocks(self) -> Iterator[bytes]:
        buffer = bytearray(BLOCK)
        first = True
        while count := read_into(self._stream, buffer):
            if first and not buffer.startswith(MAGIC):
                self.ended = "it is not a W&B log"
                return
            first = False
            yield bytes(buffer[:count])


def _is_inside(key: tuple[str, ...], folders: set[tuple[str, ...]]) -> bool:
    return bool(folders) and any(key[:count] in folders for count in range(1, len(key) + 1))
