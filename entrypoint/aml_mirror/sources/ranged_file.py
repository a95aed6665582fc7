"""Reading a file: from its beginning to its end in chunks, or by ranges as if it were open."""

from __future__ import annotations

import io
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO


def read_into(stream: BinaryIO, buffer: bytearray) -> int:
    """Fill a buffer and return how many bytes it has now: fewer only at the end."""
    view, count = memoryview(buffer), 0
    while count < len(view) and (read := stream.readinto(view[count:])):  # type: ignore[attr-defined]
        count += read
    return count


def chunks(stream: BinaryIO, size: int) -> Generator[memoryview, None, None]:
    """Yield chunks of ``size`` bytes, the last one shorter. Each holds good until the next is asked for."""
    buffer = bytearray(size)
    while count := read_into(stream, buffer):
        yield memoryview(buffer)[:count]


def chunks_ahead(
    stream: BinaryIO, size: int, seen: Callable[[memoryview], None]
) -> Generator[memoryview, None, None]:
    """As :func:`chunks`, but the next one is read while one is worked on: for large files.

    Args:
        seen: called with each chunk where it is read, in another thread, before it is yielded.
    """
    current, other = bytearray(size), bytearray(size)
    pool = ThreadPoolExecutor(1, thread_name_prefix="read")

    def read(buffer: bytearray) -> int:
        count = read_into(stream, buffer)
        seen(memoryview(buffer)[:count])
        return count

    try:
        pending = pool.submit(read, current)
        while count := pending.result():
            pending = pool.submit(read, other)
            yield memoryview(current)[:count]
            current, other = other, current
    finally:
        # After a failure or a signal nothing is waited for.
        pool.shutdown(wait=False, cancel_futures=True)


class RangedFile(io.RawIOBase):
    """Something of a known size as a file that is only read; how, is up to the classes below.

    Args:
        size: in bytes.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.position = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            # An OSError, as of files, which zipfile looks for, and a ValueError, as of BytesIO.
            raise io.UnsupportedOperation(f"negative seek position {base + offset}")
        self.position = base + offset
        return self.position
