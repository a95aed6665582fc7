"""What a version of an Azure ML model holds: blobs in a datastore, and the artifacts of its run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from azure.core.exceptions import HttpResponseError
from azure.storage.blob import ContainerClient

from aml_mirror.core.errors import ConfigurationError, DataError, MirrorError
from aml_mirror.registries import base
from aml_mirror.registries.azureml.run_artifacts import Refused, RunArtifacts, numbered
from aml_mirror.registries.azureml.version_tags import ARTIFACTS
from aml_mirror.registries.base import FileDigest, Version
from aml_mirror.registries.file_digests import hashed
from aml_mirror.registries.mlflow_errors import is_missing
from aml_mirror.storage import azure_errors as azure_errors
from aml_mirror.storage.blob_client import container_client, metadata_of

if TYPE_CHECKING:
    from aml_mirror.registries.azureml.workspace import AzureMLRegistry

# Blobs of a version, most of them extra: more is not listed to its end.
MAX_LISTED = 100_000
# An artifact of an earlier, killed try may keep its name; this one's then has the next.
MOST_NAMES = 5


class AzureMLVersionReader:
    """See :class:`aml_mirror.registries.base.VersionReader`."""

    pinned_by = "a property of the version, which cannot be changed"

    def __init__(self, workspace: AzureMLRegistry, version: Version) -> None:
        self._workspace = workspace
        self._version = version
        path = workspace.models.path_of(version)
        found = re.search(r"/?datastores/([^/]+)/paths/(.+)", path)
        if not found:
            raise DataError(
                f"version {version.number} of {version.model} does not lie in a datastore, but at {path}",
                "it was not made by aml-mirror: mirror its run",
            )
        self._prefix = found[2].strip("/") + "/"
        self._container = self._container_of(found[1])

    def _container_of(self, name: str) -> ContainerClient:
        azure = self._workspace.azure
        if name == azure.datastore.name:
            return azure.container
        from azure.ai.ml.entities import AzureBlobDatastore

        # The workspace has another default now.
        store = azure.retry(lambda: azure.ml.datastores.get(name))
        if not isinstance(store, AzureBlobDatastore):
            raise ConfigurationError(
                f"the datastore {name} is {store.type}, not blob storage", "mirror the run again"
            )
        url = f"https://{store.account_name}.blob.{store.endpoint}"
        return container_client(url, str(store.container_name))

    def artifacts(self, name: str, limit: int) -> Iterator[bytes]:
        run_id = self._version.tags.get(base.MLFLOW_RUN_ID, "")
        try:
            run = self._workspace.retry(lambda: self._workspace.client.get_run(run_id))
        except MirrorError as error:
            if is_missing(error.__cause__):
                return
            raise
        service: RunArtifacts | None = RunArtifacts(
            self._workspace.azure, run.info.artifact_uri or "", run.info.experiment_id, run_id
        )
        beside = str(run.data.tags.get(ARTIFACTS, "")).partition("/paths/")[2].strip("/")
        if beside and (data := self._beside(f"{beside}/{name}", limit)):
            yield data
        for number in range(1, MOST_NAMES + 1):
            path = name if number == 1 else numbered(name, number)
            try:
                data = service.read(path, limit) if service else None
            except Refused:
                return
            if data is None and number > 1:
                return
            if data is not None:
                yield data

    def _beside(self, path: str, limit: int) -> bytes | None:
        blob = self._workspace.azure.container.get_blob_client(path)

        def read() -> bytes | None:
            try:
                if blob.get_blob_properties().size > limit:
                    return None
                return bytes(blob.download_blob(max_concurrency=1).readall())
            except HttpResponseError as error:
                if azure_errors.is_missing(error):
                    return None
                raise

        return self._workspace.retry(read)

    def files(self) -> dict[str, int | None]:
        def read() -> dict[str, int | None]:
            found: dict[str, int | None] = {}
            for blob in self._container.list_blobs(name_starts_with=self._prefix, include=["metadata"]):
                path = str(blob.name)[len(self._prefix) :]
                metadata = metadata_of(blob)
                if path.endswith("/") or metadata.get("hdi_isfolder", "").lower() == "true":
                    continue
                found[path] = int(blob.size)
                if len(found) > MAX_LISTED:
                    raise DataError(
                        f"the version holds over {MAX_LISTED:,} files", "look at what was put there"
                    )
            return found

        return self._workspace.retry(read)

    def hashed(self, path: str) -> FileDigest:
        blob = self._container.get_blob_client(self._prefix + path)
        # The client reads a blob in ranges of 4 MiB, each bound to the ETag of the first.
        return self._workspace.retry(lambda: hashed(blob.download_blob(max_concurrency=1).chunks()))
