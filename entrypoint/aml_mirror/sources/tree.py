"""One directory of a listed source, as the layouts see it.

A tree is a view: ``tree.below("a/b")`` is the tree of that directory, with paths relative to it. Links
that lead out of the tree are not in it, whatever is at their end; they are in ``refused``. Folders that hold
no run (:mod:`.skipped_folders`) and files that a system left (:mod:`.system_files`) are not shown either.
"""

from __future__ import annotations

import copy
import json
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import islice
from typing import Any, BinaryIO

from aml_mirror.core.errors import DataError, MirrorError, Unreadable, UnreadableForNow
from aml_mirror.sources.base import LEAVES, Entry, Listing, Source
from aml_mirror.sources.leftovers import marks_unfinished, may_be_missing, unfinished
from aml_mirror.sources.skipped_folders import SkippedFolders, around
from aml_mirror.sources.system_files import first_of, is_system_file

# Read whole into memory are only small files: configurations and logs. The largest real one we know is
# the trainer_state.json of a long run, some tens of MB.
MAX_TEXT_BYTES = 64 << 20
# What directory links may add to the files of one walk: a dozen folders full of links to each other unfold
# to more ways than can ever be walked.
MAX_LINKED = 100_000


class Tree:
    """The files below ``root`` (``""``: the source itself); every path is relative to it, with ``/``."""

    def __init__(
        self,
        source: Source,
        listing: Listing,
        root: str = "",
        shows_all: bool = False,
        everything: Listing | None = None,
        left: Collection[str] = (),
    ) -> None:
        self.source = source
        self.root = root
        # All that the source holds, where `listing` is but what this tree shows of it.
        self._listing = everything or listing
        self._failed = self._listing.failed
        self._shows_all = shows_all
        prefix = root + "/" if root else ""
        at = len(prefix)
        skipped = SkippedFolders()
        self.refused = {
            path[at:]: why
            for path, why in listing.refused.items()
            if path.startswith(prefix) and (shows_all or parent(path[at:]) not in skipped)
        }
        files: dict[str, Entry] = {}
        unfinished_files: dict[str, tuple[str, Entry]] = {}
        for path, entry in listing.files.items():
            if not path.startswith(prefix):
                continue
            own = path[at:]
            # What another tree showed is seen, but for what interrupted copies left of it.
            is_seen = shows_all or (everything is not None and path not in left)
            if not is_seen and (whole := unfinished(own)) is not None:
                # In the cache of a download is what is left of files outside of it.
                if parent(whole or own.partition(".cache/huggingface/download/")[0]) not in skipped:
                    unfinished_files[own] = whole, entry
                continue
            if not is_seen and (parent(own) in skipped or is_system_file(own)):
                continue
            if not is_seen and (first := first_of(path)) and first in listing.files:
                continue
            if entry.target is not None and not entry.target.startswith(prefix):
                self.refused[own] = LEAVES
            else:
                files[own] = entry
        self.interrupted: dict[str, str] = {}
        """Files of which only what an interrupted copy left is there: path -> where that is.

        They are in ``files`` under their own path, so that layouts see them. None of them is complete.
        """
        self.leftovers: dict[str, str] = {}
        """What copies left behind and nothing needs: path -> why."""
        self.nameless: list[str] = []
        """What interrupted copies left of files that may be missing, but nobody can tell which."""
        self._unfinished = {path: entry for path, (_, entry) in unfinished_files.items()}
        self._place_leftovers(files, unfinished_files)
        links: dict[str, str] = {}
        for path, target in listing.directory_links.items():
            own = path[at:]
            if not path.startswith(prefix) or (not shows_all and own in skipped):
                continue
            if not target.startswith(prefix):
                self.refused[own] = LEAVES
            elif not shows_all and target[at:] in skipped:
                hidden = around(target[at:] + "/")
                self.refused[own] = f"it is a link into {hidden}, where no run is looked for"
            else:
                links[own] = target[at:]
        self._paths = sorted(files)
        self.files: dict[str, Entry] = {path: files[path] for path in self._paths}
        self.directory_links: dict[str, str] = links

    def _place_leftovers(self, files: dict[str, Entry], leftovers: dict[str, tuple[str, Entry]]) -> None:
        names: dict[str, list[str]] = {}
        if any(not whole for whole, _ in leftovers.values()):
            for path in files:
                names.setdefault(parent(path), []).append(path.rpartition("/")[2])
        known = {folder: tuple(inside) for folder, inside in names.items()}
        for path, (whole, entry) in sorted(leftovers.items()):
            if whole and whole not in files and ".tfevents." not in whole and entry.target is None:
                files[whole] = entry
                self.interrupted[whole] = path
                continue
            if whole in files and marks_unfinished(path) == whole:
                self.interrupted[whole] = path
                continue
            self.leftovers[path] = "left behind by an interrupted copy"
            if not whole and may_be_missing(path, files, known):
                self.nameless.append(path)

    def seen_through(self, source: Source, files: Mapping[str, Entry]) -> Tree:
        """Return the tree with these entries in place of its own, read from another source."""
        view = copy.copy(self)
        for cached in ("children", "everything"):
            view.__dict__.pop(cached, None)
        vars(view).update(source=source, files=dict(files), _paths=sorted(files))
        return view

    def below(self, folder: str) -> Tree:
        """Return the tree of a directory of this one (``""`` or ``.``: this one)."""
        if folder in ("", "."):
            return self
        prefix = folder + "/"
        # Sorted, so that a group of thousands of runs is not searched for each of them.
        start = bisect_left(self._paths, prefix)
        inside: list[str] = []
        for path in islice(self._paths, start, None):
            if not path.startswith(prefix):
                break
            inside.append(path)
        return self._showing(inside, prefix, join(self.root, folder))

    def without(self, folders: Iterable[str], paths: Collection[str] = ()) -> Tree:
        """Return the tree with nothing in it of some of its directories, and without some of its files."""
        gone = tuple(folder + "/" for folder in folders)
        if not gone and not paths:
            return self
        rest = [path for path in self._paths if path not in paths and not path.startswith(gone)]
        return self._showing(rest, "", self.root, gone)

    def _showing(self, paths: Iterable[str], prefix: str, root: str, gone: tuple[str, ...] = ()) -> Tree:
        base = self.root + "/" if self.root else ""

        def is_in(path: str) -> bool:
            return path.startswith(prefix) and not path.startswith(gone)

        # What was left of a file is placed again in each tree.
        left = {path for path in self._unfinished if is_in(path)}
        placed = {
            path
            for path, left_at in self.interrupted.items()
            if left_at in self._unfinished and self.files[path].path == self._unfinished[left_at].path
        }
        shown = Listing(
            {base + path: self.files[path] for path in paths if path not in placed}
            | {base + path: self._unfinished[path] for path in left},
            {base + path: base + end for path, end in self.directory_links.items() if is_in(path)},
            {base + path: why for path, why in self.refused.items() if is_in(path)},
        )
        names = {base + path for path in left}
        return Tree(self.source, shown, root, self._shows_all, self._listing, names)

    @cached_property
    def everything(self) -> Tree:
        """The same directory with skipped folders and files of the system in it.

        For what a person names by its path.
        """
        return self if self._shows_all else Tree(self.source, self._listing, self.root, shows_all=True)

    def unseen(self) -> Iterator[str]:
        """Yield the paths of what the source holds in this directory and the tree does not show."""
        prefix = self.root + "/" if self.root else ""
        for path in self._listing.files:
            if path.startswith(prefix) and (own := path[len(prefix) :]) not in self.files:
                yield own

    @cached_property
    def children(self) -> dict[str, tuple[str, ...]]:
        """Directory -> sorted names directly in it, directories with a closing ``/``; ``""`` is the root."""
        found: dict[str, set[str]] = {"": set()}
        for path in self.files:
            folder, _, name = path.rpartition("/")
            while name not in found.setdefault(folder, set()):
                found[folder].add(name)
                if not folder:
                    break
                folder, _, parent = folder.rpartition("/")
                name = parent + "/"
        return {folder: tuple(sorted(names)) for folder, names in found.items()}

    @property
    def folders(self) -> Iterator[str]:
        """Every directory that has a file somewhere below it, the root (``""``) first."""
        return iter(sorted(self.children))

    def has(self, path: str) -> bool:
        """Return whether there is such a file."""
        return path in self.files

    def has_folder(self, path: str) -> bool:
        """Return whether there is such a directory with a file somewhere below it (links not followed)."""
        return path in self.children

    def resolve(self, path: str) -> str:
        """Follow the directory links in a path; a path without any is returned as it is."""
        parts, done = path.split("/"), ""
        for part in parts:
            done = f"{done}/{part}" if done else part
            done = self.directory_links.get(done, done)
        return done

    def walk(self, folder: str = "") -> Iterator[str]:
        """Yield the paths of all files below a directory, sorted, through directory links too.

        A file behind a directory link has the path by which it was reached, so that what comes out can
        be laid out elsewhere as it is here. Each directory is entered once on any one way down.

        Raises:
            DataError: links add more than ``MAX_LINKED`` files and folders.
        """
        left = len(self.files) + len(self.children) + len(self.directory_links) + MAX_LINKED
        real = self.resolve(folder) if folder else ""
        entered = {real}
        # Not by recursion: a path can be deeper than Python's stack.
        way = [(folder, real, iter(self._names_in(real)))]
        while way:
            shown, real, names = way[-1]
            name = next(names, None)
            if name is None:
                way.pop()
                entered.discard(real)
                continue
            left -= 1
            if left < 0:
                raise DataError(
                    f"the links in {folder or 'the run'} unfold to more than {MAX_LINKED:,} files",
                    "remove the links that lead to each other",
                )
            below = f"{shown}/{name}" if shown else name
            if not name.endswith("/"):
                yield below
                continue
            inside = (f"{real}/{name}" if real else name)[:-1]
            inside = self.directory_links.get(inside, inside)
            if inside not in entered:
                entered.add(inside)
                way.append((below[:-1], inside, iter(self._names_in(inside))))

    def _names_in(self, folder: str) -> list[str]:
        return sorted({*self.children.get(folder, ()), *self._links_in.get(folder, ())})

    @cached_property
    def _links_in(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for link in self.directory_links:
            folder, _, name = link.rpartition("/")
            found.setdefault(folder, []).append(name + "/")
        return found

    def entry(self, path: str) -> Entry:
        """Return the entry of a file, directory links in its path followed. Raises KeyError.

        Files that the tree does not show, and that a person named, have one too.
        """
        entry = self.files.get(path) or self.files.get(self.resolve(path))
        if entry is None and not self._shows_all:
            entry = self.everything.entry(path)
        if entry is None:
            raise KeyError(path)
        return entry

    def leftover_of(self, path: str) -> str:
        """Return what an interrupted copy left of a file; empty: the file itself is there."""
        return self.interrupted.get(path) or self.interrupted.get(self.resolve(path), "")

    def size(self, path: str) -> int:
        """Size of a file in bytes."""
        return self.entry(path).bytes

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading. Raises as :meth:`Source.open`, and Unreadable."""
        entry = self.entry(path)
        try:
            self._require(entry)
            return self.source.open(entry)
        except MirrorError as error:
            self._failed[entry.path] = error
            raise

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Read a range of a file. Raises as :meth:`Source.open`, and Unreadable.

        A layout that cannot read a file goes by the names alone, and tells nobody: so the failure is noted.
        """
        entry = self.entry(path)
        try:
            self._require(entry)
            return self.source.read(entry, offset, length)
        except MirrorError as error:
            self._failed[entry.path] = error
            raise

    def _require(self, entry: Entry) -> None:
        if entry.obstacle:
            raise _unreadable(entry)

    def unreadable(self) -> dict[str, MirrorError]:
        """Return the files that cannot be read, as far as that is known, each with the reason."""
        base = self.root + "/" if self.root else ""
        found: dict[str, MirrorError] = {
            path: _unreadable(entry) for path, entry in self.files.items() if entry.obstacle
        }
        for path, error in self._failed.items():
            if path.startswith(base) and path[len(base) :] in self.files:
                found[path[len(base) :]] = error
        return found

    def require_readable(self, path: str) -> None:
        """Check what the listing says of a file. Raises Unreadable, KeyError."""
        self._require(self.entry(path))

    def read_text(self, path: str) -> str:
        """Read a small UTF-8 file whole.

        Raises:
            DataError: larger than ``MAX_TEXT_BYTES``, or not UTF-8.
        """
        if self.size(path) > MAX_TEXT_BYTES:
            raise DataError(
                f"{path} is larger than {MAX_TEXT_BYTES >> 20} MiB", "look whether it is what it says"
            )
        try:
            return self.read(path, 0, MAX_TEXT_BYTES).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 text", "look whether the file is damaged") from error

    def read_json(self, path: str) -> Any:
        """Read a small JSON file.

        Raises:
            DataError: as :meth:`read_text`, or not JSON.
        """
        try:
            return json.loads(self.read_text(path))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} is not valid JSON", "look whether the file is damaged") from error


def _unreadable(entry: Entry) -> Unreadable:
    kind, hint = (
        (UnreadableForNow, "wait until that is done, then run again")
        if entry.passes
        else (Unreadable, "make it readable, then run again; or name another with --checkpoint")
    )
    return kind(f"{entry.path} cannot be read: {entry.obstacle}", hint)


def join(folder: str, name: str) -> str:
    """Join two paths, either of which may be empty or ``.``."""
    parts = [part for part in (folder, name) if part not in ("", ".")]
    return "/".join(parts)


def parent(path: str) -> str:
    """Return the directory that a path is in (``""``: the root)."""
    return path.rpartition("/")[0]
