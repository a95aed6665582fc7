"""Passes a file of the source to a client that needs a path, without races, and without a copy if possible.

For a local file, the path leads to the same file that was opened and compared with the listing, whatever
replaces it meanwhile. A file from another kind of source (a blob) is first written to the temporary folder,
piece by piece. In both cases, the path ends in the name that the artifact should have.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from aml_mirror.core.errors import ConfigurationError, DataError
from aml_mirror.sources.tree import Tree
from aml_mirror.support.progress import amount

_PIECE_BYTES = 4 << 20


@contextmanager
def staged(tree: Tree, source: str, name: str) -> Iterator[str]:
    """Yield a path named ``name`` from which the file ``source`` of the tree can be read.

    Raises:
        DataError: the file is not the one that was listed, or changed while it was read.
        NotAllowed: access is denied.
        ConfigurationError: it must be written to the temporary folder (``TMPDIR``), which has no room.
    """
    entry = tree.entry(source)
    with tree.open(source) as stream, tempfile.TemporaryDirectory(prefix="aml-mirror-") as scratch:
        path = os.path.join(scratch, name)
        descriptor = _descriptor(stream)
        if descriptor is None:
            _spool(stream, path, entry.bytes)
        else:
            # Linux opens the file behind the descriptor again, from its start. On other systems, where
            # /dev/fd shares the position, rewinding does the same.
            os.symlink(
                f"/proc/{os.getpid()}/fd/{descriptor}"
                if os.path.isdir("/proc/self/fd")
                else f"/dev/fd/{descriptor}",
                path,
            )
        yield path
    if not tree.source.is_unchanged(entry):
        raise DataError(
            f"{source} changed while it was sent",
            "wait until the training has ended and nothing writes there, then run the command again",
        )


def _descriptor(stream: BinaryIO) -> int | None:
    try:
        return stream.fileno()
    except (AttributeError, io.UnsupportedOperation):
        return None


def _spool(stream: BinaryIO, path: str, size: int) -> None:
    folder = os.path.dirname(path)
    room = shutil.disk_usage(folder).free
    if room < size:
        raise _no_room(folder, size, room)
    try:
        with open(path, "wb") as file:
            shutil.copyfileobj(stream, file, _PIECE_BYTES)
            file.flush()
    except OSError as error:
        # Another program may fill the disk meanwhile. The source raises none of these errors.
        raise _no_room(folder, size, shutil.disk_usage(folder).free) from error


def _no_room(folder: str, size: int, room: int) -> ConfigurationError:
    return ConfigurationError(
        f"{os.path.dirname(folder)} has {amount(room)} free, but {amount(size)} are needed",
        "set TMPDIR to a folder with more room",
    )
