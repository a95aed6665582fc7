"""The interface of every source. Paths are relative to the source, with ``/`` and without a leading slash."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol, cast, runtime_checkable

from aml_mirror.core.errors import DataError, MirrorError

# Why a link is not followed whose target is outside the run.
LEAVES = "it is a link that leaves the run"
# Comes before the last part of the link's target.
LOST = "it is a link to something that does not exist: "
# Names that cannot be requested or written down.
NO_PATH = "its name is not a path: a part of it is empty, '.' or '..'"
NO_TEXT = "its name is not UTF-8"


@dataclass(frozen=True, slots=True)
class Entry:
    """One regular file of a source.

    ``stamp`` is any value that changes when the file changes, and that can be read without reading the file:
    the modification and status-change times of a local file, the ETag of a blob. It is only compared, never
    interpreted.
    """

    path: str
    bytes: int
    stamp: str
    # For a symbolic link to a file: its target, relative to the source. None: not a link.
    target: str | None = None
    # MD5 of the content as the store keeps it, in hexadecimal; None: the store has none.
    md5: str | None = None
    # When it was last written, in seconds since the epoch, by the store's clock; 0: unknown.
    modified: float = 0.0
    # If the listing shows that it cannot be read: why, in words; else empty.
    obstacle: str = ""
    # Whether the obstacle is temporary.
    passes: bool = False
    # If the listing shows that it is incomplete: why; empty: unknown.
    incomplete: str = ""


@dataclass(slots=True)
class Listing:
    """The contents of a source. ``refused`` has the links that may not be followed, with the reason."""

    files: dict[str, Entry] = field(default_factory=dict)
    # Links to directories, which are not entered: path -> target, both relative to the source.
    directory_links: dict[str, str] = field(default_factory=dict)
    # Links that dangle, loop or leave the source; FIFOs, sockets, devices; entries without access.
    refused: dict[str, str] = field(default_factory=dict)
    # Of these, folders, and files of unknown kind: one may be the newest checkpoint.
    unknown: dict[str, MirrorError] = field(default_factory=dict)
    # Files that could not be read when they were opened, with the reason.
    failed: dict[str, MirrorError] = field(default_factory=dict)


class TooManyFiles(DataError):
    """A place contains more entries than were requested."""


class Source(Protocol):
    """A place that contains runs. Everything is read-only, and every read is of one listed entry."""

    @property
    def uri(self) -> str:
        """The place as it is shown to people and written to tags, always without a secret."""

    @property
    def name(self) -> str:
        """The last part of the place's path. It is the run id if none was given."""

    @property
    def has_etags(self) -> bool:
        """Whether stamps are ETags of a store, which identify the content without reading it."""

    def scan(self) -> Listing:
        """List everything below the source.

        Raises:
            SourceNotFound: there is no such place.
            NotAllowed: it may not be listed.
            TooManyFiles: it contains more entries than any run (``MAX_ENTRIES``).
        """

    def open(self, entry: Entry) -> BinaryIO:
        """Open a listed file for reading, seekable.

        Raises:
            DataError: the file is not the one that was listed (replaced, changed or gone).
            NotAllowed: it may not be read.
        """

    def read(self, entry: Entry, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``offset``, fewer only at the end. Raises like ``open``."""

    def is_unchanged(self, entry: Entry) -> bool:
        """Tell whether the file is still as it was listed, without reading it."""

    def grown(self, entry: Entry) -> Entry | None:
        """Return the current entry if the file exists and is not shorter than before; else None."""

    def changed(self, entries: Iterable[Entry]) -> list[str]:
        """Return the paths of the entries that changed since the listing, in few requests."""
        return [entry.path for entry in entries if not self.is_unchanged(entry)]


def run_id_of(source: Source) -> str:
    """The run's own name if a source learned it (from OSMO, which also accepts UUIDs); else empty."""
    return str(getattr(source, "run_id", ""))


def labels_of(source: Source) -> Mapping[str, str]:
    """The run's labels if a source learned them from OSMO; else empty."""
    labels: Mapping[str, str] = getattr(source, "run_labels", {})
    return labels


def named(source: Source, run_id: str, labels: Mapping[str, str]) -> Source:
    """Return the source with the run's own name and labels, for :func:`run_id_of`."""
    setattr(source, "run_id", run_id)  # noqa: B010 - not part of a source's interface
    setattr(source, "run_labels", labels)  # noqa: B010 - likewise
    return source


def as_prefix(source: Source) -> Prefix | None:
    """Return the source if it may contain several runs; None: it cannot be searched by folders."""
    return cast("Prefix", source) if hasattr(source, "listings") else None


@runtime_checkable
class AzureBlobs(Source, Protocol):
    """A source whose files are Azure blobs. The storage service can copy them by itself."""

    account_url: str
    service: Any
    """An ``azure.storage.blob.BlobServiceClient`` of the account."""
    credential: Any
    """The token credential that reads it."""

    def blob(self, entry: Entry) -> Any:
        """Return the ``azure.storage.blob.BlobClient`` of a listed blob."""

    def url(self, entry: Entry) -> str:
        """Return the address of a listed blob, encoded, without any credential."""

    def changed_error(self, entry: Entry) -> DataError:
        """Return the error for a blob that is no longer the listed one."""


class Prefix(Source, Protocol):
    """A source that may contain several runs, searched folder by folder."""

    def below(self, folder: str) -> Prefix:
        """Return the source of a subfolder."""

    def listings(self, limit: int) -> Iterator[tuple[str, Listing | MirrorError]]:
        """Yield each direct subfolder, by name, with everything below it.

        One listing is held at a time, with paths relative to the folder. If it cannot be read, the reason
        takes its place: ``TooManyFiles`` if it has more than ``limit`` entries.

        Raises:
            SourceNotFound: there is no such place.
            NotAllowed: it may not be listed.
        """

    def small(self) -> Listing | None:
        """Return the whole contents if a few requests are enough; else None."""

    def glance(self, folder: str, listing: Listing) -> list[str]:
        """Add the files directly in a folder to a listing, at most some thousands. Nothing below is read.

        Returns:
            the folders in it.
        """

    def be_patient_for(self, seconds: float) -> None:
        """Set how long a request may keep failing, here and in the results of :meth:`below`."""
