"""Shows on a terminal which folder below a prefix is being processed: ``3 of 10: sweep/seed0``."""

from __future__ import annotations

from contextlib import suppress

from aml_mirror.core.errors import MirrorError
from aml_mirror.sources.base import Listing, Prefix
from aml_mirror.sources.skipped_folders import is_skipped
from aml_mirror.support.progress import Console

# If a quick look at a folder returns this many entries, it may not be complete.
_MOST_SHOWN = 4000


class FolderProgress:
    """Counts the folders directly below a prefix while they are processed.

    Runs are found one by one, so their number is only known at the end. A quick look shows the number of
    folders, if there are not too many. Without a terminal, nothing is requested.

    Args:
        prefix: the place with the runs.
        console: output for the user.
    """

    def __init__(self, prefix: Prefix, console: Console) -> None:
        self._console = console
        self._seen: set[str] = set()
        self._total = 0
        if console.is_terminal:
            listing, folders = Listing(), []
            with suppress(MirrorError):
                folders = prefix.glance("", listing)
            if len(folders) + len(listing.files) < _MOST_SHOWN:
                self._total = sum(not (name.startswith(".") or is_skipped(name)) for name in folders)

    def at(self, path: str) -> None:
        """Show the run that is being processed, by its path below the prefix."""
        if not self._console.is_terminal:
            return
        self._seen.add(path.partition("/")[0])
        count = len(self._seen)
        of = f" of {self._total:,}" if self._total >= count else ""
        self._console.doing(f"{count:,}{of}: {path}")

    def end(self) -> None:
        """Clear the display."""
        self._console.doing("")
