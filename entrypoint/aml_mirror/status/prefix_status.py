"""The status of one run, or of each run below a prefix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

from aml_mirror.backfill.discovery import Candidate, look_below, whole_run
from aml_mirror.backfill.folder_progress import FolderProgress
from aml_mirror.backfill.name_template import ModelNames, other_names
from aml_mirror.backfill.run_filter import MOST_NAMES, RunFilter, no_match
from aml_mirror.backfill.version_index import VersionIndex
from aml_mirror.core.errors import SourceNotFound, UsageError
from aml_mirror.core.settings import Settings
from aml_mirror.pipeline.destination import destination
from aml_mirror.registries import keys
from aml_mirror.registries.registry import open_registry
from aml_mirror.sources.base import Prefix, as_prefix
from aml_mirror.sources.registry import open_source
from aml_mirror.status.status import document, status, version_document
from aml_mirror.support.progress import Console


@dataclass(frozen=True, slots=True)
class RunStatus:
    """One run: the output of ``status --json`` for it, and its folder."""

    document: dict[str, Any]
    candidate: Candidate | None = None
    """None: the run was selected by its id or its folder."""

    @property
    def state(self) -> str:
        """``mirrored``, ``begun``, ``missing``, or ``failed`` if its folder cannot be read."""
        if self.document["versions"]:
            return "mirrored"
        if self.document["incomplete"]:
            return "begun"
        return "failed" if self.candidate is not None and self.candidate.failure else "missing"


@dataclass(frozen=True, slots=True)
class Statuses:
    """What a call of ``aml-mirror status`` covers."""

    runs: Iterator[RunStatus]
    prefix: str = ""
    """The URI of the place with the runs; empty: it covers one run."""
    skipped: list[Candidate] = field(default_factory=list)
    """Folders that look like a run but do not count as one. Complete after ``runs`` has ended."""


def statuses(settings: Settings, console: Console) -> Statuses:
    """Return the status of the run that the settings name, or of each run below their source.

    If they name no run, the source is examined. If it contains one run, or none, it is a run's folder. With
    ``--match`` or ``--since`` it is always a folder of runs.

    Raises:
        UsageError, ConfigurationError: like :func:`status`; or runs are filtered although there is only one.
        MirrorError: the source cannot be listed. The iterator raises SourceNotFound if ``--match`` matches no
            run.
    """
    model = settings.require_model_name()
    place = settings.source or settings.output_base
    given = {"--match": settings.match, "--exclude-run": settings.exclude_runs, "--since": settings.since}
    selecting = [flag for flag, value in given.items() if value]
    if settings.run_id or not place:
        _refuse(selecting, "--run-id names one run" if settings.run_id else "no folder of runs is given")
        return _one(status(settings, console.say))
    prefix = as_prefix(open_source(replace(settings, source=place, output_base=""), console.say))
    if prefix is None:
        _refuse(selecting, f"{place} is one run")
        return _one(status(replace(settings, source=place), console.say))
    progress = FolderProgress(prefix, console)
    skipped: list[Candidate] = []
    runs = _runs(prefix, settings, RunFilter.of(settings), progress, skipped)
    try:
        if is_run := whole_run(prefix, settings.framework) is not None:
            _refuse(selecting, f"{prefix.uri} is one run")
        first = [] if is_run else list(islice(runs, 2))
    except SourceNotFound:
        if selecting:
            raise
        first = []
    if len(first) < 2 and not selecting:
        found = status(replace(settings, source=place), console.say)
        progress.end()
        if first and not found["versions"] + found["incomplete"]:
            return Statuses(_each(settings, prefix, model, iter(first), console.say))
        return _one(found)
    each = _each(settings, prefix, model, chain(first, runs), console.say)
    return Statuses(_ended(each, progress), prefix.uri, skipped)


def _one(found: dict[str, Any]) -> Statuses:
    return Statuses(iter([RunStatus(found)]))


def _ended(runs: Iterator[RunStatus], progress: FolderProgress) -> Iterator[RunStatus]:
    try:
        yield from runs
    finally:
        progress.end()


def _refuse(flags: list[str], why: str) -> None:
    if flags:
        raise UsageError(
            f"{flags[0]} filters the runs of a folder, but {why}",
            "pass the folder that holds the runs' folders: --source PREFIX",
        )


def _runs(
    prefix: Prefix,
    settings: Settings,
    selection: RunFilter,
    progress: FolderProgress,
    skipped: list[Candidate],
) -> Iterator[Candidate]:
    """Yield the selected runs below a prefix, and folders that may be runs but cannot be read.

    Raises:
        SourceNotFound: ``--match`` matches none of the existing runs.
    """
    is_matched = False
    names: list[str] = []
    for candidate in look_below(prefix, settings.framework, selection.refuses_early):
        if not (candidate.found or candidate.failure):
            # A folder that is too old was not searched for runs.
            is_matched = is_matched or selection.is_too_old(candidate.newest)
            if candidate.refused and not selection.refuses(candidate.path, candidate.newest):
                skipped.append(replace(candidate, tree=None))
            continue
        progress.at(candidate.path)
        if not selection.matches(candidate.path):
            if candidate.found and len(names) < MOST_NAMES:
                names.append(candidate.path)
            continue
        is_matched = True
        if not selection.refuses(candidate.path, candidate.newest):
            yield candidate
    if names and not is_matched:
        raise no_match(selection.match, names)


def _each(
    settings: Settings,
    prefix: Prefix,
    template: str,
    runs: Iterator[Candidate],
    notice: Callable[[str], None],
) -> Iterator[RunStatus]:
    names = ModelNames(template, prefix.name)
    registry = open_registry(settings, notice)
    known = VersionIndex(registry)
    for candidate in runs:
        path, run = candidate.path, candidate.found
        if run is None:
            missing = candidate.failure.message if candidate.failure else None
            yield RunStatus(document(path, template, registry.description, [], [], missing), candidate)
            continue
        model = names.of(path, run.layout.name)
        experiment = destination(replace(settings, model_name=model)).experiment
        ids = [path, *other_names(path, prefix.uri)]
        # First by its own id. Under another id, only what was mirrored from this same folder counts. An
        # earlier release used the name of a folder around it.
        parts = path.split("/")
        where = {"/".join([prefix.uri, *parts[:count]]) for count in range(1, len(parts) + 1)}
        versions = [
            version
            for run_id, found in known.of(experiment, model, ids).items()
            for version in found
            if run_id == path or version.tags.get(keys.OUTPUT_DIR) in where
        ]
        versions.sort(key=lambda version: (len(version.number), version.number))
        complete = [version_document(registry, item) for item in versions if item.complete]
        begun = [version_document(registry, item) for item in versions if not item.complete]
        missing = None if complete else f"{path} has no complete version in {model}"
        yield RunStatus(document(path, model, registry.description, complete, begun, missing), candidate)
        candidate.tree = None  # The listings of all runs are not kept in memory.
