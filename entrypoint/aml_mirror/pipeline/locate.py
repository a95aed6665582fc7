"""Finds the run in a source. The source is listed once, and the layout describes the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from aml_mirror.core.errors import DataError, MirrorError
from aml_mirror.core.run import Run
from aml_mirror.core.settings import Settings
from aml_mirror.layouts import DetectedRun, find_run, unknown_beside
from aml_mirror.pipeline.select import path_in
from aml_mirror.sources.base import Source, labels_of, run_id_of
from aml_mirror.sources.tree import Tree


@dataclass(frozen=True, slots=True)
class LocatedRun:
    """The run in a source, before a checkpoint is selected."""

    source: Source
    detected: DetectedRun
    tree: Tree
    """The files below the run's root."""
    run: Run
    run_id: str
    warnings: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    """The labels of the run on OSMO."""


def locate(source: Source, settings: Settings) -> LocatedRun:
    """List a source and return the only run in it.

    Raises:
        SourceNotFound, NotAllowed: see :meth:`Source.scan`.
        DataError: it contains no run.
        UsageError: it contains several runs.
        NotAllowed, ServiceUnavailable: a part of it cannot be listed.
    """
    listing = source.scan()
    require_listed(listing.unknown, settings)
    whole = Tree(source, listing)
    return describe(whole, find_run(whole, settings.framework, path_in(settings.checkpoint)), settings)


def require_listed(unknown: dict[str, MirrorError], settings: Settings) -> None:
    """Check that no part of a run is hidden: a folder that cannot be listed may be its newest checkpoint.

    Paths and names in ``--exclude`` may be hidden.

    Args:
        unknown: see :class:`aml_mirror.sources.base.Listing`.

    Raises:
        NotAllowed, ServiceUnavailable: something is hidden, because of missing access or a fault.
    """
    for path, error in sorted(unknown.items()):
        forms = (path, path.rpartition("/")[2])
        if not any(fnmatchcase(form, pattern) for form in forms for pattern in settings.exclude):
            raise error


def describe(whole: Tree, detected: DetectedRun, settings: Settings) -> LocatedRun:
    """Read a run that was detected in a tree."""
    source = whole.source
    tree = detected.tree(whole)
    run = detected.read(whole)
    warnings = [f"{path} was left out: {why}" for path, why in sorted(tree.refused.items())]
    warnings.extend(
        f"{path} was left by an interrupted copy: a file may be missing, perhaps the newest checkpoint"
        for path in tree.nameless
    )
    warnings.extend(run.warnings)
    warnings.extend(
        f"{root} was not examined; it may be another run, of no known framework: to mirror it, pass it with "
        "--source"
        for root in ([] if settings.framework else unknown_beside(whole, detected))
    )
    labels = settings.run_labels or labels_of(source)
    return LocatedRun(source, detected, tree, run, run_id(source, settings), tuple(warnings), labels)


def run_id(source: Source, settings: Settings) -> str:
    """Return the id of the run in a source: the one that the source learned, the given one, or its name."""
    return run_id_of(source) or settings.run_id or source.name


def require_unchanged(located: LocatedRun, paths: list[str]) -> None:
    """Check that no file changed since it was listed, without reading one.

    Raises:
        DataError: a file changed.
    """
    if changed := located.tree.source.changed(located.tree.entry(path) for path in paths):
        raise DataError(
            f"{changed[0]} changed while the run was mirrored",
            "wait until the training has ended and nothing writes there, then run the command again",
        )
