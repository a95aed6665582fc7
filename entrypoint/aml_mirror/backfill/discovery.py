"""The runs below a prefix, one after the other, with no more than one folder's files held at a time.

A run's path is that of its own root below the prefix, wherever its framework put that: it does not depend on
how many runs are beside it. A run inside another one is a run of its own. What a layout finds by nothing but
names and numbers is a run only with evidence of a training (:mod:`aml_mirror.layouts.run_evidence`).

A folder with more than ``HELD`` files (a group of thousands of runs, or one run beside its dataset) is not
held whole: some of its folders, down to some depth, tell whether it is a run by itself. If not, its folders
are looked at in turn. Folders that never hold a run (:mod:`aml_mirror.sources.skipped_folders`) are not.
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

# Files of one folder that are held at a time: an entry takes about 500 bytes, so about 25 MB.
HELD = 50_000
# What is looked at of a folder that cannot be held: so many folders in each folder, so many in all.
_WIDTH = 16
_GLANCES = 100
Early = Callable[[str, float], str]
"""Says of a folder (its path, when its newest file was written) why not to look into it; empty: look."""


@dataclass(slots=True)
class Candidate:
    """A folder below the prefix: a run, or what there is to say of it instead."""

    path: str
    """Of the run's own root below the prefix, with ``/``."""
    source: Prefix
    """That folder."""
    found: DetectedRun | None = None
    """The run in it; None: there is none, or nobody looked."""
    tree: Tree | None = None
    """The files among which it was found; None: there are too many to hold them until its turn comes."""
    refused: str = ""
    """Why it is not taken, in words."""
    failure: MirrorError | None = None
    """What went wrong when it was looked into."""
    unknown: dict[str, MirrorError] = field(default_factory=dict)
    """What of it could not be listed: see :class:`aml_mirror.sources.base.Listing`."""
    newest: float = 0.0
    """When its newest file was written, in seconds since the epoch; 0: unknown."""


def candidates(prefix: Prefix, framework: str, early: Early) -> Iterator[Candidate]:
    """Yield what is below a prefix, by path.

    Args:
        prefix: the folder of the runs.
        framework: look for runs of this layout only; empty: of any.
        early: see there.

    Raises:
        UsageError: the prefix is one run by itself.
        SourceNotFound: there is nothing.
        NotAllowed, ServiceUnavailable: it cannot be listed.
    """
    if run := whole_run(prefix, framework):
        if not run.nested:
            raise UsageError(
                f"{prefix.uri} is one {run.layout.name} run, not a folder of runs",
                "mirror it with: aml-mirror mirror --source DIR; or pass the folder around it",
            )
        # Runs inside one run: its own folders are no runs, so that they are not looked at in turn.
        yield from _runs_in("", prefix, prefix.scan(), framework)
        return
    yield from look_below(prefix, framework, early)


def whole_run(prefix: Prefix, framework: str = "") -> DetectedRun | None:
    """Return the run that the prefix itself is the root of, or None; a glance is enough."""
    found = find_runs(Tree(prefix, prefix.small() or _glance(prefix)), framework)
    # The numbers in the names of its folders are no reason: runs have numbers too.
    own = found and not found[0].root and (framework or found[0].layout.name != "generic")
    return found[0] if own else None


def look_below(place: Prefix, framework: str, early: Early, path: str = "") -> Iterator[Candidate]:
    """As :func:`candidates`, for a folder that is known not to be a run by itself.

    Args:
        place, framework, early: see there.
        path: of the folder below the prefix.
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
    except Exception as error:  # noqa: BLE001 - what one folder brings out must not keep the others
        yield Candidate(path, place, failure=failure_of(error))
        return
    # One run beside its dataset, perhaps. The numbers in the names of folders tell less: runs have them too.
    if not found or found[0].root or (found[0].layout.name == "generic" and len(found) > 1):
        yield from look_below(place, framework, early, path)
        return
    try:
        runs = _runs_in(path, place, place.scan(), framework)
    except Exception as error:  # noqa: BLE001 - likewise
        yield Candidate(path, place, failure=failure_of(error))
        return
    for candidate in runs:
        # Listed again when its turn comes: two listings of this size are not held.
        candidate.tree = None
        yield candidate


def _runs_in(path: str, place: Prefix, listing: Listing, framework: str) -> list[Candidate]:
    """Return each run in a folder that is held, by path; the folder itself where there is none."""
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
            candidate.refused = f"{why}; to mirror it all the same: aml-mirror mirror --source {where.uri!r}"
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
    """When the newest file of a listing was written, in seconds since the epoch; 0: unknown."""
    return max((entry.modified for entry in listing.files.values()), default=0.0)


def newest_in(tree: Tree) -> float:
    """As :func:`newest`, for a run's own files."""
    return max((entry.modified for entry in tree.files.values()), default=0.0)


def run_at_root(tree: Tree, run: DetectedRun, framework: str) -> DetectedRun:
    """Return a run that was found from further up as it is found in its own folder.

    Args:
        tree: of the run's own folder, listed again.
        run: as it was found.
        framework: look for runs of this layout only; empty: of any.
    """
    here = [one for one in find_runs(tree, framework) if not one.root and one.layout.name == run.layout.name]
    return here[0] if here else DetectedRun("", run.layout)


def _glance(place: Prefix) -> Listing:
    """List a part of a folder: what is in its first folders, and in theirs, level by level."""
    listing = Listing()
    pending = deque([""])
    for _ in range(_GLANCES):
        if not pending:
            break
        folders = place.glance(pending.popleft(), listing)
        pending.extend([folder for folder in folders if not is_skipped(folder.rpartition("/")[2])][:_WIDTH])
    return listing
