"""Finds the versions of a run, and all versions of a model. The runs name them, and have the quick keys.

A finished run names its version, whose immutable identity is compared. The model's versions are searched only
if no run names one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from mlflow.entities import Run as MlflowRun

from aml_mirror.registries import keys
from aml_mirror.registries.azureml.version_folder import is_ours
from aml_mirror.registries.azureml.version_tags import VERSION, named_by, names_version
from aml_mirror.registries.records import Version

if TYPE_CHECKING:
    from aml_mirror.registries.azureml.workspace import AzureMLRegistry


def version_of_run(workspace: AzureMLRegistry, run: MlflowRun) -> Version | None:
    """Return the version that a finished run names, if it exists and belongs to this run."""
    tags = run.data.tags
    if not names_version(tags):
        return None
    return named_by(tags, workspace.models.get(tags[keys.MODEL_NAME], tags[VERSION]))


def versions_of(workspace: AzureMLRegistry, experiment: str, model: str, run_id: str) -> list[Version]:
    """Return the versions of a model that were mirrored from one run.

    Incomplete versions that were seen without their run are recorded in the workspace's ``orphans``.
    """
    found: list[Version] = []
    experiment_id = workspace.find_experiment(experiment)
    runs = workspace.search_runs(experiment_id, keys.RUN_ID, run_id) if experiment_id else []
    for run in runs:
        if run.data.tags.get(keys.MODEL_NAME) == model and (version := version_of_run(workspace, run)):
            found.append(version)
    if not found:
        # Only if there is no finished run may the version have been mirrored from elsewhere.
        found = workspace.models.of_run(model, run_id)
        begun = [item for item in found if not item.complete]
        workspace.orphans = {item.tags.get(keys.IDENTITY, ""): item.number for item in reversed(begun)}
    return found


def each_version_of(
    workspace: AzureMLRegistry, experiment: str, model: str, take: Callable[[Version], None]
) -> None:
    """Pass on every version of a model that is ours, with the quick key of its run."""
    seen: dict[str, tuple[str, str]] = {}
    if experiment_id := workspace.find_experiment(experiment):
        for run in workspace.each_run(experiment_id, keys.MODEL_NAME, model):
            tags = run.data.tags
            if names_version(tags):
                seen[tags[VERSION]] = (tags.get(keys.IDENTITY, ""), tags.get(keys.QUICK_KEY, ""))

    def with_key(version: Version) -> None:
        if not version.tags.get(keys.RUN_ID) or not is_ours(version):
            return
        identity, key = seen.get(version.number, ("", ""))
        if key and identity == version.tags.get(keys.IDENTITY):
            version = replace(version, tags={**version.tags, keys.QUICK_KEY: key})
        take(version)

    workspace.models.each(model, with_key)
