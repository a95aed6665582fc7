"""What a version of an Azure ML model holds: blobs in a datastore, and the artifacts of its run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from azure.core.exceptions import HttpResponseError
from azure.storage.blob import ContainerClient

from aml_mirror.core.errors import DataError, MirrorError
from aml_mirror.registries import base
from aml_mirror.registries.azureml.run_artifacts import Refused, RunArtifacts, numbered
from aml_mirror.registries.azureml.version_folder import datastore_path, folder_in
from aml_mirror.registries.azureml.version_tags import ARTIFACTS
from aml_mirror.registries.base import FileDigest, Version
from aml_mirror.registries.file_digests import hashed
from aml_mirror.registries.mlflow_errors import is_missing
from aml_mirror.storage import azure_errors as azure_errors
from aml_mirror.storage.blob_client import metadata_of

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
        folder = folder_in(version.path, {**version.tags, base.MODEL_NAME: version.model})
        if folder is None:
            raise DataError(
                f"version {version.number} of {version.model} was not made by aml-mirror: its path is "
                f"{version.path}, which is no folder of its run, checkpoint and manifest",
                "do not use it as the mirror of a run; mirror the run again",
            )
        self._folder = folder
        self._prefix = f"{folder.bytes}/"
        # Of the datastore that the path names: the workspace may have another default now.
        self._container = workspace.azure.container_of(folder.datastore)

    def artifacts(self, name: str, limit: int) -> Iterator[bytes]:
        if data := self._blob(self._container, f"{self._folder.own}/{name}", limit):
            yield data
        yield from self._of_run(name, limit)

    def _of_run(self, name: str, limit: int) -> Iterator[bytes]:
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
        if place := datastore_path(run.data.tags.get(ARTIFACTS, "")):
            container = self._workspace.azure.container_of(place[0])
            if data := self._blob(container, f"{place[1]}/{name}", limit):
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

    def _blob(self, container: ContainerClient, path: str, limit: int) -> bytes | None:
        blob = container.get_blob_client(path)

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
