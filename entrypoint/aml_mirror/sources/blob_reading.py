"""Decides how much of a blob a read fetches: little for single reads, more and more for consecutive ones."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from aml_mirror.sources.base import Entry
from aml_mirror.sources.ranged_file import RangedFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# Headers and directories are at the beginning and end of a file. The safetensors header or zip directory of a
# large model has some tens of kB.
EDGE_BYTES = 64 << 10
# Somewhere in the middle: a zip's local header has 30 bytes and a name.
JUMP_BYTES = 4 << 10
# A file that is read from start to end is fetched in pieces of this size. Two of them are held at a time.
LARGEST_READ = 4 << 20
# The total that is remembered from small reads, over all files.
_REMEMBERED_BYTES = 4 << 20


class Windows:
    """Remembers what small reads have fetched of any file, and decides how much the next one fetches.

    A read at the start or end of a file takes ``EDGE_BYTES``. Elsewhere it takes ``JUMP_BYTES``, or twice as
    much as the last one if it continues close behind it. So a few requests are enough for the local headers
    of a zip with a thousand small members, and ten small requests for a zip with ten large members.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str, int], bytes] = OrderedDict()
        self._bytes = 0
        self._last = ("", 0, 0)  # file, the end of its last window, the length of that window

    def find(self, entry: Entry, offset: int, length: int) -> bytes | None:
        """Return a range that was fetched before."""
        with self._lock:
            for (path, stamp, start), data in self._kept.items():
                if path == entry.path and stamp == entry.stamp and start <= offset:
                    at = offset - start
                    if at + length <= len(data):
                        self._kept.move_to_end((path, stamp, start))
                        return data[at : at + length]
        return None

    def plan(self, entry: Entry, offset: int, length: int) -> tuple[int, int]:
        """Return start and length of the fetch for a read that was not found."""
        size = entry.bytes
        if offset < EDGE_BYTES and offset + length <= EDGE_BYTES:
            return 0, min(size, EDGE_BYTES)
        if offset >= size - EDGE_BYTES:
            return max(0, size - EDGE_BYTES), min(size, EDGE_BYTES)
        path, end, last = self._last
        near = path == entry.path and end <= offset < end + EDGE_BYTES
        ahead = min(2 * last, EDGE_BYTES) if near else JUMP_BYTES
        return offset, min(max(length, ahead), size - offset)

    def keep(self, entry: Entry, start: int, data: bytes) -> None:
        """Store what was fetched, and drop the oldest entries."""
        with self._lock:
            key = (entry.path, entry.stamp, start)
            self._bytes += len(data) - len(self._kept.pop(key, b""))
            self._kept[key] = data
            self._last = (entry.path, start + len(data), len(data))
            while self._bytes > _REMEMBERED_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1])


class BlobFile(RangedFile):
    """A blob as a file: one window, which doubles while reads continue at its end."""

    def __init__(self, entry: Entry, fetch: Callable[[Entry, int, int], bytes]) -> None:
        super().__init__(entry.bytes)
        self._entry = entry
        self._fetch = fetch
        self._start = 0
        self._window = b""
        self._ahead = EDGE_BYTES

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), self.size - self.position)
        if wanted <= 0:
            return 0
        at = self.position - self._start
        if not 0 <= at < len(self._window):
            goes_on = self.position == self._start + len(self._window)
            self._ahead = min(2 * self._ahead, LARGEST_READ) if goes_on and self._window else EDGE_BYTES
            length = min(max(wanted, self._ahead), LARGEST_READ, self.size - self.position)
            self._window = b""  # released before the next one arrives
            self._window = self._fetch(self._entry, self.position, length)
            self._start, at = self.position, 0
        part = memoryview(self._window)[at : at + wanted]
        view[: len(part)] = part
        self.position += len(part)
        return len(part)
