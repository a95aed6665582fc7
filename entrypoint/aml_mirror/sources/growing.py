"""Reads log files that may still be written, each only up to the size that was seen first.

A training that resumes, or a writer that flushes late, only appends. So if a file is longer than when it was
listed, it is read up to the listed size, and the next mirror reads the rest. A shorter file counts as
changed.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, BinaryIO

from aml_mirror.core.errors import DataError
from aml_mirror.sources.base import Entry, Source
from aml_mirror.sources.tree import Tree

# How often a file that grows between two looks is examined again.
_LOOKS = 20


def log_view(tree: Tree, logs: Iterable[str], sizes: Mapping[str, int] | None = None) -> Tree:
    """Return the tree with log files that may grow while they are read.

    Args:
        tree: the run.
        logs: the paths of its log files.
        sizes: how many bytes of each count; logs without a size are hidden. None: all, as listed.
    """
    files = dict(tree.files)
    if sizes is not None:
        for path in logs:
            if path not in sizes or files[path].bytes < sizes[path]:
                files.pop(path, None)
            else:
                files[path] = replace(files[path], bytes=sizes[path])
    return tree.seen_through(_GrowingSource(tree.source), files)


class _GrowingSource:
    """A source whose files may have grown. Everything else is unchanged."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def open(self, entry: Entry) -> BinaryIO:
        """Open what an entry lists of a file. Raises as the source's own."""
        for _ in range(_LOOKS):
            try:
                return io.BufferedReader(_Prefix(self._source.open(self._now(entry)), entry.bytes))
            except DataError:
                continue
        return self._source.open(entry)

    def read(self, entry: Entry, offset: int, length: int) -> bytes:
        """Read a part of what an entry lists. Raises as the source's own."""
        length = max(min(length, entry.bytes - offset), 0)
        for _ in range(_LOOKS):
            try:
                return self._source.read(self._now(entry), offset, length)
            except DataError:
                continue
        return self._source.read(entry, offset, length)

    def is_unchanged(self, entry: Entry) -> bool:
        """Tell whether the listed bytes can still be there. A longer file counts as unchanged."""
        return self._source.is_unchanged(entry) or self._source.grown(entry) is not None

    def changed(self, entries: Iterable[Entry]) -> list[str]:
        """Return the paths of the files whose listed bytes cannot still be there."""
        return [entry.path for entry in entries if not self.is_unchanged(entry)]

    def _now(self, entry: Entry) -> Entry:
        if self._source.is_unchanged(entry):
            return entry
        return self._source.grown(entry) or entry


class _Prefix(io.RawIOBase):
    """The first bytes of a stream."""

    def __init__(self, stream: BinaryIO, count: int) -> None:
        self._stream = stream
        self._count = count
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(min(len(buffer), max(self._count - self._at, 0)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._count}[whence]
        self._at = self._stream.seek(max(base + offset, 0))
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        self._stream.close()
        super().close()
