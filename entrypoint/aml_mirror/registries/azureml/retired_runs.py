"""Retires superfluous runs: an answer was lost, and the request that creates a run was sent again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow.entities import Run as MlflowRun
from mlflow.entities import RunTag

from aml_mirror.registries import keys
from aml_mirror.registries.azureml.version_tags import RETIRED

if TYPE_CHECKING:
    from aml_mirror.registries.azureml.workspace import AzureMLRegistry


def runs_with_identity(
    workspace: AzureMLRegistry, experiment_id: str, identity: str, model: str
) -> list[MlflowRun]:
    """Return the runs of one identity and model that a search shows, the oldest first."""
    runs = workspace.search_runs(experiment_id, keys.IDENTITY, identity)
    return [run for run in runs if run.data.tags.get(keys.MODEL_NAME) == model]


def retire(workspace: AzureMLRegistry, run: MlflowRun) -> None:
    """Hide a run from every search, and delete it if Azure ML allows that.

    Azure ML's older documentation describes deleting runs, the newer does not. So the run is first marked and
    closed, and then a refusal does no harm.
    """
    run_id = run.info.run_id
    marks = {keys.IDENTITY: f"{RETIRED}:{run_id}", keys.STATE: RETIRED}
    workspace.retry(
        lambda: workspace.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in marks.items()])
    )
    for end in ("close", "delete"):
        try:
            if end == "close":
                workspace.client.set_terminated(run_id, "KILLED")
            else:
                workspace.client.delete_run(run_id)
        except Exception:  # noqa: BLE001, S112 - it is marked, so it misleads nobody
            continue


def retire_others(workspace: AzureMLRegistry, run: MlflowRun) -> None:
    """Retire the runs that a lost answer made beside this one, if the search shows any by now."""
    tags = run.data.tags
    for other in runs_with_identity(
        workspace, run.info.experiment_id, tags[keys.IDENTITY], tags[keys.MODEL_NAME]
    ):
        if other.info.run_id != run.info.run_id:
            retire(workspace, other)
