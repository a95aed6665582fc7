"""Finds out with a few requests which of a model's many versions still have their run: see each_version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow.entities import Experiment, LifecycleStage

from aml_mirror.registries import keys
from aml_mirror.registries.mlflow.version_presence import VersionPresence
from aml_mirror.registries.records import Version

if TYPE_CHECKING:
    from aml_mirror.registries.mlflow.tracking_server import MlflowRegistry

# After this many single requests for runs of another experiment, that experiment is listed too.
FEW = 2


class KnownRuns:
    """The existing runs of an experiment, from a search, page by page, and a list of its artifact folder.

    That list shows whether a run's whole folder is gone. Single files are checked when one run is mirrored,
    and by ``verify``.
    """

    def __init__(
        self, registry: MlflowRegistry, presence: VersionPresence, experiment: str, model: str
    ) -> None:
        self._registry = registry
        self._presence = presence
        self._experiment = experiment
        self._model = model
        self._asked: set[str] = set()
        self._alive: set[str] = set()
        self._elsewhere: dict[str, int] = {}

    def have(self, version: Version) -> bool:
        """Return whether the run of a version and the folder with its artifacts exist."""
        registry = self._registry
        if not self._asked:
            own = registry.retry(lambda: registry.client.get_experiment_by_name(self._experiment))
            self._asked.add(str(own.experiment_id) if own else "")
            if own:
                self._ask(own)
        run_id = version.tags.get(keys.MLFLOW_RUN_ID, "")
        if run_id in self._alive:
            return True
        # Deleted, removed, or in another experiment, where the model was mirrored before.
        run = self._presence.run_of(version)
        if run is None or run.info.lifecycle_stage != LifecycleStage.ACTIVE:
            return False
        elsewhere = str(run.info.experiment_id)
        if elsewhere not in self._asked:
            self._elsewhere[elsewhere] = self._elsewhere.get(elsewhere, 0) + 1
            if self._elsewhere[elsewhere] > FEW:
                self._asked.add(elsewhere)
                self._ask(registry.retry(lambda: registry.client.get_experiment(elsewhere)))
        return self._presence.has_files(version, run)

    def _ask(self, experiment: Experiment) -> None:
        location = str(experiment.artifact_location).rstrip("/")
        folders = self._presence.folders_of(location)
        for run in self._registry.each_run(str(experiment.experiment_id), keys.MODEL_NAME, self._model):
            usual = str(run.info.artifact_uri).startswith(f"{location}/{run.info.run_id}/")
            if folders is None or not usual or run.info.run_id in folders:
                self._alive.add(run.info.run_id)
