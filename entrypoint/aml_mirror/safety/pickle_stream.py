"""Reads a file's bytes in order, to follow a pickle in it."""

from __future__ import annotations

from collections.abc import Callable

from aml_mirror.safety.findings import MalformedPickle, TooMuch
from aml_mirror.safety.pickle_vm import MAX_PICKLE_BYTES

_STEP = 64 << 10  # The first read of a stream. Each next one is twice as long, up to _MAX_STEP.
_MAX_STEP = 4 << 20


class Stream:
    """The bytes of a file in order, up to ``MAX_PICKLE_BYTES``, with reads that grow."""

    def __init__(self, read: Callable[[int, int], bytes], start: int, size: int) -> None:
        self._read = read
        self._at = start
        self._end = size
        self._limit = start + MAX_PICKLE_BYTES
        self._buffer = b""
        self._used = 0
        self._step = _STEP

    @property
    def left(self) -> int:
        """The number of bytes that have not been read yet."""
        return self._end - self._at + len(self._buffer) - self._used

    def read(self, size: int, /) -> bytes:
        if size < 0 or size > self.left:
            raise MalformedPickle("a pickle that ends within a value")
        if size > MAX_PICKLE_BYTES:
            raise self._too_long()
        while len(self._buffer) - self._used < size and self._more(size):
            pass
        found = self._buffer[self._used : self._used + size]
        self._used += len(found)
        return found

    def readline(self) -> bytes:
        while (end := self._buffer.find(b"\n", self._used)) < 0 and self._more(_STEP):
            pass
        end = len(self._buffer) if end < 0 else end + 1
        found = self._buffer[self._used : end]
        self._used = end
        return found

    def _more(self, wanted: int) -> bool:
        count = min(max(self._step, wanted), self._end - self._at)
        if count <= 0:
            return False
        if self._at + count > self._limit:
            count = self._limit - self._at
            if count <= 0:
                raise self._too_long()
        part = self._read(self._at, count)
        self._at += len(part)
        self._buffer = self._buffer[self._used :] + part
        self._used = 0
        self._step = min(2 * self._step, _MAX_STEP)
        return bool(part)

    def _too_long(self) -> TooMuch:
        return TooMuch(f"a pickle of more than {MAX_PICKLE_BYTES >> 20} MiB, which is not examined")
