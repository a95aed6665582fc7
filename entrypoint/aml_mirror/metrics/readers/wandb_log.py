"""The log that Weights & Biases keeps beside what it sends: ``wandb/run-<time>-<id>/run-<id>.wandb``.

It is there offline too, and for frameworks that log to W&B alone (LeRobot) it is all that tells of the
training. It holds everything of a run; read are the numbers of its history, with their own wall times. Facts
from wandb 0.31.0, runs of which were seen, and its ``wandb/proto/wandb_internal.proto``:

- seven bytes (``:W&B``, 0xBEE1, a version), then a LevelDB log: blocks of 32 KiB; in them, parts of records,
  each with its CRC-32, length and kind (whole, first, middle, last); what is left of a block is zeros where
  no head of seven bytes fits;
- a record of history is one step: keys, each a list of names, with a value in JSON. ``_step`` counts the
  calls unless the training said which step it is;
- ``define_metric`` names another key whose value is the step, for a key or for all that a glob matches (HF
  Trainer: ``train/global_step`` for ``*``).

Damage: a part whose checksum fails is skipped with its record and counted; a part that reaches beyond its
block takes the rest of the block with it; the file ends inside a record where a training was killed.
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
# One record, in bytes; a row of some thousand numbers takes 100 kB.
MAX_RECORD = 16 << 20
# define_metric calls that are heeded; a training makes some.
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
    """The scalar points of one log, in its order. It can be iterated once.

    ``stream`` is not closed. What it raises is passed on; damage is not raised.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.name = name
        self.points = 0
        # Records, or parts of one, that are damaged.
        self.skipped_records = 0
        self.ended: str | None = None
        self.purge_step: int | None = None
        self._stream = stream
        # Key, or glob of keys -> the key that holds the step.
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
        # What has a type is an image, a table, a histogram: its numbers are its size and the like.
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
        """Yield the records that are whole."""
        data, count = bytearray(), -1  # count: parts of the record at hand; -1: none is begun
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
                self.ended = "it is no log of W&B"
                return
            first = False
            yield bytes(buffer[:count])


def _is_inside(key: tuple[str, ...], folders: set[tuple[str, ...]]) -> bool:
    return bool(folders) and any(key[:count] in folders for count in range(1, len(key) + 1))
