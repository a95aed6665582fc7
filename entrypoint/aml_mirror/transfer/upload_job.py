"""One file that is being uploaded to a blob, and the result of its commit."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

from azure.storage.blob import BlobClient

from aml_mirror.core.errors import DataError
from aml_mirror.core.manifest import ManifestEntry, StoredFile
from aml_mirror.sources.tree import Tree


@dataclass(frozen=True, slots=True)
class Committed:
    """A file that exists in the storage.

    ``entry`` has the digests that were computed on the way. ``unproven`` are the numbers of the blocks that
    an earlier attempt had sent, with the MD5 of the expected bytes.
    """

    entry: ManifestEntry
    stored: StoredFile
    unproven: dict[int, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class UploadJob:
    """One file that is being uploaded."""

    tree: Tree
    item: ManifestEntry
    blob: BlobClient
    metadata: dict[str, str]
    kind: str
    """The kind of checksum."""
    etag: str
    """The ETag of the blob to replace; empty: there must be none."""
    known: dict[str, int] = field(default_factory=dict)
    """Id -> size of the existing blocks."""
    committed: list[str] = field(default_factory=list)
    """The ids of the blocks of the blob to replace, in order."""
    blocks: list[Future[tuple[str, int]]] = field(default_factory=list)
    unproven: dict[int, bytes] = field(default_factory=dict)


def require_unchanged(tree: Tree, item: ManifestEntry) -> None:
    """Raise DataError if a file is not as it was listed."""
    if not tree.source.is_unchanged(tree.entry(item.source)):
        raise changed(item)


def changed(item: ManifestEntry) -> DataError:
    """Return the error for a file that is no longer the one that was judged."""
    return DataError(
        f"{item.source} changed while it was sent",
        "wait until the training has ended and nothing writes there any more, then run again",
    )


def require_digest(item: ManifestEntry, sha256: str) -> None:
    if item.sha256 is not None and sha256 != item.sha256:
        raise changed(item)
