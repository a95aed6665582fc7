"""Hand a file of the source to a client that wants a path, without racing, and uncopied where that can be.

For a local file the path leads to the very file that was opened and compared with what was listed,
whatever is put in its place meanwhile. A file of another kind of source (a blob) is written to the scratch
folder first, piece by piece. In both cases the path ends in the name that the artifact is to have.
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
    """Yield a path named ``name`` that reads as the file ``source`` of the tree.

    Raises:
        DataError: the file is not the one that was listed, or changed while it was being read.
        NotAllowed: it may not be read.
        ConfigurationError: it has to be written to the scratch folder (``TMPDIR``), which has no room.
    """
    entry = tree.entry(source)
    with tree.open(source) as stream, tempfile.TemporaryDirectory(prefix="aml-mirror-") as scratch:
        path = os.path.join(scratch, name)
        descriptor = _descriptor(stream)
        if descriptor is None:
            _spool(stream, path, entry.bytes)
        else:
            # Linux opens the file behind the descriptor again, from its start; on other systems, where
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
            "wait until the training has ended and nothing writes there any more, then run again",
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
        # Another program may fill the disk meanwhile. What the source raises is none of these.
        raise _no_room(folder, size, shutil.disk_usage(folder).free) from error


def _no_room(folder: str, size: int, room: int) -> ConfigurationError:
    return ConfigurationError(
        f"{os.path.dirname(folder)} has {amount(room)} left, and {amount(size)} have to pass through it",
        "set TMPDIR to a folder with more room",
    )
