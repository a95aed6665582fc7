"""The files of a checkpoint with size and digest, and the two keys that are made from them.

The *identity* says what was mirrored: run id, checkpoint path and the digest of every byte; never the
mount or the URI, since the same run is seen as a PVC and as a blob prefix. The *quick key* says whether
anything can have changed since: path, size and stamp of each file, without reading one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field

from aml_mirror.core.errors import DataError
from aml_mirror.sources.ranged_file import chunks, chunks_ahead
from aml_mirror.sources.tree import Tree
from aml_mirror.support.crc64 import crc64

SCHEMA = "aml-mirror/manifest/v1"
CHUNK_BYTES = 2 << 20  # large enough that hashing, not calling, is the cost; small enough for a cache
# Of larger files the blocks are noted, so that they can be sent without being hashed again.
NOTED_FROM_BYTES = 64 << 20
NOTED_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class BlockDigest:
    """What was seen of ``NOTED_BYTES`` of a file (fewer at its end) while it was hashed.

    ``sha256`` is the digest of the file up to their end, in hexadecimal; ``crc64`` is theirs alone.
    """

    sha256: str
    crc64: int


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One file. ``source`` is its path in the run, ``path`` its path in the model version."""

    source: str
    path: str
    bytes: int
    sha256: str | None
    md5: str | None = None
    etag: str | None = None
    evidence: str = "hashed"
    notes: tuple[BlockDigest, ...] = field(default=(), compare=False, repr=False)
    """Of a large file that was hashed, its blocks in order."""

    def as_dict(self) -> dict[str, object]:
        """The manifest's entry for people and programs."""
        return {
            "path": self.path,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "md5": self.md5,
            "etag": self.etag,
            "evidence": self.evidence,
        }


@dataclass(frozen=True, slots=True)
class Manifest:
    """All files of one model version, by path."""

    items: tuple[ManifestEntry, ...]

    @property
    def bytes(self) -> int:
        """Sum of the sizes."""
        return sum(item.bytes for item in self.items)

    @property
    def sha256(self) -> str:
        """Digest over path, size and SHA-256 of each file (the ETag only where that is missing)."""
        rows = [[item.path, item.bytes, item.sha256 or item.etag] for item in self.items]
        return _digest(rows)

    @property
    def integrity(self) -> str:
        """``sha256`` where every file was hashed, else ``copied``."""
        return "sha256" if all(item.sha256 for item in self.items) else "copied"

    def as_json(self) -> str:
        """The artifact ``manifest.json``."""
        document = {
            "schema": SCHEMA,
            "manifest_sha256": self.sha256,
            "integrity": self.integrity,
            "bytes": self.bytes,
            "files": [item.as_dict() for item in self.items],
        }
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file as a store has it.

    ``etag``, without quotes, is the one that our own commit got, or under which the bytes were read back and
    hashed. ``sha256`` is in hexadecimal; None where the store copied the file and nobody hashed it.
    """

    bytes: int
    etag: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class TransferResult:
    """What bringing the files of a manifest somewhere took, in bytes, and what a person should know of it."""

    sent: int = 0
    """Bytes that went through this program."""
    copied: int = 0
    """Bytes that the storage service copied by itself."""
    warnings: tuple[str, ...] = ()
    stored: dict[str, StoredFile] = field(default_factory=dict, compare=False, repr=False)
    """Each file by its path in the version, where the store has ETags."""


def identity(run_id: str, checkpoint: str, manifest_sha256: str) -> str:
    """Return what makes two mirrors the same mirror, as 64 hexadecimal digits."""
    return _digest([run_id, checkpoint, manifest_sha256])


def quick_key(tree: Tree, run_id: str, checkpoint: str, files: Iterable[str]) -> str:
    """Return a key that is equal as long as no file can have changed, as 64 hexadecimal digits."""
    rows = [[path, tree.size(path), tree.entry(path).stamp] for path in sorted(files)]
    return _digest([run_id, checkpoint, rows])


def hash_files(
    tree: Tree, paths: dict[str, str], progress: Callable[[int], None] = lambda count: None
) -> Manifest:
    """Read every file once and note its digest.

    Args:
        tree: the run.
        paths: path in the run -> path in the model version.
        progress: told the number of bytes of each part that was read.

    Raises:
        DataError: a file changed, grew or shrank while it was read.
        NotAllowed: a file may not be read.
    """
    items = []
    for source, path in paths.items():
        entry = tree.entry(source)
        reading = _Reading()
        noting = _Noting() if entry.bytes >= NOTED_FROM_BYTES else None
        with tree.open(source) as stream:
            read = chunks_ahead(stream, CHUNK_BYTES, noting.take) if noting else chunks(stream, CHUNK_BYTES)
            with closing(read) as parts:
                for part in parts:
                    reading.take(part)
                    progress(len(part))
                    if reading.count > entry.bytes:
                        break  # it grows, maybe faster than it can be read
        if reading.count != entry.bytes or not tree.source.is_unchanged(entry):
            raise DataError(
                f"{source} changed while it was read ({entry.bytes} bytes when listed, {reading.count} read)",
                "wait until the training has ended and nothing writes there any more, then run again",
            )
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


def _digest(value: object) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
