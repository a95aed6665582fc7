"""Finds what this program left in a workspace: see :class:`aml_mirror.registries.leftovers.Leftovers`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobClient, BlobLeaseClient
from mlflow.entities import LifecycleStage

from aml_mirror.core.errors import MirrorError
from aml_mirror.registries import keys
from aml_mirror.registries.azureml.blob_lease import BlobLease
from aml_mirror.registries.azureml.limits import FOLDER, safe_part
from aml_mirror.registries.azureml.prune_mark import prune_mark
from aml_mirror.registries.azureml.version_folder import datastore_path
from aml_mirror.registries.azureml.version_tags import RETIRED, VERSION
from aml_mirror.registries.leftover_runs import is_as_listed, runs_left
from aml_mirror.registries.leftovers import FOLDER as FOLDER_KIND
from aml_mirror.registries.leftovers import (
    RUN,
    STAGING,
    Leftover,
    RunLeft,
    StagingLeft,
    StoredBlob,
    Survey,
)
from aml_mirror.registries.mlflow_errors import is_missing
from aml_mirror.registries.records import Version
from aml_mirror.storage import azure_errors
from aml_mirror.transfer.staging_folder import STAGING as STAGING_FOLDER
from aml_mirror.transfer.staging_folder import remove_staging_folder, staging_folders

if TYPE_CHECKING:
    from aml_mirror.registries.azureml.workspace import AzureMLRegistry

_CHANGED = "it changed meanwhile"
_IN_USE = "a mirror is working on it"
_MARKED = "another prune is working on it, or was half a minute ago: run prune again"
_LEASED = (
    *("LeaseIdMissing", "LeaseAlreadyPresent", "LeaseIsBreakingAndCannotBeAcquired"),
    *("LeaseLost", "LeaseNotPresentWithBlobOperation", "LeaseIdMismatchWithBlobOperation"),
)
# How long a delete may be under way: the shortest lease of a blob, in seconds (Learn, "Lease Blob").
_DELETE_SECONDS = 15
# For the drift between two clocks, here and at the service, during a lease.
_MARGIN_SECONDS = 1


class AzureMLLeftovers:
    """Args:
    workspace: the workspace to search.
    """

    def __init__(self, workspace: AzureMLRegistry) -> None:
        self._workspace = workspace
        self._etags: dict[str, str] = {}
        self._runs: dict[str, RunLeft] = {}

    def survey(self) -> Survey:
        workspace = self._workspace
        # Blobs first: anything mirrored meanwhile has its version in the list that is read next.
        blobs = tuple(self._blobs())
        staging = tuple(
            StagingLeft(one.name, one.files, one.bytes, one.idle_seconds)
            for one in staging_folders(workspace.requests(), FOLDER)
        )
        runs = tuple(runs_left(workspace))
        self._runs = {run.run_id: run for run in runs}
        versions = tuple(self._versions())
        return Survey(
            versions,
            runs,
            blobs,
            staging,
            (f"only {FOLDER}/ in the default datastore ({workspace.azure.datastore.name}) is searched",),
        )

    def _versions(self) -> Iterator[Version]:
        found: dict[tuple[str, str], Version] = {}
        for model in self._workspace.models.names():
            self._workspace.models.each(
                model, lambda version: found.update({(version.model, version.number): version})
            )
        yield from found.values()

    def _blobs(self) -> Iterator[StoredBlob]:
        workspace, now = self._workspace, datetime.now(UTC)
        listed = workspace.retry(
            lambda: list(workspace.azure.container.list_blobs(name_starts_with=f"{FOLDER}/"))
        )
        for blob in listed:
            name = str(blob.name)
            if name.startswith(f"{FOLDER}/{STAGING_FOLDER}/"):
                continue
            self._etags[name] = str(blob.etag)
            age = (now - blob.last_modified).total_seconds() if blob.last_modified else 0.0
            is_leased = str(getattr(blob.lease, "state", "") or "") not in (
                "",
                "available",
                "expired",
                "broken",
            )
            yield StoredBlob(name, int(blob.size or 0), max(0.0, age), is_leased)

    def remove(self, item: Leftover) -> str:
        if item.kind == STAGING:
            remove_staging_folder(self._workspace.requests(), item.name)
            return ""
        if item.kind == RUN:
            return self._remove_run(item)
        if item.kind == FOLDER_KIND:
            return self._remove_folder(item)
        return self._delete(item.name)

    def _remove_folder(self, item: Leftover) -> str:
        """Remove a folder while holding the mark and its claims: nobody writes there, or begins to."""
        workspace = self._workspace
        container = workspace.azure.container
        with ExitStack() as stack:
            held: list[BlobLease] = []

            def holds(lease: BlobLease) -> bool:
                if not lease.try_acquire():
                    return False
                stack.callback(lease.release)
                held.append(lease)
                return True

            # First the mark: from now on, a model that has no claim yet waits, or is among the claims.
            mark = prune_mark(container, item.identity, workspace.retry, workspace.notice)
            if not holds(mark):
                return _MARKED
            claims = self._claims(item)
            for name in sorted(claims):
                claim = BlobLease(container.get_blob_client(name), workspace.retry, workspace.notice)
                if not holds(claim):
                    return _IN_USE
            versions = [*self._versions_of(item, claims), *self._remembered(held)]
            if any(_is_in(version, item.name) for version in versions):
                return "a version has it now"
            names = sorted(name for name in self._etags if name.startswith(f"{item.name}/"))
            for name in names:
                if any(lease.lost for lease in held):
                    return _IN_USE
                if why := self._delete(name, mark):
                    return why
            if not any(version.tags.get(keys.IDENTITY) == item.identity for version in versions):
                for lease in held:
                    # Once it is released, a claim that remembers no run is deleted.
                    lease.run_id = ""
        return ""

    def _claims(self, item: Leftover) -> set[str]:
        """The claims on a folder's identity: the existing ones, and those of the models that began it."""
        prefix = f"{FOLDER}/claims/{item.identity}/"
        container = self._workspace.azure.container
        listed = self._workspace.retry(lambda: list(container.list_blobs(name_starts_with=prefix)))
        return {f"{prefix}{safe_part(model)}" for model in item.models} | {str(blob.name) for blob in listed}

    def _versions_of(self, item: Leftover, claims: set[str]) -> list[Version]:
        """The current versions of the models that began a folder or have a claim on it."""
        parts = {name.rpartition("/")[2] for name in claims}
        models = {
            *item.models,
            *(name for name in self._workspace.models.names() if safe_part(name) in parts),
        }
        versions: list[Version] = []
        for model in sorted(models):
            self._workspace.models.each(model, versions.append)
        return versions

    def _remembered(self, claims: list[BlobLease]) -> Iterator[Version]:
        """The versions of the runs that held claims remember. A list may not show them yet."""
        workspace = self._workspace
        for run_id in filter(None, (claim.run_id for claim in claims)):
            try:
                tags = workspace.retry(lambda run_id=run_id: workspace.client.get_run(run_id)).data.tags  # type: ignore[misc]
            except MirrorError as error:
                if not is_missing(error.__cause__):
                    raise
                continue
            if tags.get(VERSION) and tags.get(keys.MODEL_NAME):
                version = workspace.models.get(tags[keys.MODEL_NAME], tags[VERSION])
                if version is not None:
                    yield version

    def _delete(self, name: str, mark: BlobLease | None = None) -> str:
        """Delete a blob that is still as it was listed. If it stays, return the reason.

        Args:
            mark: the held mark. None if nothing will use the deleted blob again.
        """
        blob = self._workspace.azure.container.get_blob_client(name)
        unchanged: dict[str, Any] = {
            "etag": self._etags[name],
            "match_condition": MatchConditions.IfNotModified,
        }
        # The same for each attempt, so a request whose answer was lost can be repeated.
        lease = BlobLeaseClient(blob, lease_id=str(uuid.uuid4()))

        def delete() -> str:
            try:
                if mark is None:
                    blob.delete_blob(**unchanged)
                else:
                    return self._delete_leased(blob, lease, mark, unchanged)
            except HttpResponseError as error:
                if azure_errors.is_missing(error):
                    return ""
                if azure_errors.code_of(error) in _LEASED:
                    return _IN_USE
                if azure_errors.is_changed(error):
                    # A condition also fails if the blob does not exist.
                    return _CHANGED if blob.exists() else ""
                raise
            return ""

        return self._workspace.retry(delete)

    @staticmethod
    def _delete_leased(
        blob: BlobClient, lease: BlobLeaseClient, mark: BlobLease, unchanged: dict[str, Any]
    ) -> str:
        """Delete a blob if the request arrives before its own lease ends, which is before the mark's."""
        lease.acquire(_DELETE_SECONDS, **unchanged)
        if not mark.outlasts(_DELETE_SECONDS + _MARGIN_SECONDS):
            lease.release()
            return _IN_USE
        blob.delete_blob(lease=lease, **unchanged)
        return ""

    def _remove_run(self, item: Leftover) -> str:
        """Delete a run while holding its claim, so that no mirror continues it meanwhile."""
        tags = self._runs[item.name].tags
        if tags.get(keys.STATE) == RETIRED:
            return self._delete_run(item)  # No mirror continues it.
        claim = self._workspace.claim(Version(tags[keys.MODEL_NAME], "", dict(tags)))
        if not claim.try_acquire():
            return _IN_USE
        try:
            why = self._delete_run(item, claim)
            if not why and claim.run_id == item.name:
                # Once it is released, a claim that remembers no run is deleted.
                claim.run_id = ""
            return why
        finally:
            claim.release()

    def _delete_run(self, item: Leftover, claim: BlobLease | None = None) -> str:
        client = self._workspace.client
        run = self._workspace.retry(lambda: client.get_run(item.name))
        if run.info.lifecycle_stage == LifecycleStage.DELETED:
            return ""
        if not is_as_listed(run, self._runs[item.name]):
            return _CHANGED
        if claim is not None and claim.lost:
            return _IN_USE
        try:
            self._workspace.retry(lambda: client.delete_run(item.name))
        except MirrorError as error:
            # Only older pages document whether runs may be deleted.
            return f"Azure ML does not delete it: {error.message}"
        return ""


def _is_in(version: Version, folder: str) -> bool:
    """Tell whether a version points into a folder."""
    place = datastore_path(version.path)
    return place is not None and f"{place[1]}/".startswith(f"{folder}/")
