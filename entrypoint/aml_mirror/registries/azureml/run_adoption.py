"""Continues the run that an earlier attempt began, or creates it: step 3 of :mod:`.workspace`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mlflow.entities import Run as MlflowRun

from aml_mirror.core.errors import ConfigurationError, DataError
from aml_mirror.registries import keys, run_times
from aml_mirror.registries.azureml.blob_lease import BlobLease
from aml_mirror.registries.azureml.known_versions import version_of_run
from aml_mirror.registries.azureml.retired_runs import retire, runs_with_identity
from aml_mirror.registries.azureml.retry_with_read_back import RetryWithReadBack
from aml_mirror.registries.azureml.service_client import single_attempt
from aml_mirror.registries.azureml.version_folder import VersionFolder, folder_in, folder_of
from aml_mirror.registries.azureml.version_tags import VERSION
from aml_mirror.registries.azureml.writer import AzureMLWriter
from aml_mirror.registries.mlflow_errors import is_missing
from aml_mirror.registries.mlflow_runs import lost_claim
from aml_mirror.registries.pinned_manifest import pinned_manifest
from aml_mirror.registries.records import Version

_OWN_TIME = f"the MLflow run has the time of the mirror, its tag {keys.TRAINED} that of the training"

if TYPE_CHECKING:
    from aml_mirror.registries.azureml.workspace import AzureMLRegistry


def take_up(
    workspace: AzureMLRegistry, experiment_id: str, run_name: str, tags: dict[str, str], claim: BlobLease
) -> AzureMLWriter | Version:
    """Return the writer of an identity's run, or its version if that is already complete.

    Args:
        workspace: the workspace of the run.
        experiment_id: the experiment for a new run.
        run_name, tags: name and tags of a new run.
        claim: a held claim.
    """
    model, identity = tags[keys.MODEL_NAME], tags[keys.IDENTITY]
    runs = _runs_now(workspace, experiment_id, identity, model, claim.run_id)
    _require_held(claim, tags)  # This mirror may have been suspended while it searched.
    for run in runs:
        version = version_of_run(workspace, run)
        if version is not None and version.complete:
            return _completed(workspace, run, version)
        if version is not None and _is_whole(workspace, version):
            marked = replace(version, tags={**version.tags, keys.STATE: keys.COMPLETE})
            workspace.models.tag(version, {keys.STATE: keys.COMPLETE})
            return _completed(workspace, run, marked)
        if version is not None:
            # Only the mark was missing, and a verified file changed since.
            claim.remember(str(run.info.run_id))
            folder = _folder(workspace, tags, version.number)
            return AzureMLWriter(workspace, run, claim, tags, True, version.number, folder)
    # A complete run counts wherever it is. Only a run of this experiment is continued.
    runs = [run for run in runs if run.info.experiment_id == experiment_id]
    if not runs and claim.waited:
        # The previous holder may have worked in another experiment.
        version = workspace.models.with_identity(model, identity)
        if version is not None and version.complete:
            return version
    intended = next((run.data.tags[VERSION] for run in runs if run.data.tags.get(VERSION)), None)
    while runs and not _reopen(workspace, runs[0], tags):
        runs = runs[1:]
    adopted, refused = bool(runs), False
    if not runs:
        runs, refused = _create(workspace, experiment_id, run_name, tags)
    claim.remember(str(runs[0].info.run_id))
    if claim.lost:
        # This mirror was suspended while the run was created. Another holds the claim: its run counts, and
        # ours must not stay.
        theirs = claim.remembered()
        for run in [] if adopted or not theirs else runs:
            if run.info.run_id != theirs:
                retire(workspace, run)
        _require_held(claim, tags)
    for other in runs[1:]:
        retire(workspace, other)
    intended = intended or workspace.orphans.get(identity)
    writer = AzureMLWriter(
        workspace, runs[0], claim, tags, adopted, intended, _folder(workspace, tags, intended)
    )
    if refused:
        writer.warnings.append(f"Azure ML refused a run that begins in the past: {_OWN_TIME}")
    elif not adopted and not run_times.is_kept(runs[0], tags):
        # Nothing is lost, and it applies to every run: no warning, and said only once.
        workspace.say_once(f"Azure ML keeps its own times of runs: {_OWN_TIME}")
    return writer


def _require_held(claim: BlobLease, tags: dict[str, str]) -> None:
    """Check that the claim is still ours.

    Raises:
        ServiceUnavailable: another mirror took it over.
    """
    if claim.lost:
        raise lost_claim(f"the mirror of {tags[keys.RUN_ID]}")


def _folder(workspace: AzureMLRegistry, tags: dict[str, str], intended: str | None) -> VersionFolder:
    """Return the folder of the version: the one that an earlier attempt registered wins."""
    begun = workspace.models.get(tags[keys.MODEL_NAME], intended) if intended else None
    if begun is not None and begun.tags.get(keys.IDENTITY) == tags[keys.IDENTITY]:
        named = folder_in(begun.path, {**begun.tags, keys.MODEL_NAME: begun.model})
        if named is not None:
            return named
    return folder_of(tags)


def _is_whole(workspace: AzureMLRegistry, version: Version) -> bool:
    """Tell whether the bytes of a version that lacks only the mark are still right."""
    reader = workspace.version_reader(version)
    marked = replace(version, tags={**version.tags, keys.STATE: keys.COMPLETE})
    try:
        return not reader.changed(pinned_manifest(marked, reader))
    except DataError:
        return False


def _completed(workspace: AzureMLRegistry, run: MlflowRun, version: Version) -> Version:
    """Close the run of a complete version. A mirror that was killed at its end left it open."""
    if run.info.status != "FINISHED":
        run_times.end_run(workspace.client, workspace.retry, run, run.data.tags)
    return version


def _runs_now(
    workspace: AzureMLRegistry, experiment_id: str, identity: str, model: str, known: str
) -> list[MlflowRun]:
    """Return the current runs of an identity: those that the search finds, and the one known by its id.

    Each is requested by its id, because a search may show an old state of a run. An earlier attempt's marks,
    such as the number of its version, decide what is written again.
    """
    ids = dict.fromkeys(
        str(run.info.run_id) for run in runs_with_identity(workspace, experiment_id, identity, model)
    )
    if known:
        ids.setdefault(known)
    found = (_run(workspace, run_id) for run_id in ids)
    runs = [
        run
        for run in found
        if run is not None
        and run.info.lifecycle_stage != "deleted"
        and run.data.tags.get(keys.IDENTITY) == identity
        and run.data.tags.get(keys.MODEL_NAME) == model
    ]
    return sorted(runs, key=lambda run: (run.info.run_id != known, *run_times.by_age(run)))


def _run(workspace: AzureMLRegistry, run_id: str) -> MlflowRun | None:
    try:
        return workspace.retry(lambda: workspace.client.get_run(run_id))
    except (ConfigurationError, DataError) as error:
        if not is_missing(error.__cause__):
            raise
        return None


def _reopen(workspace: AzureMLRegistry, run: MlflowRun, tags: dict[str, str]) -> bool:
    """Make an earlier attempt's run ours; False if Azure ML no longer allows writing to it."""
    if run.info.status != "RUNNING":
        workspace.notice(
            f"continuing the MLflow run {run.info.run_id}, which an earlier mirror left {run.info.status}"
        )
    try:
        workspace.update_tags(run, {key: value for key, value in tags.items() if key != keys.STATE})
        if run.info.status != "RUNNING":
            workspace.retry(lambda: workspace.client.update_run(run.info.run_id, "RUNNING"))
    except (ConfigurationError, DataError):
        retire(workspace, run)
        return False
    return True


def _create(
    workspace: AzureMLRegistry, experiment_id: str, run_name: str, tags: dict[str, str]
) -> tuple[list[MlflowRun], bool]:
    """Create a run. If an answer was lost, return all that were created, the one that counts first.

    The second value tells whether a run with a past time was refused, and one with the current time was
    created.
    """
    tags = {**tags, keys.BEGAN: run_times.as_tag(run_times.now())}
    start, refused = run_times.start_of(tags), False

    def look() -> list[MlflowRun]:
        return runs_with_identity(workspace, experiment_id, tags[keys.IDENTITY], tags[keys.MODEL_NAME])

    def send() -> list[MlflowRun]:
        with single_attempt():
            return [workspace.client.create_run(experiment_id, start, tags, run_name)]

    create = RetryWithReadBack(look, send)
    try:
        made: list[MlflowRun] = workspace.retry(create)
    except (ConfigurationError, DataError):
        if start is None:
            raise
        # The reason may be the past time. If not, this fails in the same way.
        start, refused = None, True
        create = RetryWithReadBack(look, send)
        made = workspace.retry(create)
    if create.was_lost:
        # Found only now: its answer was lost, and the search did not show it at once.
        seen = {run.info.run_id: run for run in made}
        for run in look():
            seen.setdefault(run.info.run_id, run)
        made = sorted(seen.values(), key=run_times.by_age)
    return made, refused
