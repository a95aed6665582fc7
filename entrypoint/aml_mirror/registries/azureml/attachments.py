"""Adds something to a complete version: see :meth:`aml_mirror.registries.base.Registry.attach`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from aml_mirror.core.errors import ConfigurationError, DataError, MirrorError
from aml_mirror.registries import keys
from aml_mirror.registries.attached_marks import ATTACHED, attached_marks, mark_of, marks_with
from aml_mirror.registries.azureml.log_batch import log_batch
from aml_mirror.registries.azureml.retry_with_read_back import RetryWithReadBack
from aml_mirror.registries.azureml.service_client import single_attempt
from aml_mirror.registries.azureml.version_files import VersionFiles
from aml_mirror.registries.azureml.version_folder import folder_in
from aml_mirror.registries.mlflow_errors import is_missing
from aml_mirror.registries.mlflow_runs import lost_claim
from aml_mirror.registries.records import Point, Version
from aml_mirror.storage import azure_errors

if TYPE_CHECKING:
    from aml_mirror.registries.azureml.workspace import AzureMLRegistry

T = TypeVar("T")


def attach(
    workspace: AzureMLRegistry,
    version: Version,
    name: str,
    text: str,
    points: Sequence[Point],
    tags: dict[str, str],
) -> list[str]:
    """See :meth:`aml_mirror.registries.base.Registry.attach`.

    Raises:
        DataError: the version was replaced meanwhile.
    """
    claim = workspace.claim(version)
    claim.acquire()

    def require_allowed() -> None:
        if claim.lost:
            raise lost_claim(f"version {version.number} of {version.model}")

    def guarded(operation: Callable[[], T], /) -> T:
        def attempt() -> T:
            require_allowed()
            return operation()

        with single_attempt():
            return workspace.retry(attempt)

    try:
        now = workspace.models.get(version.model, version.number)
        same = now is not None and now.tags.get(keys.IDENTITY) == version.tags.get(keys.IDENTITY)
        folder = folder_in(now.path, {**now.tags, keys.MODEL_NAME: now.model}) if now and same else None
        if now is None or folder is None:
            raise DataError(
                f"version {version.number} of {version.model} no longer exists or was replaced",
                "nothing was attached: look at the versions of the model, then run the command again",
            )
        files = VersionFiles(workspace.azure.container_of(folder.datastore), folder, guarded)
        files.put(name, text.encode())
        warnings = _send(workspace, now, mark_of(tags), points, guarded)
        workspace.models.tag(now, tags, require_allowed)
        return warnings
    finally:
        claim.release()


def _send(
    workspace: AzureMLRegistry,
    version: Version,
    mark: str,
    points: Sequence[Point],
    guarded: Callable[[Callable[[], object]], object],
) -> list[str]:
    """Send points to the run of a version, once. If the run does not accept them, return the reason."""
    if not points:
        return []
    client, run_id = workspace.client, version.tags.get(keys.MLFLOW_RUN_ID, "")

    def marks() -> list[str]:
        return attached_marks(client.get_run(run_id).data.tags)

    def send() -> bool:
        log_batch(client, run_id, points, {ATTACHED: marks_with(marks(), mark)})
        return True

    try:
        if guarded(lambda: mark in marks()):
            return []
        guarded(RetryWithReadBack(lambda: mark in marks(), send))
    except (ConfigurationError, DataError) as error:
        return [f"the metrics were not written to the run {run_id}: {_why(error)}"]
    return []


def _why(error: MirrorError) -> str:
    if is_missing(error.__cause__) or azure_errors.is_missing(error.__cause__):
        return "it no longer exists"
    return error.message
