"""Where the files of a version are read from, behind one interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Listed:
    """One file as a store lists it."""

    bytes: int | None
    """None: the store does not say."""
    etag: str = ""
    """As the store takes it in ``If-Match``; empty: it has none."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a store answers to a read."""

    start: int
    """Offset of the first byte. 0 although another was asked for: the store does not serve ranges."""
    chunks: Iterator[bytes]


def joined(part: AbstractContextManager[Part], limit: int) -> bytes | None:
    """Return all bytes of a part; None where there are more than ``limit``."""
    data = b""
    with part as answer:
        for chunk in answer.chunks:
            data += chunk
            if len(data) > limit:
                return None
    return data


class Files(Protocol):
    """The files below one folder of a store. Safe to use from several threads."""

    uri: str
    """Where they are, for people; without a secret."""
    has_ranges: bool
    """Whether parts of one file can be read at the same time."""

    def listing(self) -> dict[str, Listed]:
        """Return all files by path, in as few requests as possible; empty where there is no such folder.

        Raises:
            MirrorError: the store cannot be read.
        """

    def read(
        self, path: str, start: int = 0, length: int | None = None, etag: str = ""
    ) -> AbstractContextManager[Part]:
        """Read a file from an offset on.

        Sends one request, once. What it raises is the client's own: :meth:`retried` gives it words.

        Args:
            path: of the file.
            start, length: in bytes; no length: to the end.
            etag: the file has to be as it was listed.
        """

    def small(self, path: str, limit: int) -> bytes | None:
        """Return a file; None where there is none, or it is longer than ``limit`` bytes."""

    def retried(self, operation: Callable[[], T]) -> T:
        """Run an operation on these files with patience; its errors become ours."""
