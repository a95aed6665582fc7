"""Reads a file once, in order, in blocks, while worker threads compute its digests.

The thread that asks for blocks reads them. Other threads compute the SHA-256 of the file, the digest and the
checksum of each block, and the checks of a format. So a volume that is slower than a processor is never
waited for twice.

Two cores hash 1.1 GiB/s while they read. SHA-256 is the slowest part, and everything else runs beside it.
Parts of ``PART_BYTES`` stay in the processor's cache from one digest to the next. Memory is ``PARTS`` of
them, whatever the size of a block. If the file is itself a blob, ``AHEAD`` ranges are fetched at a time,
because each costs a request.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

from aml_mirror.core.manifest import CRC_BYTES, BlockDigests
from aml_mirror.sources.base import AzureBlobs, Entry
from aml_mirror.sources.ranged_file import read_into
from aml_mirror.sources.tree import Tree
from aml_mirror.support.block_digest import block_hasher
from aml_mirror.support.crc64 import crc64

PART_BYTES = 512 << 10
PARTS = 8
# The size of one request to a blob.
FETCH_BYTES = 2 << 20
# The number of a blob's ranges that are fetched, or wait to be hashed, at a time. It keeps a connection with
# a latency of 30 ms busy at the speed of one hashing core.
AHEAD = 4
CRC64 = "crc64"
MD5 = "md5"


class ByteCheck(Protocol):
    """Sees the bytes of one file in order, while they are hashed."""

    def take(self, part: memoryview) -> None:
        """Process the next bytes of the file."""

    def ended(self) -> None:
        """The file has ended. Raises DataError where it is damaged."""


@dataclass(frozen=True, slots=True)
class HashedBlock:
    """One block of a file: its position and its digests.

    ``checksum`` is the CRC-64 (lowest byte first) or the MD5, as requested. ``data`` are the bytes if they
    are held: for a blob whose ranges are as long as the blocks.
    """

    offset: int
    length: int
    digest: bytes
    checksum: bytes
    data: bytes | None = None


class BlockReader:
    """The blocks of one file. Iterate once; the other attributes are valid at the end.

    Args:
        tree, path: the file.
        block_bytes: the size of a block.
        checksum: ``CRC64``, ``MD5``, or empty: what is computed for each block beside its digest.
        check: sees the bytes.
        progress: called with the number of bytes of each part, in the iterating thread.

    Raises:
        DataError: the file is not the one that was listed.
        NotAllowed: access is denied.
    """

    def __init__(
        self,
        tree: Tree,
        path: str,
        block_bytes: int,
        checksum: str = "",
        check: ByteCheck | None = None,
        progress: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._tree, self._path, self._block_bytes = tree, path, block_bytes
        self._checksum, self._check, self._progress = checksum, check, progress
        self._expected = tree.size(path)
        self._sha256 = hashlib.sha256()
        # For each part in memory, the digests that are still being computed.
        self._taking: deque[list[Future[Any]]] = deque()
        self._digests: list[bytes] = []
        self._crcs: list[bytes] = []
        self.count = 0
        """The number of bytes that were read. It is more than listed if the file grows."""

    @property
    def sha256(self) -> str:
        """The digest of the whole file, in hexadecimal."""
        return self._sha256.hexdigest()

    @property
    def blocks(self) -> BlockDigests:
        """The number of blocks."""
        crcs = b"".join(self._crcs) if self._checksum == CRC64 else b""
        return BlockDigests(self._block_bytes, b"".join(self._digests), crcs)

    def __iter__(self) -> Generator[HashedBlock, None, None]:
        workers = [ThreadPoolExecutor(1, thread_name_prefix="digest") for _ in range(self._lanes)]
        try:
            block = _Block(self._checksum)
            with closing(self._parts()) as parts:
                for part in parts:
                    self._taking.append(self._submit(workers, block, memoryview(part)))
                    self.count += len(part)
                    self._progress(len(part))
                    ended = self.count % self._block_bytes == 0
                    if ended or self.count > self._expected:
                        is_whole = isinstance(part, bytes) and len(part) == block.length
                        yield self._finished(block, part if is_whole else None)  # type: ignore[arg-type]
                        block = _Block(self._checksum)
                    if self.count > self._expected:
                        break  # The file grows, maybe faster than it can be read.
            if block.length:
                is_whole = isinstance(part, bytes) and len(part) == block.length
                yield self._finished(block, part if is_whole else None)  # type: ignore[arg-type]
            while self._taking:
                self._wait()
            if self._check and self.count == self._expected:
                self._check.ended()
        finally:
            for worker in workers:
                # After a failure or a signal, nothing is waited for.
                worker.shutdown(wait=False, cancel_futures=True)

    @property
    def _lanes(self) -> int:
        return 2 + (self._checksum == MD5) + (self._check is not None)

    def _submit(
        self, workers: list[ThreadPoolExecutor], block: _Block, part: memoryview
    ) -> list[Future[Any]]:
        """Pass a part to each worker. One worker handles all parts of one digest, so they stay in order."""
        block.length += len(part)
        tasks: list[Callable[[memoryview], object]] = [self._sha256.update, block.take]
        if self._checksum == MD5:
            tasks.append(block.md5.update)
        if self._check:
            tasks.append(self._check.take)
        taking = [worker.submit(task, part) for worker, task in zip(workers, tasks, strict=True)]
        block.futures = [taking[1], *(taking[2:3] if self._checksum == MD5 else [])]
        return taking

    def _finished(self, block: _Block, data: bytes | None) -> HashedBlock:
        # The digests of the blocks are far ahead of the file's digest, which is not waited for.
        for future in block.futures:
            future.result()
        digest, checksum = block.hasher.digest(), block.checksum
        self._digests.append(digest)
        self._crcs.append(checksum)
        return HashedBlock(self.count - block.length, block.length, digest, checksum, data)

    def _wait(self) -> None:
        for future in self._taking.popleft():
            future.result()

    def _parts(self) -> Generator[memoryview | bytes, None, None]:
        entry = self._tree.entry(self._path)
        if isinstance(self._tree.source, AzureBlobs):
            yield from self._fetched(self._tree.source, entry)
            return
        ring = [bytearray(min(PART_BYTES, self._block_bytes, self._expected + 1)) for _ in range(PARTS)]
        number = 0
        with self._tree.open(self._path) as stream:
            while True:
                if len(self._taking) == PARTS:
                    self._wait()
                buffer = ring[number % PARTS]
                left = self._block_bytes - self.count % self._block_bytes
                wanted = memoryview(buffer)[: min(len(buffer), left)]
                count = read_into(stream, wanted)
                if not count:
                    return
                yield wanted[:count]
                number += 1

    def _fetched(self, source: AzureBlobs, entry: Entry) -> Iterator[bytes]:
        """A blob cannot grow unnoticed, because each range is bound to its ETag."""
        step = FETCH_BYTES if self._block_bytes % FETCH_BYTES == 0 else self._block_bytes
        pending: deque[Future[bytes]] = deque()
        pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="fetch")
        try:
            for offset in range(0, entry.bytes, step):
                pending.append(pool.submit(source.read, entry, offset, step))
                if len(pending) == AHEAD:
                    yield self._bounded(pending.popleft().result())
            while pending:
                yield self._bounded(pending.popleft().result())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _bounded(self, data: bytes) -> bytes:
        while len(self._taking) >= AHEAD:
            self._wait()
        return data


class _Block:
    """One block, with the parts that were read so far."""

    def __init__(self, checksum: str) -> None:
        self.hasher = block_hasher()
        self.md5 = hashlib.md5(usedforsecurity=False)
        self.length = 0
        self.futures: list[Future[Any]] = []
        self._kind = checksum
        self._crc = 0

    def take(self, part: memoryview) -> None:
        """Process the next bytes of the block."""
        self.hasher.update(part)
        if self._kind == CRC64:
            self._crc = crc64(part, self._crc)

    @property
    def checksum(self) -> bytes:
        """The checksum of the processed bytes."""
        if self._kind == MD5:
            return self.md5.digest()
        return self._crc.to_bytes(CRC_BYTES, "little") if self._kind == CRC64 else b""
