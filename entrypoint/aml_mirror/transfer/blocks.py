"""The blocks of a file, in order: read from a stream, or fetched some ahead where each costs a request."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

from aml_mirror.sources.azure_blob import BlobSource
from aml_mirror.sources.base import Entry
from aml_mirror.sources.tree import Tree

# Blocks that are fetched, or wait to be hashed, at a time: as many as keep a line of 30 ms busy at the rate
# at which one core hashes. They are held beside those of the senders.
AHEAD = 4


def blocks(tree: Tree, path: str, step: int) -> Generator[bytes, None, None]:
    """Yield a file in blocks of ``step`` bytes, the last one shorter; nothing of an empty file.

    A file that grew yields what it grew by, for the reader to notice.

    Raises:
        DataError: the file is not the one that was listed.
        NotAllowed: it may not be read.
    """
    if isinstance(tree.source, BlobSource):
        yield from _fetched(tree.source, tree.entry(path), step)
        return
    with tree.open(path) as stream:
        while data := read_block(stream, step):
            yield data


def _fetched(source: BlobSource, entry: Entry, step: int) -> Generator[bytes, None, None]:
    """A blob cannot grow unnoticed: each range is bound to its ETag."""
    pending: deque[Future[bytes]] = deque()
    pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="fetch")
    try:
        for offset in range(0, entry.bytes, step):
            pending.append(pool.submit(source.read, entry, offset, step))
            if len(pending) == AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # After a failure or a signal nothing is waited for.
        pool.shutdown(wait=False, cancel_futures=True)


def read_block(stream: BinaryIO, length: int) -> bytes:
    """Read so many bytes, fewer only at the end."""
    data = stream.read(length)
    while data and len(data) < length:
        more = stream.read(length - len(data))
        if not more:
            break
        data += more
    return data
