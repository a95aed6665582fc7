"""Finds the runs below a prefix, one after the other, and holds the files of only one folder at a time.

A run's path is that of its own root below the prefix, as its framework defines it. It does not depend on the
number of runs beside it. A run inside another one is a separate run. If a layout recognises something only by
names and numbers, it is a run only with evidence of a training (:mod:`aml_mirror.layouts.run_evidence`).

A folder with more than ``HELD`` files (a group of thousands of runs, or one run beside its dataset) is not
held in memory. Some of its subfolders, down to some depth, show whether it is a single run. If not, its
subfolders are examined one by one. Folders that never contain a run
(:mod:`aml_mirror.sources.skipped_folders`) are skipped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from aml_mirror.core.errors import MirrorError, UsageError, of_the_system
from aml_mirror.layouts import DetectedRun, find_every_run, find_runs, why_no_run, why_none_was_told
from aml_mirror.layouts.run_evidence import has_evidence
from aml_mirror.sources.base import Listing, Prefix, TooManyFiles
from aml_mirror.sources.skipped_folders import is_skipped
from aml_mirror.sources.tree import Tree, join

# The most files of one folder that are held at a time: an entry takes about 500 bytes, so about 25 MB.
HELD = 50_000
# The limits for a folder that does not fit in memory: subfolders per folder, and subfolders in total.
_WIDTH = 16
_GLANCES = 100
Early = Callable[[str, float], str]
"""Returns why not to search a folder (its path, when its newest file was written); empty: search it."""


@dataclass(slots=True)
class Candidate:
    """A folder below the prefix: a run, or a message about it."""

    path: str
    """The path of the run's own root below the prefix, with ``/``."""
    source: Prefix
    """That folder."""
    found: DetectedRun | None = None
    """The run in it; None: there is none, or it was not searched."""
    tree: Tree | None = None
    """The files among which it was found; None: there are too many to hold them until its turn."""
    refused: str = ""
    """Why it does not count as a run, in words."""
    failure: MirrorError | None = None
    """The error of examining it."""
    unknown: dict[str, MirrorError] = field(default_factory=dict)
    """The parts that could not be listed: see :class:`aml_mirror.sources.base.Listing`."""
    newest: float = 0.0
    """When its newest file was written, in seconds since the epoch; 0: unknown."""


def candidates(prefix: Prefix, framework: str, early: Early) -> Iterator[Candidate]:
    """Yield what is below a prefix, sorted by path.

    Args:
        prefix: the folder of the runs.
        framework: look only for runs of this layout; empty: of any.
        early: see there.

    Raises:
        UsageError: the prefix is a single run.
        SourceNotFound: it is empty.
        NotAllowed, ServiceUnavailable: it cannot be listed.
    """
    if run := whole_run(prefix, framework):
        if not run.nested:
            raise UsageError(
                f"{prefix.uri} is one {run.layout.name} run, not a folder of runs",
                "mirror it with: aml-mirror mirror --source DIR; or pass the folder around it",
            )
        # These are runs inside one run: its own folders are not runs, so they are not searched one by one.
        yield from _runs_in("", prefix, prefix.scan(), framework)
        return
    yield from look_below(prefix, framework, early)


def whole_run(prefix: Prefix, framework: str = "") -> DetectedRun | None:
    """Return the run whose root is the prefix itself, or None. A part of the listing is enough."""
    found = find_runs(Tree(prefix, prefix.small() or _glance(prefix)), framework)
    # Numbers in the names of its folders are not enough: runs are numbered too.
    own = found and not found[0].root and (framework or found[0].layout.name != "generic")
    return found[0] if own else None


def look_below(place: Prefix, framework: str, early: Early, path: str = "") -> Iterator[Candidate]:
    """Like :func:`candidates`, for a folder that is known not to be a single run.

    Args:
        place, framework, early: see there.
        path: the folder's path below the prefix.
    """
    for name, listing in place.listings(HELD):
        if not name and isinstance(listing, MirrorError):
            yield Candidate(f"{path}//", place, failure=listing)
            continue
        if name.startswith(".") or is_skipped(name, path.rpartition("/")[2]):
            continue
        here = join(path, name)
        yield from _examined(here, place.below(name), listing, framework, early)


def _examined(
    path: str, place: Prefix, listing: Listing | MirrorError, framework: str, early: Early
) -> Iterator[Candidate]:
    if isinstance(listing, MirrorError) and not isinstance(listing, TooManyFiles):
        yield Candidate(path, place, failure=listing)
        return
    written = newest(listing) if isinstance(listing, Listing) else 0.0
    if why := early(path, written):
        yield Candidate(path, place, refused=why, newest=written)
        return
    try:
        if isinstance(listing, Listing):
            yield from _runs_in(path, place, listing, framework)
            return
        found = find_runs(Tree(place, _glance(place)), framework)
    except Exception as error:  # noqa: BLE001 - an error in one folder must not stop the others
        yield Candidate(path, place, failure=failure_of(error))
        return
    # It may be one run beside its dataset. Numbers in the names of folders prove less, because runs are
    # numbered too.
    if not found or found[0].root or (found[0].layout.name == "generic" and len(found) > 1):
        yield from look_below(place, framework, early, path)
        return
    try:
        runs = _runs_in(path, place, place.scan(), framework)
    except Exception as error:  # noqa: BLE001 - likewise
        yield Candidate(path, place, failure=failure_of(error))
        return
    for candidate in runs:
        # It is listed again when its turn comes: two listings of this size are not held.
        candidate.tree = None
        yield candidate


def _runs_in(path: str, place: Prefix, listing: Listing, framework: str) -> list[Candidate]:
    """Return each run in a listed folder, sorted by path; the folder itself if there is none."""
    tree = Tree(place, listing)
    candidates: list[Candidate] = []
    runs = find_every_run(tree, framework)
    hidden = dict(listing.unknown)
    for run in runs:
        own = run.tree(tree)
        where = place.below(run.root) if run.root else place
        start = len(run.root) + 1 if run.root else 0
        unknown = {name[start:]: hidden.pop(name) for name in list(hidden) if _is_in(name, run.root)}
        candidate = Candidate(join(path, run.root) or place.name, where, run, tree, unknown=unknown)
        candidate.newest = newest_in(own)
        if not unknown and (why := why_no_run(own, run.layout)):
            candidate.found = None
            candidate.refused = f"{why}; to mirror it anyway: aml-mirror mirror --source {where.uri!r}"
        candidates.append(candidate)
    for name, error in sorted(hidden.items()):
        candidates.append(Candidate(join(path, name), place.below(name) if name else place, failure=error))
    if not candidates and (failure := why_none_was_told(tree)) and has_evidence(tree):
        return [Candidate(path, place, failure=failure)]
    return candidates or [Candidate(path, place)]


def failure_of(error: Exception) -> MirrorError:
    """Return the message for an error: its own, or that it is a bug."""
    if isinstance(error, MirrorError):
        return error
    if isinstance(error, OSError):
        return of_the_system(error)
    return MirrorError(
        f"{type(error).__name__}: {error}", "this is a bug: please report it with the output of --debug"
    )


def _is_in(path: str, folder: str) -> bool:
    return not folder or path == folder or path.startswith(folder + "/")


def newest(listing: Listing) -> float:
    """Return when the newest file of a listing was written, in seconds since the epoch; 0: unknown."""
    return max((entry.modified for entry in listing.files.values()), default=0.0)


def newest_in(tree: Tree) -> float:
    """Like :func:`newest`, for a run's own files."""
    return max((entry.modified for entry in tree.files.values()), default=0.0)


def run_at_root(tree: Tree, run: DetectedRun, framework: str) -> DetectedRun:
    """Return a run that was found from a parent folder as it is found in its own folder.

    Args:
        tree: the tree of the run's own folder, listed again.
        run: as it was found.
        framework: look only for runs of this layout; empty: of any.
    """
    here = [one for one in find_runs(tree, framework) if not one.root and one.layout.name == run.layout.name]
    return here[0] if here else DetectedRun("", run.layout)


def _glance(place: Prefix) -> Listing:
    """List a part of a folder: the contents of its first subfolders, and of theirs, level by level."""
    listing = Listing()
    pending = deque([""])
    for _ in range(_GLANCES):
        if not pending:
            break
        folders = place.glance(pending.popleft(), listing)
        pending.extend([folder for folder in folders if not is_skipped(folder.rpartition("/")[2])][:_WIDTH])
    return listing
