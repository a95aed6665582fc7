"""What every source offers. Paths are relative to the source, with ``/``, without a leading one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO, Protocol


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


@dataclass(slots=True)
class Listing:
    """All that a source holds. Links that lead nowhere we may go stand in ``refused`` with the reason."""

    files: dict[str, Entry] = field(default_factory=dict)
    # Links to directories, not descended: path -> target, both relative to the source.
    directory_links: dict[str, str] = field(default_factory=dict)
    # Links that dangle, loop or leave the source; FIFOs, sockets, devices; what may not be read.
    refused: dict[str, str] = field(default_factory=dict)


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
            DataError: it holds more entries than any run does (``MAX_ENTRIES``).
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
        """Tell whether the file still is as it was listed, without reading it."""
