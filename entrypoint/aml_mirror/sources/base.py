"""What every source offers. Paths are relative to the source, with ``/``, without a leading one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol, cast, runtime_checkable

from aml_mirror.core.errors import DataError, MirrorError

# Why a link is not followed whose end is not ours.
LEAVES = "it is a link that leaves the run"
# Before the last part of what the link names.
LOST = "it is a link to something that is not there: "
# Names that cannot be asked for, or not be written down.
NO_PATH = "its name is not a path: a part of it is empty, '.' or '..'"
NO_TEXT = "its name is not UTF-8"


@dataclass(frozen=True, slots=True)
class Entry:
    """One regular file of a source.

    ``stamp`` is whatever changes when the file changes and can be had without reading it: the
    modification and status-change times of a local file, the ETag of a blob. It is compared, never read.
    """

    path: str
    bytes: int
    stamp: str
    # A symbolic link to a file: where it leads, relative to the source. None: not a link.
    target: str | None = None
    # MD5 of the content as the store keeps it, in hexadecimal; None: it keeps none.
    md5: str | None = None
    # When it was last written, in seconds since the epoch, by the clock of the store; 0: unknown.
    modified: float = 0.0
    # Why it is known from the listing that it cannot be read, in words; empty: it is not.
    obstacle: str = ""
    # Whether the obstacle passes by itself.
    passes: bool = False
    # Why it is known from the listing that it is not complete; empty: nothing is known.
    incomplete: str = ""


@dataclass(slots=True)
class Listing:
    """All that a source holds. Links that lead nowhere we may go stand in ``refused`` with the reason."""

    files: dict[str, Entry] = field(default_factory=dict)
    # Links to directories, not descended: path -> target, both relative to the source.
    directory_links: dict[str, str] = field(default_factory=dict)
    # Links that dangle, loop or leave the source; FIFOs, sockets, devices; what may not be read.
    refused: dict[str, str] = field(default_factory=dict)
    # Of these, folders and files of which nobody could tell what they are: the newest checkpoint, perhaps.
    unknown: dict[str, MirrorError] = field(default_factory=dict)
    # Files that could not be read when somebody tried, with the reason.
    failed: dict[str, MirrorError] = field(default_factory=dict)


class TooManyFiles(DataError):
    """A place holds more entries than were asked for."""


class Source(Protocol):
    """A place that holds runs. Everything is read-only, and every read is of one listed entry."""

    @property
    def uri(self) -> str:
        """The place as shown to people and written to tags; never with a secret in it."""

    @property
    def name(self) -> str:
        """The last part of the place's path: the run id where none was given."""

    @property
    def has_etags(self) -> bool:
        """Whether stamps are ETags of a store, which tell of the content without reading it."""

    def scan(self) -> Listing:
        """List everything below the source.

        Raises:
            SourceNotFound: there is no such place.
            NotAllowed: it may not be listed.
            TooManyFiles: it holds more entries than any run does (``MAX_ENTRIES``).
        """

    def open(self, entry: Entry) -> BinaryIO:
        """Open a listed file for reading, seekable.

        Raises:
            DataError: the file is not the one that was listed (replaced, changed or gone).
            NotAllowed: it may not be read.
        """

    def read(self, entry: Entry, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``offset``; fewer only at the end. Raises as :meth:`open`."""

    def is_unchanged(self, entry: Entry) -> bool:
        """Return whether the file still is as it was listed, without reading it."""

    def grown(self, entry: Entry) -> Entry | None:
        """Return the entry as it is now, if the file is there and not shorter than it was; else None."""

    def changed(self, entries: Iterable[Entry]) -> list[str]:
        """Return the paths of those that are not as they were listed, in as few requests as possible."""
        return [entry.path for entry in entries if not self.is_unchanged(entry)]


def run_id_of(source: Source) -> str:
    """The run's own name where a source learned it (from OSMO, which also takes UUIDs); empty: it did not."""
    return str(getattr(source, "run_id", ""))


def labels_of(source: Source) -> Mapping[str, str]:
    """The run's labels where a source learned them from OSMO; empty: it did not."""
    labels: Mapping[str, str] = getattr(source, "run_labels", {})
    return labels


def named(source: Source, run_id: str, labels: Mapping[str, str]) -> Source:
    """Return the source with the run's own name and labels noted, for :func:`run_id_of`."""
    setattr(source, "run_id", run_id)  # noqa: B010 - no part of what a source has to offer
    setattr(source, "run_labels", labels)  # noqa: B010 - likewise
    return source


def as_prefix(source: Source) -> Prefix | None:
    """Return the source as one that may hold several runs; None: it cannot be looked through by folders."""
    return cast("Prefix", source) if hasattr(source, "listings") else None


@runtime_checkable
class AzureBlobs(Source, Protocol):
    """A source whose files are Azure blobs, whoever wrote it: the storage service copies them by itself."""

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
        """Return the error for a blob that is not the listed one any more."""


class Prefix(Source, Protocol):
    """A source with more than one run in it, looked through folder by folder."""

    def below(self, folder: str) -> Prefix:
        """Return the source of a folder of this one."""

    def listings(self, limit: int) -> Iterator[tuple[str, Listing | MirrorError]]:
        """Yield each folder directly in this one, by name, with all that is below it.

        One listing is held at a time, with paths relative to the folder. Where it cannot be had, the reason
        is in its place: ``TooManyFiles`` where it has more than ``limit`` entries.

        Raises:
            SourceNotFound: there is no such place.
            NotAllowed: it may not be listed.
        """

    def small(self) -> Listing | None:
        """Return all that is here, where that costs no more than a glance; None: it costs more."""

    def glance(self, folder: str, listing: Listing) -> list[str]:
        """Add the files directly in a folder to a listing, some thousands at most; nothing below is read.

        Returns:
            the folders in it.
        """

    def be_patient_for(self, seconds: float) -> None:
        """Change how long a request may go on failing, here and in what :meth:`below` returned."""
