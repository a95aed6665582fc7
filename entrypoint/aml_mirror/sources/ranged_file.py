"""Reads a file into a buffer, or by ranges as if it were open."""

from __future__ import annotations

import io
from typing import BinaryIO


def read_into(stream: BinaryIO, buffer: bytearray | memoryview) -> int:
    """Fill a buffer and return how many bytes it contains now: fewer only at the end."""
    view, count = memoryview(buffer), 0
    while count < len(view) and (read := stream.readinto(view[count:])):  # type: ignore[attr-defined]
        count += read
    return count


class RangedFile(io.RawIOBase):
    """A read-only file of known size. The subclasses define how it is read.

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
            # An OSError, like those of files, for zipfile, and a ValueError, like those of BytesIO.
            raise io.UnsupportedOperation(f"negative seek position {base + offset}")
        self.position = base + offset
        return self.position
