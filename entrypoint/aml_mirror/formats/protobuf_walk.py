"""Reads only the requested fields of a protobuf message, however large the others are.

Source: the encoding in protobuf's documentation (protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from aml_mirror.formats.archives import Read

# A policy's graph has some thousand nodes with ten fields. Python reads some 500,000 fields per second.
MAX_FIELDS = 2_000_000
_WINDOW_BYTES = 64 << 10
_MAX_DEPTH = 32

Schema = dict[int, "Schema | Callable[[bytes], None]"]
"""Field number -> its contents: the fields of a message, or a function that receives its bytes."""
# The longest requested string: a name, a path. A longer one is cut.
_MAX_TEXT_BYTES = 4096


class Walk:
    """One file with a message.

    Raises:
        ValueError: it is not a complete message of this kind, or has too many fields.
    """

    def __init__(self, read: Read, size: int) -> None:
        self._read = read
        self._size = size
        self._start, self._window = 0, b""
        self._fields = 0

    def message(self, schema: Schema, start: int = 0, end: int | None = None, depth: int = 0) -> None:
        """Pass the bytes of the fields to the schema's functions."""
        if depth > _MAX_DEPTH:
            raise ValueError("its messages are nested too deeply")
        for number, at, length in self._fields_in(start, self._size if end is None else end):
            wanted = schema.get(number)
            if isinstance(wanted, dict):
                self.message(wanted, at, at + length, depth + 1)
            elif wanted is not None:
                wanted(self._take(at, min(length, _MAX_TEXT_BYTES)))

    def _fields_in(self, at: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield the number, the position and the length of each field that has a length."""
        while at < end:
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise ValueError("it has too many fields to be examined")
            tag, at = self._varint(at, end)
            kind = tag & 7
            length = {1: 8, 5: 4}.get(kind, 0)
            if kind == 0:
                _, at = self._varint(at, end)
            elif kind == 2:
                length, at = self._varint(at, end)
            elif kind not in (1, 5):
                raise ValueError("its protobuf message is damaged")
            if at + length > end:
                raise ValueError("its protobuf message is truncated")
            if kind == 2:
                yield tag >> 3, at, length
            at += length

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for shift, byte in enumerate(self._take(at, min(10, end - at))):
            value |= (byte & 127) << (7 * shift)
            if byte < 128:
                return value, at + shift + 1
        raise ValueError("its protobuf message is truncated")

    def _take(self, at: int, count: int) -> bytes:
        if not self._start <= at <= at + count <= self._start + len(self._window):
            self._start = at
            self._window = self._read(at, min(max(count, _WINDOW_BYTES), self._size - at))
        return self._window[at - self._start : at - self._start + count]
