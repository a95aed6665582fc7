"""Mirror the completed workflows that OSMO lists and that are not mirrored yet.

1. OSMO's list is read page by page, and what is not meant is counted and left out (:mod:`.osmo_filter`). 2.
A workflow that has a complete version is there already: nothing is asked of OSMO or of storage for it.
Which
   models it may have become is known from the list, or is a pattern (:mod:`.osmo_names`).
3. Any other is located as a replay locates it, a mounted volume first, then what it declared, and is mirrored
   under its own id.

What fails is the run's own, as in a backfill of a folder (:mod:`.outcomes`). A run is looked at again when
its ``Postponements`` say so; a backfill keeps none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from aml_mirror.backfill.osmo_filter import WorkflowFilter
from aml_mirror.backfill.osmo_names import WorkflowModelNames
from aml_mirror.backfill.outcomes import SHORT_RETRY, Outcomes
from aml_mirror.backfill.run_filter import MOST_NAMES, no_match
from aml_mirror.backfill.summary import Summary
from aml_mirror.backfill.version_index import VersionIndex
from aml_mirror.core.errors import (
    Interrupted,
    MirrorError,
    ServiceUnavailable,
    UsageError,
)
from aml_mirror.core.settings import Settings, locate_source
from aml_mirror.osmo.connection import connect
from aml_mirror.osmo.run_location import OsmoRun
from aml_mirror.osmo.workflow_list import ListedWorkflow, ListQuery, each_workflow
from aml_mirror.pipeline.destination import destination
from aml_mirror.pipeline.locate import LocatedRun, locate
from aml_mirror.pipeline.mirror import Mirror
from aml_mirror.pipeline.receipt import Facts, Progress, Receipt, receipt_of
from aml_mirror.registries import keys
from aml_mirror.registries.records import Version
from aml_mirror.registries.registry import open_registry, required_type
from aml_mirror.registries.registry_type import PROBE_NAME
from aml_mirror.sources.base import Source
from aml_mirror.sources.registry import open_source
from aml_mirror.support.progress import LOG_SECONDS, Console

# Models whose versions are held at the same time; a label in the name may make many.
_MODELS = 1024
ALL_CHECKPOINTS = "all"


class Postponements(Protocol):
    """What is known of runs that could not be mirrored."""

    def read(self, names: list[str]) -> None:
        """Learn what is known of the workflows of a pass."""

    def is_due(self, name: str) -> bool:
        """Tell whether a run may be looked at now."""

    def has(self, name: str) -> bool:
        """Tell whether something is known of a run: an attempt failed, or did not end."""

    def begin(self, name: str) -> None:
        """Note that a run which becomes several versions is being mirrored."""

    def failed(self, name: str, failure: MirrorError) -> None:
        """Note why a run could not be mirrored."""

    def done(self, name: str) -> None:
        """Forget a run: it is mirrored."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    workflow: ListedWorkflow
    models: tuple[str, ...]
    """Those of which a version may be there; empty: not known, or there can be none."""
    failure: MirrorError | None = None


class OsmoBackfill:
    """One pass over OSMO's list.

    Args:
        settings: of this call.
        console: what the person sees.
        tell: given the receipt of each version, and of each run that failed.
        postponements: of earlier passes; None: every run is looked at.
        tells_already: whether ``tell`` also gets runs that were mirrored before.

    Raises:
        UsageError: the settings contradict each other.
        ConfigurationError: no registry, or no way to ask OSMO.
    """

    def __init__(
        self,
        settings: Settings,
        console: Console,
        tell: Callable[[Receipt], None],
        postponements: Postponements | None = None,
        tells_already: bool = True,
    ) -> None:
        check_settings(settings)
        self._names = WorkflowModelNames(settings.require_model_name())
        self._settings = replace(
            settings,
            source="",
            run_id="",
            replay_run_id="",
            framework_tag="",
            parameters={},
            wait_seconds=0.0,
        )
        labels = dict.fromkeys(self._names.labels, "label")
        destination(replace(settings, model_name=self._names.of("workflow-1", labels, "task", "framework")))
        self._registry = open_registry(settings, console.say)
        self._osmo = connect(settings, console.say)
        self._known = VersionIndex(self._registry, _MODELS)
        self._console = console
        self._tell = tell
        self._postponements = postponements
        self._tells_already = tells_already
        self._patience = settings.retry_seconds
        self.summary = Summary(
            source="OSMO", model_name=settings.model_name, shard=str(settings.shard or ""), listed=0
        )
        self.summary.planned = 0 if settings.dry_run else None
        self._outcomes = Outcomes(
            settings, console, tell, self.summary, self._be_patient_for, self._require_services
        )

    def run(self, since: datetime | None) -> Summary:
        """Make the pass. Failures and signals do not come out; they are in the summary.

        Args:
            since: when the oldest workflow that is meant ended; None: whenever it did.
        """
        started = told = time.monotonic()
        try:
            chosen = self._selected(WorkflowFilter(self._settings, since))
            candidates = self._missing(chosen)
            for number, candidate in enumerate(candidates, 1):
                self._take(candidate)
                if time.monotonic() - told >= LOG_SECONDS:
                    told = time.monotonic()
                    self._console.say(f"{number:,} of {len(candidates):,} runs: {candidate.workflow.name}")
        except (MirrorError, Interrupted) as error:
            self._outcomes.stopped(error)
        self.summary.seconds = time.monotonic() - started
        return self.summary

    def _selected(self, wanted: WorkflowFilter) -> list[ListedWorkflow]:
        """The workflows that are meant, those that ended first coming first."""
        chosen = []
        names: list[str] = []
        listed = with_labels = 0
        for workflow in each_workflow(self._osmo, wanted.query):
            listed += 1
            with_labels += workflow.labels is not None
            if wanted.selects(workflow, self.summary):
                chosen.append(workflow)
            elif self._settings.match and len(names) < MOST_NAMES:
                names.append(workflow.name)
        self.summary.listed = listed
        wanted.require_labels(listed, with_labels)
        if names and not self.summary.other_shards and not chosen and self._postponements is None:
            raise no_match(self._settings.match, names)
        return sorted(chosen, key=lambda workflow: (workflow.ended, workflow.submitted, workflow.name))

    def _missing(self, chosen: list[ListedWorkflow]) -> list[_Candidate]:
        """Those that have no version, the ones that never failed coming first; the others are counted."""
        later = self._postponements
        if later is not None:
            later.read([workflow.name for workflow in chosen])
        candidates = [self._candidate(workflow) for workflow in chosen]
        missing = []
        # By model, so that the versions of few are held at a time.
        for candidate in sorted(candidates, key=lambda candidate: candidate.models):
            name = candidate.workflow.name
            found = self._versions(candidate)
            if found and not (self._is_several and later is not None and later.has(name)):
                self._already(candidate, found)
                if later is not None and later.has(name):
                    later.done(name)
            elif later is not None and not later.is_due(name):
                self.summary.postponed += 1
            else:
                missing.append(candidate)
        order = {workflow.name: place for place, workflow in enumerate(chosen)}
        return sorted(
            missing,
            key=lambda candidate: (
                later is not None and later.has(candidate.workflow.name),
                order[candidate.workflow.name],
            ),
        )

    @property
    def _is_several(self) -> bool:
        """Whether one run may become several versions, so that one of them does not tell of the others."""
        return self._names.needs_task or self._settings.checkpoint == ALL_CHECKPOINTS

    def _candidate(self, workflow: ListedWorkflow) -> _Candidate:
        try:
            if not (self._names.needs_task or self._names.needs_framework):
                return _Candidate(workflow, (self._names.of(workflow.name, workflow.labels),))
            pattern = self._names.pattern(workflow.name, workflow.labels)
        except UsageError as error:
            return _Candidate(workflow, (), error)
        return _Candidate(workflow, tuple(name for name in self._models if pattern.fullmatch(name)))

    @property
    def _models(self) -> list[str]:
        if self._all_models is None:
            self._all_models = sorted(self._registry.model_names())
        return self._all_models

    _all_models: list[str] | None = None

    def _versions(self, candidate: _Candidate) -> list[Version]:
        """The complete versions of a run."""
        name = candidate.workflow.name
        found: list[Version] = []
        for model in candidate.models:
            try:
                required_type(self._settings).check_names(model, self._settings.experiment or model)
            except UsageError:
                continue  # Said of the run when its turn comes.
            known = self._known.of(self._settings.experiment or model, model, [name])
            found += [version for version in known.get(name, []) if version.complete]
        return found

    def _already(self, candidate: _Candidate, versions: list[Version]) -> None:
        receipts = [
            receipt_of(
                Facts(
                    run_id=candidate.workflow.name,
                    checkpoint=version.tags.get(keys.CHECKPOINT),
                    mlflow_run_id=version.tags.get(keys.MLFLOW_RUN_ID),
                    experiment=self._settings.experiment or version.model,
                    model_name=version.model,
                ),
                outcome="already-mirrored",
                exit_code=0,
                model_version=version.number,
                model_uri=self._registry.uri(version),
                manifest_sha256=version.tags.get(keys.MANIFEST_SHA256),
                integrity=version.tags.get(keys.INTEGRITY),
            )
            for version in versions
        ]
        if self._tells_already:
            for receipt in receipts:
                self._tell(receipt)
        self.summary.add(receipts)

    def _take(self, candidate: _Candidate) -> None:
        name, later = candidate.workflow.name, self._postponements
        limit = self._settings.limit
        if limit is not None and self.summary.mirrored + (self.summary.planned or 0) >= limit:
            self._outcomes.skipped(Facts(run_id=name), f"--limit {limit} was reached before it")
            return

        def work(done: list[Receipt]) -> str:
            if candidate.failure is not None:
                raise candidate.failure
            if later is not None and self._is_several:
                later.begin(name)
            for settings in self._questions(candidate.workflow):
                done += self._mirrored(settings, candidate, progress)
            return ""

        progress = Progress(Facts(run_id=name))
        failure = self._outcomes.take(progress, work)
        if later is None:
            return
        if failure is not None:
            later.failed(name, failure)
        elif later.has(name):
            later.done(name)

    def _questions(self, workflow: ListedWorkflow) -> Iterator[Settings]:
        """The settings for a run, or for each of its tasks where the model's name has the task."""
        labels = workflow.labels or {}
        settings = replace(
            self._settings, run_id=workflow.name, run_labels=labels, retry_seconds=self._patience
        )
        if not self._names.needs_task:
            yield settings
            return
        with _of_one_run():
            run = OsmoRun(settings, self._console.say)
            if settings.output_base and os.path.lexists(locate_source(settings)):
                tasks = [task.name for task in run.ended().tasks]
                if len(tasks) != 1:
                    raise UsageError(
                        f"run {workflow.name} is on a volume and has {len(tasks)} tasks: nothing tells which "
                        "one wrote there",
                        "take {task} out of --model-name",
                    )
            else:
                tasks = run.tasks_with_outputs()
        for task in tasks or [""]:
            yield replace(settings, task=task)

    def _mirrored(self, settings: Settings, candidate: _Candidate, progress: Progress) -> Iterator[Receipt]:
        workflow = candidate.workflow
        located: LocatedRun | None = None
        with _of_one_run():
            source = open_source(settings, self._console.say)
            if self._names.needs_framework:
                located = locate(source, settings)
        framework = located.detected.layout.name if located else ""
        model = self._names.of(workflow.name, workflow.labels, settings.task, framework)
        settings = replace(settings, model_name=model)
        target = destination(settings)
        complete = self._known.of(target.experiment, model, [workflow.name]).get(workflow.name, [])
        versions = [version for version in complete if version.complete]
        find = _located if located is None else lambda source, settings: located
        mirror = Mirror(settings, self._console, progress, self._registry, source, find)
        # Where nothing is complete the mirror asks for itself: another may have been at work meanwhile.
        yield from mirror.run(versions or None)

    def _be_patient_for(self, seconds: float) -> None:
        self._patience = seconds
        self._registry.be_patient_for(seconds)

    def _require_services(self, failure: MirrorError, runs: int) -> None:
        """Go on where registry and OSMO answer: then each of the runs has its own reason.

        Raises:
            ServiceUnavailable: one of them does not.
        """
        self._be_patient_for(min(self._patience, SHORT_RETRY / 10))
        try:
            self._registry.versions(PROBE_NAME, PROBE_NAME, PROBE_NAME)
            connect(replace(self._settings, retry_seconds=0.0), self._console.say).list_page(
                ListQuery(), 0, 1
            )
        except MirrorError as error:
            raise ServiceUnavailable(
                f"{runs} runs in a row failed, and the service does not answer: {error.message}",
                "run the same command again: it goes on where this one ended",
            ) from failure


def check_settings(settings: Settings) -> None:
    """Check that the options of a backfill from OSMO go together.

    Raises:
        UsageError: they do not.
    """
    if settings.source:
        raise UsageError("--from-osmo and --source name two places", "pass one of them")
    if settings.skip_copies:
        raise UsageError(
            "--skip-copies compares the runs of a folder, and --from-osmo names none", "pass one of them"
        )


def refuse_osmo_filters(settings: Settings) -> None:
    """Check that a backfill of a folder is not asked for workflows.

    Raises:
        UsageError: it is.
    """
    given = {"--label": settings.labels, "--pool": settings.pools, "--user": settings.users}
    if found := [flag for flag, value in given.items() if value]:
        raise UsageError(
            f"{found[0]} selects workflows of OSMO, and a folder has none", "pass --from-osmo with it"
        )


@contextmanager
def _of_one_run() -> Iterator[None]:
    """Mark a failure as one run's own: its container, its spec, its account."""
    try:
        yield
    except MirrorError as error:
        error.concerns_one_run = True
        raise


def _located(source: Source, settings: Settings) -> LocatedRun:
    with _of_one_run():
        return locate(source, settings)
