"""The runs below a prefix, one after the other, with no more than one folder's files held at a time.

A folder that a single mirror would take for a run is a run, wherever in it the framework put its files. A
folder with several is a group: its folders are looked at in turn. So the path of a run below the prefix is
the path of the topmost folder that holds no other one.

A folder with more than ``HELD`` files (a group of thousands of runs, or one run beside its dataset) is not
held whole: some of its folders, down to some depth, tell which of the two it is. A run among them is listed
when its turn comes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from aml_mirror.core.errors import MirrorError, UsageError
from aml_mirror.layouts import DetectedRun, find_runs
from aml_mirror.sources.base import Listing, Prefix, TooManyFiles
from aml_mirror.sources.tree import Tree

# Files of one folder that are held at a time: an entry takes about 500 bytes, so about 25 MB.
HELD = 50_000
# What is looked at of a folder that cannot be held: so many folders in each folder, so many in all.
_WIDTH = 16
_GLANCES = 100
# Snapshots, trash and caches hold copies of runs, and a volume's root has a folder for its repair.
_NOT_RUNS = "lost+found"

Early = Callable[[str, float], str]
"""Says of a folder (its path, when its newest file was written) why not to look into it; empty: look."""


@dataclass(slots=True)
class Candidate:
    """A folder below the prefix: a run, or what there is to say of it instead."""

    path: str
    """Below the prefix, with ``/``."""
    source: Prefix
    found: DetectedRun | None = None
    """The run in it; None: there is none, or nobody looked."""
    tree: Tree | None = None
    """The folder's files; None: there are too many to hold them until its turn comes."""
    refused: str = ""
    """Why it was not looked into, in words."""
    failure: MirrorError | None = None
    """What went wrong when it was looked into."""
    unknown: dict[str, MirrorError] = field(default_factory=dict)
    """What of it could not be listed: see :class:`aml_mirror.sources.base.Listing`."""


def candidates(prefix: Prefix, framework: str, early: Early) -> Iterator[Candidate]:
    """Yield what lies below a prefix, by path.

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
        raise UsageError(
            f"{prefix.uri} is one {run.layout.name} run, not a folder of runs",
            "mirror it with: aml-mirror mirror --source DIR; or pass the folder around it",
        )
    yield from look_below(prefix, framework, early)


def whole_run(prefix: Prefix, framework: str = "") -> DetectedRun | None:
    """Return the run that the prefix itself is the root of, or None; a glance is enough."""
    found = find_runs(Tree(prefix, _glance(prefix)), framework)
    # The numbers in the names of its folders are no reason: runs have numbers too.
    own = len(found) == 1 and not found[0].root and (framework or found[0].layout.name != "generic")
    return found[0] if own else None


def look_below(place: Prefix, framework: str, early: Early, path: str = "") -> Iterator[Candidate]:
    """As :func:`candidates`, for a folder that is known not to be a run by itself.

    Args:
        place, framework, early: see there.
        path: of the folder below the prefix.
    """
    for name, listing in place.listings(HELD):
        if name.startswith(".") or name == _NOT_RUNS:
            continue
        here = f"{path}/{name}" if path else name
        yield from _examined(Candidate(here, place.below(name)), listing, framework, early)


def _examined(
    candidate: Candidate, listing: Listing | MirrorError, framework: str, early: Early
) -> Iterator[Candidate]:
    if isinstance(listing, MirrorError) and not isinstance(listing, TooManyFiles):
        candidate.failure = listing
        yield candidate
        return
    held = isinstance(listing, Listing)
    candidate.refused = early(candidate.path, newest(listing) if isinstance(listing, Listing) else 0.0)
    if candidate.refused:
        yield candidate
        return
    try:
        tree = Tree(candidate.source, listing if isinstance(listing, Listing) else _glance(candidate.source))
        found = find_runs(tree, framework)
    except MirrorError as error:
        candidate.failure = error
        yield candidate
        return
    if len(found) > 1 or not (found or held):
        yield from look_below(candidate.source, framework, early, candidate.path)
        return
    if found:
        candidate.found = found[0]
        candidate.tree = tree if held else None
    if isinstance(listing, Listing):
        candidate.unknown = listing.unknown
    yield candidate


def newest(listing: Listing) -> float:
    """When the newest file of a listing was written, in seconds since the epoch; 0: unknown."""
    return max((entry.modified for entry in listing.files.values()), default=0.0)


def _glance(place: Prefix) -> Listing:
    """List a part of a folder: what lies in its first folders, and in theirs, level by level."""
    listing = Listing()
    pending = deque([""])
    for _ in range(_GLANCES):
        if not pending:
            break
        pending.extend(place.glance(pending.popleft(), listing)[:_WIDTH])
    return listing
