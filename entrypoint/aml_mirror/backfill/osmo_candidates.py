"""Finds out which of the workflows in OSMO's list already have a version.

A workflow's models are known from OSMO's list, or are the registry's models that match a pattern. This needs
no request to OSMO or to storage.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from aml_mirror.backfill.osmo_names import WorkflowModelNames
from aml_mirror.backfill.version_index import VersionIndex
from aml_mirror.core.errors import MirrorError, UsageError
from aml_mirror.core.settings import Settings
from aml_mirror.osmo.workflow_list import ListedWorkflow
from aml_mirror.pipeline.receipt import Facts, Receipt, receipt_of
from aml_mirror.registries import keys
from aml_mirror.registries.base import Registry
from aml_mirror.registries.records import Version
from aml_mirror.registries.registry import required_type

# How many models' versions are held at the same time. A label in the name may result in many.
_MODELS = 1024


@dataclass(frozen=True, slots=True)
class OsmoCandidate:
    """A selected workflow, and the models under which it may be registered."""

    workflow: ListedWorkflow
    models: tuple[str, ...]
    """The models that may have a version of it; empty: unknown, or none."""
    failure: MirrorError | None = None
    """If it has no model: why. It lacks a label."""


class MirroredWorkflows:
    """The versions of mirrored workflows.

    Args:
        settings: of this call.
        names: the names of their models.
        registry: where the versions are listed, once per model.
    """

    def __init__(self, settings: Settings, names: WorkflowModelNames, registry: Registry) -> None:
        self._settings, self._names, self._registry = settings, names, registry
        self._known = VersionIndex(registry, _MODELS)

    def candidate(self, workflow: ListedWorkflow) -> OsmoCandidate:
        """Return the workflow with the models that it may have become.

        Raises:
            MirrorError: the registry cannot list its models.
        """
        try:
            if not (self._names.needs_task or self._names.needs_framework):
                return OsmoCandidate(workflow, (self._names.of(workflow.name, workflow.labels),))
            pattern = self._names.pattern(workflow.name, workflow.labels)
        except UsageError as error:
            return OsmoCandidate(workflow, (), error)
        return OsmoCandidate(workflow, tuple(name for name in self._models if pattern.fullmatch(name)))

    @cached_property
    def _models(self) -> list[str]:
        return sorted(self._registry.model_names())

    def versions(self, candidate: OsmoCandidate) -> list[Version]:
        """Return the complete versions of a workflow.

        Raises:
            MirrorError: the registry does not answer.
        """
        found: list[Version] = []
        for model in candidate.models:
            try:
                required_type(self._settings).check_names(model, self._settings.experiment or model)
            except UsageError:
                continue  # It is reported when the run's turn comes.
            found += self.complete(candidate.workflow.name, model)
        return found

    def complete(self, run_id: str, model: str) -> list[Version]:
        """Return the complete versions of a run in one model. Raises the errors of :meth:`versions`."""
        known = self._known.of(self._settings.experiment or model, model, [run_id])
        return [version for version in known.get(run_id, []) if version.complete]

    def receipts(self, run_id: str, versions: list[Version]) -> list[Receipt]:
        """Return the receipts of a run that was mirrored before."""
        return [
            receipt_of(
                Facts(
                    run_id=run_id,
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
