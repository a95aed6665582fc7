"""The interface for reading the files of a version."""

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
    """The ETag in the form that the store accepts in ``If-Match``; empty: it has none."""


@dataclass(frozen=True, slots=True)
class Part:
    """A store's answer to a read."""

    start: int
    """Offset of the first byte. 0 although another was requested: the store does not support ranges."""
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
    """Their location, for messages; without a secret."""
    has_ranges: bool
    """Whether parts of one file can be read at the same time."""

    def listing(self) -> dict[str, Listed]:
        """Return all files by path, in as few requests as possible; empty if the folder does not exist.

        Raises:
            MirrorError: the store cannot be read.
        """

    def read(
        self, path: str, start: int = 0, length: int | None = None, etag: str = ""
    ) -> AbstractContextManager[Part]:
        """Read a file from an offset.

        Sends a single request. Errors are those of the client; :meth:`retried` translates them.

        Args:
            path: the path of the file.
            start, length: in bytes; no length: to the end.
            etag: the file must be as it was listed.
        """

    def small(self, path: str, limit: int) -> bytes | None:
        """Return a file; None if it does not exist, or is longer than ``limit`` bytes."""

    def retried(self, operation: Callable[[], T]) -> T:
        """Run an operation on these files with retries; its errors become ours."""
