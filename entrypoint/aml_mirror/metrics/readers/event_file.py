"""Reads TensorBoard event files as a stream of points, using only protobuf.

An event file is a TFRecord file. Each record has its length (8 bytes, little-endian), the masked CRC-32C of
these 8 bytes (4), the data, and the masked CRC-32C of the data (4); tensorflow/core/lib/io/record_writer.h.
The data is one serialised Event. A file is read once from start to end, in blocks. Records up to
``LARGE_RECORD`` are parsed as a whole. Of larger ones (images, videos, graphs), only the small parts are
kept, so memory depends neither on the file nor on the value of a length field.

Damage is handled like this:
- The file ends inside a record. This is normal for a killed training. The file ends there.
- The checksum of a length is wrong, or the length is implausible. The next record cannot be found, so the
  file ends there.
- The checksum of the data is wrong, or the data is not an Event. The record is skipped and counted.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c
from google.protobuf.message import DecodeError

from aml_mirror.metrics.readers.event_proto import (
    SCALARS_PLUGIN,
    SESSION_START,
    Event,
    between_step_and_value,
    reduced,
    tensor_value,
)

Point = tuple[str, int, float, float]
"""(tag, step, wall time in seconds since the epoch, value)"""

TRUNCATED = "the file ends inside a record"

# A serialised protobuf message cannot be larger (protobuf.dev, "Proto Limits"), so a longer record is not an
# Event.
MAX_RECORD = (1 << 31) - 1
# The number of bytes read at a time: large enough for fast reading, small enough for a dozen files at once.
BLOCK = 256 << 10
# Above this size in bytes, a record is reduced before it is parsed. Scalars have some 50 bytes, histograms
# some kB. Parsing holds a record twice.
LARGE_RECORD = 1 << 20
# A tag with more characters is damage or abuse: file names have at most 255, MLflow's names 250.
MAX_TAG = 4096
# TF2 writes a tag's plugin only with the tag's first event. It is remembered for this many tags.
MAX_TENSOR_TAGS = 100_000

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_DOUBLE = struct.Struct("<d")
_FLOAT = struct.Struct("<f")
_MASK_DELTA = 0xA282EAD8
_MAX_KNOWN_LENGTHS = 4096
_MAX_KNOWN_SCALARS = 4096
# The usual scalar begins with two keys: wall time (8 bytes) and step (a varint, omitted if 0). Shorter
# records are not scalars. This many bytes are examined first: a step has at most 35 bits.
_WALL_TIME, _STEP = 0x09, 0x10
_SHORTEST = 20


def masked_crc32c(data: bytes) -> int:
    """Return the CRC-32C of the data, rotated and shifted as TFRecord stores it."""
    return _masked(google_crc32c.value(data))


def _masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


class EventFile:
    """The scalar points of one event file, in the order of the file. Iterate once.

    ``stream`` only needs ``read``, and is not closed. Its errors are passed on; damage does not raise an
    error.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.name = name
        self.points = 0
        # Records without a readable Event, or with a scalar that is not a single number.
        self.skipped_records = 0
        # Why the file was not read to its end: TRUNCATED or damage. None: it was read completely.
        self.ended: str | None = None
        # The smallest step of a SessionLog START: this file repeats everything from that step on.
        self.purge_step: int | None = None
        self._stream = stream
        self._tensor_tags: set[str] = set()

    def __iter__(self) -> Iterator[Point]:
        # The loop runs once per point: local variables instead of attributes, and no avoidable calls.
        parse, crc32c = Event.FromString, google_crc32c.value
        header, footer = _HEADER.unpack_from, _FOOTER.unpack_from
        double, single = _DOUBLE.unpack_from, _FLOAT.unpack_from
        known_lengths: dict[int, int] = {}
        # The bytes between step and value of a scalar -> its tag.
        known_scalars: dict[bytes, str] = {}
        learned: set[str] = set()
        buffer, at, end = b"", 0, 0
        while True:
            if end - at < 12:
                buffer, at = self._filled(buffer[at:], 12), 0
                end = len(buffer)
                if end < 12:
                    self.ended = TRUNCATED if end else None
                    return
            length, length_crc = header(buffer, at)
            if known_lengths.get(length) != length_crc:
                if masked_crc32c(buffer[at : at + 8]) != length_crc:
                    self.ended = "the checksum of a record's length is wrong"
                    return
                if length > MAX_RECORD:
                    self.ended = f"a record claims {length} bytes"
                    return
                if len(known_lengths) < _MAX_KNOWN_LENGTHS:
                    known_lengths[length] = length_crc
            start = at + 12
            if length > LARGE_RECORD:
                body = _LargeRecord(buffer[start:], self._stream, length)
                data = self._reduced(body)
                if self.ended:
                    return
                buffer, at = body.rest, 0
                end = len(buffer)
            else:
                stop = start + length
                if stop + 4 > end:
                    buffer, start, stop = self._filled(buffer[start:], length + 4), 0, length
                    end = len(buffer)
                    if stop + 4 > end:
                        self.ended = TRUNCATED
                        return
                data = buffer[start:stop]
                at = stop + 4
                crc = crc32c(data)
                if ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF != footer(buffer, stop)[0]:
                    data = None
            if data is None:
                self.skipped_records += 1
                continue
            # The usual scalar, without creating a message: reading its attributes would take as long as
            # everything else.
            if length > _SHORTEST and data[0] == _WALL_TIME:
                step, key = 0, 9
                if data[9] == _STEP:
                    step, shift, key = data[10] & 0x7F, 0, 11
                    while data[key - 1] > 0x7F and shift < 28:
                        shift += 7
                        step |= (data[key] & 0x7F) << shift
                        key += 1
                    if data[key - 1] > 0x7F:
                        key = 0  # a longer step; no known field begins there
                known = known_scalars.get(data[key:-4])
                if known is not None:
                    self.points += 1
                    yield known, step, double(data, 1)[0], single(data, length - 4)[0]
                    continue
            try:
                event = parse(data)
            except DecodeError:
                self.skipped_records += 1
                continue
            values = event.summary.value
            if not values:
                if event.session_log.status == SESSION_START:
                    self._restart(event.step)
                continue
            step, wall_time, unreadable = event.step, event.wall_time, False
            for item in values:
                value = item.simple_value
                # Presence is only checked if the value is the default.
                if not value and not item.HasField("simple_value"):
                    if not item.HasField("tensor") or not self._is_scalar(item):
                        continue
                    value = tensor_value(item.tensor)
                tag = item.tag
                if value is None or len(tag) > MAX_TAG:
                    unreadable = True
                    continue
                if tag not in learned and len(learned) < _MAX_KNOWN_SCALARS:
                    learned.add(tag)
                    known_scalars[between_step_and_value(tag)] = tag
                self.points += 1
                yield tag, step, wall_time, value
            self.skipped_records += unreadable

    def _filled(self, have: bytes, needed: int) -> bytes:
        """Return ``have`` and the next bytes of the file: ``needed`` bytes or more, fewer at its end."""
        parts, size = [have], len(have)
        while size < needed:
            block = self._stream.read(max(BLOCK, needed - size))
            if not block:
                break
            parts.append(block)
            size += len(block)
        return b"".join(parts)

    def _reduced(self, body: _LargeRecord) -> bytes | None:
        try:
            data: bytes | None = reduced(body)
        except ValueError:
            data = None
        except EOFError:
            self.ended = TRUNCATED
            return None
        try:
            return data if body.is_whole() else None
        except EOFError:
            self.ended = TRUNCATED
            return None

    def _restart(self, step: int) -> None:
        self.purge_step = step if self.purge_step is None else min(step, self.purge_step)

    def _is_scalar(self, item: object) -> bool:
        plugin = item.metadata.plugin_data.plugin_name  # type: ignore[attr-defined]
        tag = item.tag  # type: ignore[attr-defined]
        if not plugin:
            return tag in self._tensor_tags
        if plugin != SCALARS_PLUGIN:
            return False
        if len(self._tensor_tags) < MAX_TENSOR_TAGS and len(tag) <= MAX_TAG:
            self._tensor_tags.add(tag)
        return True


class _LargeRecord:
    """The data of a record that is too large to hold. See
    :class:`aml_mirror.metrics.readers.event_proto.Body`.

    Every method raises EOFError if the file ends first.
    """

    def __init__(self, have: bytes, stream: BinaryIO, length: int) -> None:
        self.left = length
        self._have, self._at = have, 0
        self._stream = stream
        self._crc = 0

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise ValueError("a field reaches beyond its message")
        data = self._next(count)
        self._crc = google_crc32c.extend(self._crc, data)
        self.left -= count
        return data

    def skip(self, count: int) -> None:
        while count:
            count -= len(self.take(min(count, BLOCK)))

    def is_whole(self) -> bool:
        """Read to the end of the record and compare its data with its checksum."""
        self.skip(self.left)
        return bool(_FOOTER.unpack(self._next(4))[0] == _masked(self._crc))

    @property
    def rest(self) -> bytes:
        """The bytes that were read beyond the record."""
        return self._have[self._at :]

    def _next(self, count: int) -> bytes:
        while len(self._have) - self._at < count:
            block = self._stream.read(BLOCK)
            if not block:
                raise EOFError
            self._have, self._at = self._have[self._at :] + block, 0
        self._at += count
        return self._have[self._at - count : self._at]
