"""A run on a file system: a folder, a PVC, a mounted share.

Symbolic links are resolved here, and followed only inside the source. A file is opened without following a
link in its last part, and then compared with the listing. So if a file is replaced by a link between listing
and opening, that is noticed and the link's target is not read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from aml_mirror.core.errors import (
    DataError,
    MirrorError,
    NotReadable,
    ServiceUnavailable,
    SourceNotFound,
    Unreadable,
    UnreadableForNow,
)
from aml_mirror.sources.base import LEAVES, LOST, NO_TEXT, Entry, Listing, TooManyFiles

# Ten times the largest run that we know of (10^5 files of a dataset kept beside a run).
MAX_ENTRIES = 1_000_000
# The most memory that a listed file takes, in its listing and in the tree (400 with a path of 35 characters).
# A source with MAX_ENTRIES files takes 600 MB.
ENTRY_BYTES = 600
# How many entries of a folder a glance reads.
GLANCED = 5000


class LocalSource:
    """A directory of this machine. See :class:`aml_mirror.sources.base.Source`."""

    run_id = ""
    """See :func:`aml_mirror.sources.base.run_id_of`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # The name that the person gave is the run's name, even if it is a link to another folder.
        self._name = Path(os.path.abspath(path)).name
        self._root = os.path.realpath(path)

    @property
    def uri(self) -> str:
        return _valid(self._root)

    @property
    def name(self) -> str:
        return _valid(self._name)

    @property
    def has_etags(self) -> bool:
        return False

    def below(self, folder: str) -> LocalSource:
        """Return the source of a folder of this one."""
        return LocalSource(os.path.join(self._root, folder))

    def be_patient_for(self, seconds: float) -> None:
        """A file system has no retries to configure."""

    def listings(self, limit: int) -> Iterator[tuple[str, Listing | MirrorError]]:
        self._require_readable()
        with os.scandir(self._root) as items:
            # Links are not entered. Their targets are found where they are, or are outside.
            names = sorted(item.name for item in items if item.is_dir(follow_symlinks=False))
        for name in names:
            if name != _valid(name):
                yield _valid(name), DataError(NO_TEXT, "rename the folder")
                continue
            try:
                yield name, self.below(name).scan_at_most(limit)
            except MirrorError as error:
                yield name, error

    def small(self) -> Listing | None:
        return None

    def glance(self, folder: str, listing: Listing) -> list[str]:
        folders: list[str] = []
        try:
            with os.scandir(os.path.join(self._root, folder)) as items:
                for item in islice(items, GLANCED):
                    path = f"{folder}/{item.name}" if folder else item.name
                    self._add(listing, folders, item, path)
        except OSError as error:
            self._refuse(listing, folder, error)
        return sorted(folders)

    def scan(self) -> Listing:
        return self.scan_at_most(MAX_ENTRIES)

    def scan_at_most(self, limit: int) -> Listing:
        """Like :meth:`scan`. Raises TooManyFiles if there are more than ``limit`` entries."""
        self._require_readable()
        listing = Listing()
        pending = [""]
        while pending:
            folder = pending.pop()
            try:
                # Never more than the total limit, so that a single folder of 10^7 files is not held in
                # memory.
                with os.scandir(os.path.join(self._root, folder)) as items:
                    found = sorted(islice(items, limit + 1), key=lambda item: item.name)
            except OSError as error:
                if not folder:
                    raise self._unlisted("", error) from error
                self._refuse(listing, folder, error)
                continue
            for item in found:
                path = f"{folder}/{item.name}" if folder else item.name
                self._add(listing, pending, item, path)
            links = len(listing.directory_links) + len(listing.refused)
            if len(listing.files) + links + len(pending) > limit:
                raise TooManyFiles(
                    f"{self._root} contains more than {limit:,} files",
                    "pass the folder of one run with --source",
                )
        return listing

    def _require_readable(self) -> None:
        if not os.path.isdir(self._root):
            what = "is not a directory" if os.path.exists(self._root) else "does not exist"
            raise SourceNotFound(
                f"the run directory {self._root} {what}",
                "pass the folder that the training wrote to with --source",
            )
        if not os.access(self._root, os.R_OK | os.X_OK):
            raise NotReadable(
                f"the run directory {self._root} cannot be read by uid {os.getuid()}",
                "give the user of this program read access to it",
            )

    def _add(self, listing: Listing, pending: list[str], item: os.DirEntry[str], path: str) -> None:
        try:
            path.encode()
        except UnicodeEncodeError:
            listing.refused[path.encode(errors="backslashreplace").decode()] = NO_TEXT
            return
        try:
            if item.is_symlink():
                self._add_link(listing, path)
            elif item.is_dir(follow_symlinks=False):
                pending.append(path)
            elif item.is_file(follow_symlinks=False):
                found = item.stat(follow_symlinks=False)
                listing.files[path] = Entry(path, found.st_size, _stamp(found), modified=found.st_mtime)
            else:
                listing.refused[path] = "it is neither a file nor a directory"
        except OSError as error:
            self._refuse(listing, path, error)

    def _refuse(self, listing: Listing, path: str, error: OSError) -> None:
        listing.refused[path] = f"cannot be listed: {error.strerror}"
        # A file that disappeared meanwhile was not part of a finished run. Neither was the file system's own
        # folder.
        if error.errno not in (errno.ENOENT, errno.ENOTDIR) and path != "lost+found":
            listing.unknown[path] = self._unlisted(path, error)

    def _unlisted(self, path: str, error: OSError) -> MirrorError:
        said = f"{_valid(os.path.join(self._root, path))} cannot be listed: {error.strerror}"
        if error.errno in (errno.EACCES, errno.EPERM):
            return NotReadable(said, "give the user of this program read access to it")
        return ServiceUnavailable(said, "look at the volume, then run again")

    def _add_link(self, listing: Listing, path: str) -> None:
        full = os.path.join(self._root, path)
        try:
            target = os.path.realpath(full, strict=True)
        except FileNotFoundError:
            listing.refused[path] = LOST + _valid(os.path.basename(os.readlink(full).rstrip("/")))
            return
        except OSError as error:
            loops = error.errno == errno.ELOOP
            listing.refused[path] = (
                "it is a link that loops" if loops else f"it is a broken link: {error.strerror}"
            )
            return
        relative = os.path.relpath(target, self._root).replace(os.sep, "/")
        if relative == ".." or relative.startswith("../"):
            listing.refused[path] = LEAVES
            return
        found = os.stat(target)
        if stat.S_ISDIR(found.st_mode):
            if relative == "." or path.startswith(relative + "/"):
                listing.refused[path] = "it is a link that loops"
            else:
                listing.directory_links[path] = relative
        elif stat.S_ISREG(found.st_mode):
            listing.files[path] = Entry(
                path, found.st_size, _stamp(found), target=relative, modified=found.st_mtime
            )
        else:
            listing.refused[path] = "it is a link to something that is neither a file nor a directory"

    def open(self, entry: Entry) -> BinaryIO:
        return os.fdopen(self._open(entry), "rb", buffering=1 << 20)

    def _open(self, entry: Entry) -> int:
        full = self.path_of(entry)
        try:
            # O_NONBLOCK: a FIFO in the file's place must not block us forever.
            descriptor = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except PermissionError as error:
            raise NotReadable(
                f"{full} cannot be read by uid {os.getuid()}", "give the user of this program read access"
            ) from error
        except OSError as error:
            raise _not_opened(full, error) from error
        if _stamp(os.fstat(descriptor)) != entry.stamp:
            os.close(descriptor)
            raise _changed(full)
        return descriptor

    def read(self, entry: Entry, offset: int, length: int) -> bytes:
        # Without a buffer: a few bytes are read of each of an archive's 10^5 members.
        descriptor = self._open(entry)
        try:
            parts = []
            left = min(length, entry.bytes - offset)
            while left > 0 and (part := os.pread(descriptor, left, offset)):
                parts.append(part)
                offset, left = offset + len(part), left - len(part)
            return b"".join(parts)
        finally:
            os.close(descriptor)

    def is_unchanged(self, entry: Entry) -> bool:
        try:
            return _stamp(os.lstat(self.path_of(entry))) == entry.stamp
        except OSError:
            return False

    def grown(self, entry: Entry) -> Entry | None:
        try:
            found = os.lstat(self.path_of(entry))
        except OSError:
            return None
        if not stat.S_ISREG(found.st_mode) or found.st_size < entry.bytes:
            return None
        return replace(entry, bytes=found.st_size, stamp=_stamp(found))

    def changed(self, entries: Iterable[Entry]) -> list[str]:
        return [entry.path for entry in entries if not self.is_unchanged(entry)]

    def path_of(self, entry: Entry) -> str:
        """Return the real path of the file for ``entry``, with the links resolved when it was listed."""
        return os.path.join(self._root, entry.path if entry.target is None else entry.target)


def _stamp(found: os.stat_result) -> str:
    # No program can set ctime, so it reveals a file that was overwritten and had its mtime restored.
    return f"{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}"


def _valid(path: str) -> str:
    # A name need not be UTF-8, but everything that is printed, sent or stored must be.
    return path.encode(errors="backslashreplace").decode()


def _not_opened(path: str, error: OSError) -> MirrorError:
    if error.errno == errno.ENOENT:
        return Unreadable(
            f"{path} was deleted after it was listed",
            "wait until nothing writes there, then run the command again",
        )
    # Now there is a link, a FIFO or a folder in its place.
    if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENOTDIR):
        return _changed(path)
    return UnreadableForNow(f"{path} cannot be read: {error.strerror}", "look at the volume, then run again")


def _changed(path: str) -> Unreadable:
    return Unreadable(
        f"{path} changed while it was read",
        "wait until the training has ended and nothing writes there, then run the command again",
    )
