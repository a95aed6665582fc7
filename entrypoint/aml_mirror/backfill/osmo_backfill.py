"""Mirrors the completed workflows in OSMO's list that are not mirrored yet.

1. OSMO's list is read page by page. Workflows that are not selected are counted and left out
   (:mod:`.osmo_filter`).
2. A workflow with a complete version is already there: it needs no request to OSMO or to storage
   (:mod:`.osmo_candidates`).
3. Any other one is located like in a replay, and is mirrored under its own id (:mod:`.osmo_run`).

A failure concerns one run, like in a backfill of a folder (:mod:`.outcomes`). A run is tried again when its
``Postponements`` say so; a backfill has none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from aml_mirror.backfill.osmo_candidates import MirroredWorkflows, OsmoCandidate
from aml_mirror.backfill.osmo_filter import WorkflowFilter
from aml_mirror.backfill.osmo_names import WorkflowModelNames
from aml_mirror.backfill.osmo_options import check_osmo_options
from aml_mirror.backfill.osmo_run import OsmoRunMirror
from aml_mirror.backfill.outcomes import SHORT_RETRY, Outcomes
from aml_mirror.backfill.postponements import Postponements
from aml_mirror.backfill.run_filter import MOST_NAMES, no_match
from aml_mirror.backfill.summary import Summary
from aml_mirror.core.errors import Interrupted, MirrorError, ServiceUnavailable
from aml_mirror.core.settings import Settings
from aml_mirror.osmo.connection import connect
from aml_mirror.osmo.workflow_list import ListedWorkflow, ListQuery, each_workflow
from aml_mirror.pipeline.destination import destination
from aml_mirror.pipeline.receipt import Facts, Progress, Receipt
from aml_mirror.registries.records import Version
from aml_mirror.registries.registry import open_registry
from aml_mirror.registries.registry_type import PROBE_NAME
from aml_mirror.support.progress import LOG_SECONDS, Console

ALL_CHECKPOINTS = "all"


class OsmoBackfill:
    """One pass over OSMO's list.

    Args:
        settings: of this call.
        console: output for the user.
        tell: receives the receipt of each version, and of each run that failed.
        postponements: of earlier passes; None: every run is tried.
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
        check_osmo_options(settings)
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
        self._mirrored = MirroredWorkflows(self._settings, self._names, self._registry)
        self._runs = OsmoRunMirror(self._settings, self._names, self._registry, self._mirrored, console)
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
        """Make the pass. Failures and signals are not raised; they are in the summary.

        Args:
            since: the earliest end of a selected workflow; None: any.
        """
        started = told = time.monotonic()
        try:
            chosen = self._selected(WorkflowFilter(self._settings, since))
            candidates = self._missing(chosen)
            for number, candidate in enumerate(candidates, 1):
                self._console.doing(f"{number:,} of {len(candidates):,}: {candidate.workflow.name}")
                self._take(candidate)
                if time.monotonic() - told >= LOG_SECONDS:
                    told = time.monotonic()
                    self._console.say(f"{number:,} of {len(candidates):,} runs: {candidate.workflow.name}")
        except (MirrorError, Interrupted) as error:
            self._outcomes.stopped(error)
        finally:
            self._console.doing("")
        self.summary.seconds = time.monotonic() - started
        return self.summary

    def _selected(self, wanted: WorkflowFilter) -> list[ListedWorkflow]:
        """Return the selected workflows; those that ended first come first."""
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

    def _missing(self, chosen: list[ListedWorkflow]) -> list[OsmoCandidate]:
        """Return those without a version, the ones that never failed first. The others are counted."""
        later = self._postponements
        if later is not None:
            later.read([workflow.name for workflow in chosen])
        candidates = [self._mirrored.candidate(workflow) for workflow in chosen]
        missing = []
        # Sorted by model, so that the versions of only a few models are held at a time.
        for candidate in sorted(candidates, key=lambda candidate: candidate.models):
            name = candidate.workflow.name
            found = self._mirrored.versions(candidate)
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
        """Tell whether one run may become several versions: then one does not prove that all exist."""
        return self._names.needs_task or self._settings.checkpoint == ALL_CHECKPOINTS

    def _already(self, candidate: OsmoCandidate, versions: list[Version]) -> None:
        receipts = self._mirrored.receipts(candidate.workflow.name, versions)
        if self._tells_already:
            for receipt in receipts:
                self._tell(receipt)
        self.summary.add(receipts)

    def _take(self, candidate: OsmoCandidate) -> None:
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
            done += self._runs.receipts(candidate.workflow, progress, self._patience)
            return ""

        progress = Progress(Facts(run_id=name))
        failure = self._outcomes.take(progress, work)
        if later is None:
            return
        if failure is not None:
            later.failed(name, failure)
        elif later.has(name):
            later.done(name)

    def _be_patient_for(self, seconds: float) -> None:
        self._patience = seconds
        self._registry.be_patient_for(seconds)

    def _require_services(self, failure: MirrorError, runs: int) -> None:
        """If registry and OSMO answer, continue: then each run has failed for its own reason.

        Raises:
            ServiceUnavailable: one of them does not answer.
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
                "run the same command again: it continues where this one stopped",
            ) from failure
