"""The manifest of files in a source: each is read once and hashed, or taken as the store describes it.

The quick key is made from the listing alone: path, size and stamp of each file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Protocol

from aml_mirror.core.errors import DataError
from aml_mirror.core.manifest import NOTED_BYTES, BlockDigest, Manifest, ManifestEntry, digest_of_json
from aml_mirror.sources.ranged_file import chunks, chunks_ahead
from aml_mirror.sources.tree import Tree
from aml_mirror.support.crc64 import crc64

CHUNK_BYTES = 2 << 20  # large enough that hashing, not calling, is the cost; small enough for a cache
# Of larger files the blocks are noted, so that they can be sent without being hashed again.
NOTED_FROM_BYTES = 64 << 20


def quick_key(tree: Tree, run_id: str, checkpoint: str, files: Iterable[str]) -> str:
    """Return a key that is equal as long as no file can have changed, as 64 hexadecimal digits."""
    rows = [[path, tree.size(path), tree.entry(path).stamp] for path in sorted(files)]
    return digest_of_json([run_id, checkpoint, rows])


class ByteCheck(Protocol):
    """Sees the bytes of one file in order, while they are hashed."""

    def take(self, part: memoryview) -> None:
        """Take what follows in the file."""

    def ended(self) -> None:
        """The file has ended. Raises DataError where it is damaged."""


def hash_files(
    tree: Tree,
    paths: dict[str, str],
    progress: Callable[[int], None] = lambda count: None,
    check_of: Callable[[str], ByteCheck | None] = lambda path: None,
) -> Manifest:
    """Read every file once and note its digest.

    Args:
        tree: the run.
        paths: path in the run -> path in the model version.
        progress: told the number of bytes of each part that was read.
        check_of: makes what looks at the bytes of a file, by its path in the run.

    Raises:
        DataError: a file changed, grew or shrank while it was read, or is damaged.
        NotAllowed: a file may not be read.
    """
    items = []
    for source, path in paths.items():
        entry = tree.entry(source)
        reading = _Reading()
        check = check_of(source)
        noting = _Noting() if entry.bytes >= NOTED_FROM_BYTES else None
        with tree.open(source) as stream:
            read = chunks_ahead(stream, CHUNK_BYTES, noting.take) if noting else chunks(stream, CHUNK_BYTES)
            with closing(read) as parts:
                for part in parts:
                    reading.take(part)
                    if check:
                        check.take(part)
                    progress(len(part))
                    if reading.count > entry.bytes:
                        break  # it grows, maybe faster than it can be read
        if reading.count != entry.bytes or not tree.source.is_unchanged(entry):
            raise DataError(
                f"{source} changed while it was read ({entry.bytes} bytes when listed, {reading.count} read)",
                "wait until the training has ended and nothing writes there any more, then run again",
            )
        if check:
            check.ended()
        items.append(
            ManifestEntry(source, path, entry.bytes, reading.digest.hexdigest(), notes=reading.notes(noting))
        )
    return Manifest(tuple(sorted(items, key=lambda item: item.path)))


class _Reading:
    """One file, as far as it was hashed."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.count = 0
        self._digests: list[str] = []

    def take(self, part: memoryview) -> None:
        """Hash what follows; ``CHUNK_BYTES``, so that it does not reach over the end of a noted block."""
        self.digest.update(part)
        self.count += len(part)
        if self.count % NOTED_BYTES == 0:
            self._digests.append(self.digest.hexdigest())

    def notes(self, noting: _Noting | None) -> tuple[BlockDigest, ...]:
        """The blocks; to be called at the end."""
        if noting is None:
            return ()
        last = [self.digest.hexdigest()] if self.count % NOTED_BYTES else []
        return tuple(map(BlockDigest, [*self._digests, *last], noting.ended()))


class _Noting:
    """The checksums of a large file's blocks, taken by the thread that reads while another one hashes."""

    def __init__(self) -> None:
        self._count = 0
        self._crc = 0
        self._crcs: list[int] = []

    def take(self, part: memoryview) -> None:
        """Note what follows; parts as for :meth:`_Reading.take`."""
        if not part:
            return
        self._crc = crc64(part, self._crc)
        self._count += len(part)
        if self._count % NOTED_BYTES == 0:
            self._crcs.append(self._crc)
            self._crc = 0

    def ended(self) -> list[int]:
        """The blocks' checksums; to be called at the end."""
        return [*self._crcs, self._crc] if self._count % NOTED_BYTES else self._crcs


def listed_files(tree: Tree, paths: dict[str, str]) -> Manifest:
    """Note what the store says of every file, and read none: for files that the store copies by itself.

    Args:
        tree: the run, in a store whose stamps are ETags.
        paths: path in the run -> path in the model version.
    """
    items = []
    for source, path in paths.items():
        entry = tree.entry(source)
        items.append(ManifestEntry(source, path, entry.bytes, None, entry.md5, entry.stamp, "copied"))
    return Manifest(tuple(sorted(items, key=lambda item: item.path)))
