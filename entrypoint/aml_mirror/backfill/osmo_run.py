"""Mirrors one workflow in OSMO's list: from a mounted volume, else from its declared output on OSMO."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from aml_mirror.backfill.osmo_candidates import MirroredWorkflows
from aml_mirror.backfill.osmo_names import WorkflowModelNames
from aml_mirror.core.errors import MirrorError, UsageError
from aml_mirror.core.settings import Settings, locate_source
from aml_mirror.osmo.run_location import OsmoRun
from aml_mirror.osmo.workflow_list import ListedWorkflow
from aml_mirror.pipeline.destination import destination
from aml_mirror.pipeline.locate import LocatedRun, locate
from aml_mirror.pipeline.mirror import Mirror
from aml_mirror.pipeline.receipt import Progress, Receipt
from aml_mirror.registries.base import Registry
from aml_mirror.sources.base import Source
from aml_mirror.sources.registry import open_source
from aml_mirror.support.progress import Console


class OsmoRunMirror:
    """Mirrors workflows under their own ids, one after the other.

    Args:
        settings: of this call.
        names: the names of the models.
        registry: the target.
        mirrored: the existing versions.
        console: output for the user.
    """

    def __init__(
        self,
        settings: Settings,
        names: WorkflowModelNames,
        registry: Registry,
        mirrored: MirroredWorkflows,
        console: Console,
    ) -> None:
        self._settings, self._names, self._registry = settings, names, registry
        self._mirrored, self._console = mirrored, console

    def receipts(
        self, workflow: ListedWorkflow, progress: Progress, retry_seconds: float
    ) -> Iterator[Receipt]:
        """Mirror a run, or each of its tasks if the model's name contains the task; yield the receipts.

        Args:
            workflow: the run.
            progress: filled with the facts about it.
            retry_seconds: how long a request to OSMO or to the source may keep failing.

        Raises:
            MirrorError: the errors of a mirror; with ``concerns_one_run`` if finding the run failed.
        """
        for settings in self._questions(workflow, retry_seconds):
            yield from self._receipts(settings, workflow, progress)

    def _questions(self, workflow: ListedWorkflow, retry_seconds: float) -> Iterator[Settings]:
        labels = workflow.labels or {}
        settings = replace(
            self._settings, run_id=workflow.name, run_labels=labels, retry_seconds=retry_seconds
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
                        f"run {workflow.name} is on a volume and has {len(tasks)} tasks: it is unknown which "
                        "of them wrote there",
                        "remove {task} from --model-name",
                    )
            else:
                tasks = run.tasks_with_outputs()
        for task in tasks or [""]:
            yield replace(settings, task=task)

    def _receipts(
        self, settings: Settings, workflow: ListedWorkflow, progress: Progress
    ) -> Iterator[Receipt]:
        located: LocatedRun | None = None
        with _of_one_run():
            source = open_source(settings, self._console.say)
            if self._names.needs_framework:
                located = locate(source, settings)
        framework = located.detected.layout.name if located else ""
        model = self._names.of(workflow.name, workflow.labels, settings.task, framework)
        settings = replace(settings, model_name=model)
        destination(settings)
        versions = self._mirrored.complete(workflow.name, model)
        find = _located if located is None else lambda source, settings: located
        mirror = Mirror(settings, self._console, progress, self._registry, source, find)
        # If nothing is complete, the mirror asks for itself: another mirror may have been working meanwhile.
        yield from mirror.run(versions or None)


@contextmanager
def _of_one_run() -> Iterator[None]:
    """Mark a failure as concerning one run: its container, its spec, its account."""
    try:
        yield
    except MirrorError as error:
        error.concerns_one_run = True
        raise


def _located(source: Source, settings: Settings) -> LocatedRun:
    with _of_one_run():
        return locate(source, settings)
