"""A block of a file as the body of a request. Another thread sends it than the one that read and hashed it.

A block of a file is not held in memory while it waits for a sender or an answer. The sender reads it again,
piece by piece, from the system's page cache, where the reader has just brought it. So the volume is read
once, and memory does not grow with the number of senders or the size of a block. We do not assume that both
saw the same bytes: the block carries the checksum of the first reading, and the service refuses a block that
does not match.

A block of a file that is itself a blob is held until the service has it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, BinaryIO

from aml_mirror.core.errors import DataError
from aml_mirror.sources.block_reader import HashedBlock
from aml_mirror.sources.ranged_file import RangedFile
from aml_mirror.sources.tree import Tree

_PIECE_BYTES = 256 << 10

# Opens the body of a request, again for each attempt, in any thread.
Body = Callable[[], AbstractContextManager["bytes | FilePart"]]


class FilePart(RangedFile):
    """A range of a file, as the body of a request.

    Raises:
        DataError: at any time, if the file is not the one that was listed, or ends before the range does.
        NotAllowed: access is denied.
    """

    # None until it is open: a partly constructed object is closed too.
    _file: BinaryIO | None = None

    def __init__(self, tree: Tree, path: str, offset: int, length: int) -> None:
        super().__init__(length)
        self._path, self._offset = path, offset
        # Opening it again also detects that the file was replaced.
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
            # If fewer bytes than announced were sent, the service would wait for the rest.
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


def body_of(tree: Tree, path: str, block: HashedBlock) -> Body:
    """Return a function that opens a block of a file for a request."""
    if block.data is not None:
        data = block.data
        return lambda: nullcontext(data)
    return partial(FilePart, tree, path, block.offset, block.length)


def md5_of(body: Body) -> bytes:
    """Return the MD5 of a body without holding much of it in memory."""
    digest = hashlib.md5(usedforsecurity=False)
    with body() as data:
        if isinstance(data, bytes):
            digest.update(data)
            return digest.digest()
        while piece := data.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.digest()


def all_of(body: Body) -> bytes:
    """Return the bytes of a body."""
    with body() as data:
        return data.read() if isinstance(data, FilePart) else data
