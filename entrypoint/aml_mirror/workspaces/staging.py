"""Hand a file of the source to a client that wants a path, without copying it and without racing.

The path leads to the very file that was opened and compared with what was listed, whatever is put in its
place meanwhile; and it ends in the name that the artifact is to have.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from aml_mirror.errors import DataError
from aml_mirror.sources.tree import Tree


@contextmanager
def staged(tree: Tree, source: str, name: str) -> Iterator[str]:
    """Yield a path named ``name`` that reads as the file ``source`` of the tree.

    Raises:
        DataError: the file is not the one that was listed, or changed while it was being read.
        NotAllowed: it may not be read.
    """
    entry = tree.entry(source)
    with tree.open(source) as stream, tempfile.TemporaryDirectory(prefix="aml-mirror-") as scratch:
        path = os.path.join(scratch, name)
        # Linux opens the file behind the descriptor anew, from its start; on other systems, where
        # /dev/fd shares the position, rewinding does the same.
        os.symlink(
            f"/proc/{os.getpid()}/fd/{stream.fileno()}"
            if os.path.isdir("/proc/self/fd")
            else f"/dev/fd/{stream.fileno()}",
            path,
        )
        yield path
    if not tree.source.is_unchanged(entry):
        raise DataError(
            f"{source} changed while it was sent",
            "wait until the training has ended and nothing writes there any more, then run again",
        )
