"""The blocks of a file, in order: what of each is hashed now, and what is sent later, from another thread.

A block of a local file is not held while it waits for its turn and its answer: the sender reads it again,
piece by piece, straight into the connection. So memory does not grow with the number of senders or the size
of a block. That both readers saw the same bytes is not taken for granted: the checksum that goes with a
block is that of the first reading, and the service refuses a block that does not have it.

A file that is itself a blob is fetched some blocks ahead, since each costs a request, and is held until the
service has it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

from aml_mirror.core.errors import DataError
from aml_mirror.sources.base import AzureBlobs, Entry
from aml_mirror.sources.ranged_file import RangedFile, chunks
from aml_mirror.sources.tree import Tree

# Blocks that are fetched, or wait to be hashed, at a time: as many as keep a line of 30 ms busy at the rate
# at which one core hashes. They are held beside those of the senders.
AHEAD = 4


# Opens what a request sends, anew for each attempt, in any thread.
Body = Callable[[], AbstractContextManager["bytes | FilePart"]]


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a file. ``data`` holds good until the next block is asked for."""

    data: memoryview
    body: Body


class FilePart(RangedFile):
    """A range of a file, as the body of a request.

    Raises:
        DataError: at any time, that the file is not the one that was listed, or ends before the range does.
        NotAllowed: it may not be read.
    """

    # None until it is open: an object that was not made to its end is closed too.
    _file: BinaryIO | None = None

    def __init__(self, tree: Tree, path: str, offset: int, length: int) -> None:
        super().__init__(length)
        self._path, self._offset = path, offset
        # Opened anew, which also finds out that the file was replaced.
        self._file = tree.open(path)
        self._descriptor = self._file.fileno()

    def readinto(self, buffer: Any) -> int:
        wanted = memoryview(buffer)[: max(0, self.size - self.position)]
        if not wanted:
            return 0
        try:
            read = os.preadv(self._descriptor, [wanted], self._offset + self.position)
        except OSError as error:
            raise DataError(
                f"{self._path} cannot be read: {error.strerror}", "look at the volume, then run again"
            ) from error
        if not read:
            # Fewer bytes than were announced would leave the service waiting for the rest.
            raise DataError(
                f"{self._path} changed while it was sent (it ends before byte {self._offset + self.size})",
                "wait until the training has ended and nothing writes there any more, then run again",
            )
        self.position += read
        return read

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()


def blocks(tree: Tree, path: str, step: int) -> Generator[Block, None, None]:
    """Yield a file in blocks of ``step`` bytes, the last one shorter; nothing of an empty file.

    A file that grew yields what it grew by, for the reader to notice.

    Raises:
        DataError: the file is not the one that was listed.
        NotAllowed: it may not be read.
    """
    if isinstance(tree.source, AzureBlobs):
        yield from _fetched(tree.source, tree.entry(path), step)
        return
    offset = 0
    with tree.open(path) as stream, closing(chunks(stream, step)) as found:
        for data in found:
            yield Block(data, partial(FilePart, tree, path, offset, len(data)))
            offset += len(data)


def _fetched(source: AzureBlobs, entry: Entry, step: int) -> Generator[Block, None, None]:
    """A blob cannot grow unnoticed: each range is bound to its ETag."""
    pending: deque[Future[bytes]] = deque()
    pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="fetch")
    try:
        for offset in range(0, entry.bytes, step):
            pending.append(pool.submit(source.read, entry, offset, step))
            if len(pending) == AHEAD:
                yield _held(pending.popleft().result())
        while pending:
            yield _held(pending.popleft().result())
    finally:
        # After a failure or a signal nothing is waited for.
        pool.shutdown(wait=False, cancel_futures=True)


def _held(data: bytes) -> Block:
    return Block(memoryview(data), lambda: nullcontext(data))
