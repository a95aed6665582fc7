"""One directory of a listed source, as the layouts see it.

A tree is a view: ``tree.below("a/b")`` is the tree of that directory, with paths relative to it. Links that
lead out of the tree are left out, whatever their target; they are in ``refused``. Folders that never contain
a run (:mod:`.skipped_folders`) and files that a system left (:mod:`.system_files`) are hidden too.
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

# Only small files are read whole into memory: configurations and logs. The largest known one is the
# trainer_state.json of a long run, some tens of MB.
MAX_TEXT_BYTES = 64 << 20
# The most entries that directory links may add to one walk. A dozen folders full of links to each other
# expand to more paths than can ever be walked.
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
        # The whole contents of the source. `listing` may be only what this tree shows of it.
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
            # Anything that another tree showed is visible, except leftovers of interrupted copies.
            is_seen = shows_all or (everything is not None and path not in left)
            if not is_seen and (whole := unfinished(own)) is not None:
                # The cache of a download contains leftovers of files outside of it.
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
        """Files of which only a leftover of an interrupted copy exists: path -> path of the leftover.

        They are in ``files`` under their own path, so that layouts see them. None of them is complete.
        """
        self.leftovers: dict[str, str] = {}
        """Leftovers of copies that nothing needs: path -> why."""
        self.nameless: list[str] = []
        """Leftovers of files that may be missing, if nobody can tell which files."""
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
                self.refused[own] = f"it is a link into {hidden}, which is never searched for runs"
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
        """Return the tree with these entries replacing its own, read from another source."""
        view = copy.copy(self)
        for cached in ("children", "everything"):
            view.__dict__.pop(cached, None)
        vars(view).update(source=source, files=dict(files), _paths=sorted(files))
        return view

    def below(self, folder: str) -> Tree:
        """Return the tree of a subdirectory (``""`` or ``.``: this one)."""
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
        """Return the tree without some of its directories and files."""
        gone = tuple(folder + "/" for folder in folders)
        if not gone and not paths:
            return self
        rest = [path for path in self._paths if path not in paths and not path.startswith(gone)]
        return self._showing(rest, "", self.root, gone)

    def _showing(self, paths: Iterable[str], prefix: str, root: str, gone: tuple[str, ...] = ()) -> Tree:
        base = self.root + "/" if self.root else ""

        def is_in(path: str) -> bool:
            return path.startswith(prefix) and not path.startswith(gone)

        # Leftovers are assigned to their files again in each tree.
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
        """The same directory, including skipped folders and system files.

        It is used for paths that a person selects.
        """
        return self if self._shows_all else Tree(self.source, self._listing, self.root, shows_all=True)

    def unseen(self) -> Iterator[str]:
        """Yield the paths of files in this directory that the source has but the tree leaves out."""
        prefix = self.root + "/" if self.root else ""
        for path in self._listing.files:
            if path.startswith(prefix) and (own := path[len(prefix) :]) not in self.files:
                yield own

    @cached_property
    def children(self) -> dict[str, tuple[str, ...]]:
        """Directory -> sorted names directly in it, directories with a trailing ``/``; ``""`` is the root."""
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
        """Tell whether a file exists."""
        return path in self.files

    def has_folder(self, path: str) -> bool:
        """Tell whether a directory exists with a file somewhere below it (links not followed)."""
        return path in self.children

    def resolve(self, path: str) -> str:
        """Follow the directory links in a path; a path without any is returned as it is."""
        parts, done = path.split("/"), ""
        for part in parts:
            done = f"{done}/{part}" if done else part
            done = self.directory_links.get(done, done)
        return done

    def walk(self, folder: str = "") -> Iterator[str]:
        """Yield the paths of all files below a directory, sorted, following directory links.

        A file behind a directory link has the path that leads through the link, so the result can be laid out
        elsewhere in the same way. On each way down, a directory is entered only once.

        Raises:
            DataError: links add more than ``MAX_LINKED`` files and folders.
        """
        left = len(self.files) + len(self.children) + len(self.directory_links) + MAX_LINKED
        real = self.resolve(folder) if folder else ""
        entered = {real}
        # Not recursive: a path can be deeper than Python's stack.
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
                    f"the links in {folder or 'the run'} expand to more than {MAX_LINKED:,} files",
                    "remove links that point to each other",
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
        """Return the entry of a file, following directory links in its path. Raises KeyError.

        This includes hidden files that a person selected.
        """
        entry = self.files.get(path) or self.files.get(self.resolve(path))
        if entry is None and not self._shows_all:
            entry = self.everything.entry(path)
        if entry is None:
            raise KeyError(path)
        return entry

    def leftover_of(self, path: str) -> str:
        """Return the leftover of an interrupted copy of a file; empty: the file itself exists."""
        return self.interrupted.get(path) or self.interrupted.get(self.resolve(path), "")

    def size(self, path: str) -> int:
        """Size of a file in bytes."""
        return self.entry(path).bytes

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading. Raises the errors of :meth:`Source.open`, and Unreadable."""
        entry = self.entry(path)
        try:
            self._require(entry)
            return self.source.open(entry)
        except MirrorError as error:
            self._failed[entry.path] = error
            raise

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Read a range of a file. Raises the errors of :meth:`Source.open`, and Unreadable.

        A layout that cannot read a file silently goes by names alone, so the failure is recorded here.
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
        """Return the files that are known to be unreadable, each with the reason."""
        base = self.root + "/" if self.root else ""
        found: dict[str, MirrorError] = {
            path: _unreadable(entry) for path, entry in self.files.items() if entry.obstacle
        }
        for path, error in self._failed.items():
            if path.startswith(base) and path[len(base) :] in self.files:
                found[path[len(base) :]] = error
        return found

    def require_readable(self, path: str) -> None:
        """Check whether the listing says that a file is unreadable. Raises Unreadable, KeyError."""
        self._require(self.entry(path))

    def read_text(self, path: str) -> str:
        """Read a small UTF-8 file completely.

        Raises:
            DataError: larger than ``MAX_TEXT_BYTES``, or not UTF-8.
        """
        if self.size(path) > MAX_TEXT_BYTES:
            raise DataError(
                f"{path} is larger than {MAX_TEXT_BYTES >> 20} MiB", "check what the file contains"
            )
        try:
            return self.read(path, 0, MAX_TEXT_BYTES).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 text", "check whether the file is damaged") from error

    def read_json(self, path: str) -> Any:
        """Read a small JSON file.

        Raises:
            DataError: as :meth:`read_text`, or not JSON.
        """
        try:
            return json.loads(self.read_text(path))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} is not valid JSON", "check whether the file is damaged") from error


def _unreadable(entry: Entry) -> Unreadable:
    kind, hint = (
        (UnreadableForNow, "wait until that is done, then run the command again")
        if entry.passes
        else (Unreadable, "make it readable and run the command again, or select another with --checkpoint")
    )
    return kind(f"{entry.path} cannot be read: {entry.obstacle}", hint)


def join(folder: str, name: str) -> str:
    """Join two paths, either of which may be empty or ``.``."""
    parts = [part for part in (folder, name) if part not in ("", ".")]
    return "/".join(parts)


def parent(path: str) -> str:
    """Return the directory that a path is in (``""``: the root)."""
    return path.rpartition("/")[0]
