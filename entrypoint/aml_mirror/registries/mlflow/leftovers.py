"""Finds what this program left on an MLflow server: see :class:`aml_mirror.registries.leftovers.Leftovers`.

Files belong to runs there. A deleted run can be restored until ``mlflow gc`` removes it with its files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow.entities import LifecycleStage

from aml_mirror.core.errors import MirrorError
from aml_mirror.registries import keys
from aml_mirror.registries.leftover_runs import is_as_listed, runs_left
from aml_mirror.registries.leftovers import Leftover, RunLeft, Survey
from aml_mirror.registries.mlflow.run_lease import Lease
from aml_mirror.registries.mlflow_errors import is_missing
from aml_mirror.registries.records import Version

if TYPE_CHECKING:
    from aml_mirror.registries.mlflow.tracking_server import MlflowRegistry


class MlflowLeftovers:
    """Args:
    registry: the registry to search.
    """

    def __init__(self, registry: MlflowRegistry) -> None:
        self._registry = registry
        self._runs: dict[str, RunLeft] = {}

    def survey(self) -> Survey:
        runs = tuple(runs_left(self._registry))
        self._runs = {run.run_id: run for run in runs}
        return Survey(
            tuple(self._versions()), runs, notes=("the files of a deleted run are removed by 'mlflow gc'",)
        )

    def _versions(self) -> list[Version]:
        registry, found, token = self._registry, [], None
        while True:
            page = registry.retry(
                lambda token=token: registry.client.search_model_versions("", 500, page_token=token)  # type: ignore[misc]
            )
            for item in page:
                # This includes a version that somebody else registered from one of our runs.
                tags = {keys.MLFLOW_RUN_ID: str(item.run_id or ""), **item.tags}
                found.append(Version(str(item.name), str(item.version), tags))
                if item.run_id and tags[keys.MLFLOW_RUN_ID] != item.run_id:
                    named = {keys.MLFLOW_RUN_ID: str(item.run_id)}
                    found.append(Version(str(item.name), str(item.version), named))
            token = page.token
            if not token:
                return found

    def remove(self, item: Leftover) -> str:
        registry = self._registry
        try:
            run = registry.retry(lambda: registry.client.get_run(item.name))
        except MirrorError as error:
            if is_missing(error.__cause__):
                return ""
            raise
        if run.info.lifecycle_stage == LifecycleStage.DELETED:
            return ""
        lease = Lease.parse(run.data.tags.get(keys.LEASE))
        if not is_as_listed(run, self._runs[item.name]) or (lease is not None and not lease.owner_is_gone):
            return "a mirror may be working on it"
        registry.discard(lambda: registry.client.delete_run(item.name))
        return ""
