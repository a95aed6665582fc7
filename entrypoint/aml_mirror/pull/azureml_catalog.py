"""The models of an Azure ML workspace over its REST API, read-only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, TypeVar

from azure.core.rest import HttpRequest

from aml_mirror.core.errors import ConfigurationError, DataError, SourceNotFound
from aml_mirror.core.manifest import BlockDigests
from aml_mirror.pull.azure_files import AzureFiles
from aml_mirror.pull.files import Files
from aml_mirror.pull.reference import Reference
from aml_mirror.pull.resolved import ResolvedVersion
from aml_mirror.registries import keys
from aml_mirror.registries.azureml import block_list, stored_files
from aml_mirror.registries.azureml.coordinates import Coordinates
from aml_mirror.registries.azureml.model_service import ModelService, Properties, absence_allowed
from aml_mirror.registries.azureml.stage_entries import MAX_ENTRY_BYTES, entry_that_gave
from aml_mirror.registries.azureml.version_folder import datastore_path, folder_in
from aml_mirror.registries.azureml.version_tags import version_of
from aml_mirror.registries.records import Version
from aml_mirror.registries.stages import stages_of
from aml_mirror.storage import azure_errors
from aml_mirror.storage.azure_cloud import resource_manager
from aml_mirror.storage.azure_login import with_fresh_login
from aml_mirror.support.retry import Retry

T = TypeVar("T")

# azure-core's retry policy, below --retry-for; pauses and time-outs in seconds.
_PATIENCE: dict[str, Any] = {
    "retry_total": 3,
    "retry_backoff_factor": 0.5,
    "retry_backoff_max": 8,
    "connection_timeout": 20,
    "read_timeout": 60,
}
# The API version that azure-ai-ml 1.35.2 uses for datastores.
_DATASTORE_API = "2024-10-01-preview"


class AzureMLCatalog:
    """See :class:`aml_mirror.pull.resolved.Catalog`.

    Args:
        coordinates: the coordinates of the workspace.
        retry_seconds: how long an operation may keep failing for temporary reasons.
        notice: called with messages for the user while waiting.
        connections: how many requests to storage run at the same time.
    """

    def __init__(
        self,
        coordinates: Coordinates,
        retry_seconds: float,
        notice: Callable[[str], None],
        connections: int = 16,
    ) -> None:
        self.description = coordinates.description
        self._scope = coordinates.scope
        self._retry = Retry(
            retry_seconds, lambda error: azure_errors.translate(error, self.description), notice
        )
        self._service = ModelService(coordinates, _PATIENCE)
        self._connections = connections

    def find(self, reference: Reference) -> list[ResolvedVersion]:
        """See :meth:`aml_mirror.pull.resolved.Catalog.find`."""
        if reference.number:
            found = self._get(reference.model, reference.number)
            return [self._resolved(reference.model, reference.number, found)] if found else []
        models = [reference.model] if reference.model else self._call(lambda: list(self._service.models()))
        versions = [self._resolved(model, *each) for model in models for each in self._versions(model)]
        if reference.stage:
            return self._holder(reference, versions)
        return [one for one in versions if one.version.tags.get(keys.RUN_ID) == reference.run_id]

    def _holder(self, reference: Reference, versions: list[ResolvedVersion]) -> list[ResolvedVersion]:
        """Return the version that has a stage, by the same rule as ``promote`` and ``history``."""
        marked = [one for one in versions if reference.stage in stages_of(one.tags)]
        if not marked:
            return []
        journal = self.open(self._default_datastore(), "")
        # If there are several, which an interrupted promotion may leave for a while, the last one counts.
        found = {
            entry.sequence: one
            for one in marked
            if (
                entry := entry_that_gave(
                    one.version, reference.stage, lambda name: journal.small(name, MAX_ENTRY_BYTES)
                )
            )
        }
        if not found:
            named = ", ".join(f"{one.version.model}:{one.version.number}" for one in marked)
            raise DataError(
                f"{named} has the tag of the stage {reference.stage}, but the stage's journal has no entry "
                "for it: somebody wrote the tag by hand",
                "give the stage with 'aml-mirror promote', or pull NAME:VERSION",
            )
        return [found[max(found)]]

    def _default_datastore(self) -> str:
        url = f"{resource_manager()}{self._scope}/datastores?api-version={_DATASTORE_API}&isDefault=true"
        answer = self._call(lambda: self._service.send(HttpRequest("GET", url)))
        for found in answer.get("value") or ():
            self._datastores[str(found["name"])] = found["properties"]
            return str(found["name"])
        raise ConfigurationError(
            f"{self.description} has no default datastore", "the journal of the stages is there"
        )

    def _get(self, model: str, number: str) -> Properties | None:
        return self._call(lambda: self._service.version_if_any(model, number))

    def _versions(self, model: str) -> list[tuple[str, Properties]]:
        def read() -> list[tuple[str, Properties]]:
            with absence_allowed():
                return list(self._service.versions(model))
            return []

        return self._call(read)

    def _call(self, operation: Callable[[], T]) -> T:
        return self._retry(lambda: with_fresh_login(operation))

    def _resolved(self, model: str, number: str, found: Properties) -> ResolvedVersion:
        archived = bool(found.get("isArchived"))
        tags, properties = found.get("tags") or {}, found.get("properties") or {}
        version = version_of(model, number, tags, properties, found.get("modelUri"), archived)
        return ResolvedVersion(
            version=version,
            tags={str(name): str(text) for name, text in tags.items()},
            properties={str(name): str(text) for name, text in properties.items()},
            registry=self.description,
            pinned_by="a property of the version, documented as immutable",
            places=_Places(self, version),
        )

    def open(self, datastore: str, folder: str) -> AzureFiles:
        """Return the files of a folder of a datastore.

        Raises:
            ConfigurationError: there is no such datastore, or it is not blob storage.
        """
        found = self._datastores.get(datastore)
        if found is None:
            url = f"{resource_manager()}{self._scope}/datastores/{datastore}?api-version={_DATASTORE_API}"
            answer = self._call(lambda: self._service.send(HttpRequest("GET", url)))
            found = self._datastores[datastore] = answer["properties"]
        kind, container = found.get("datastoreType"), found.get("containerName") or found.get("filesystem")
        if kind not in ("AzureBlob", "AzureDataLakeGen2") or not container:
            raise ConfigurationError(
                f"the datastore {datastore} of {self.description} is {kind}, not blob storage",
                "download the version with az ml model download",
            )
        # Every account with a hierarchical namespace also answers blob requests.
        host = f"https://{found['accountName']}.blob.{found.get('endpoint') or 'core.windows.net'}"
        return AzureFiles(host, container, folder, self._retry, self._connections)

    @cached_property
    def _datastores(self) -> dict[str, dict[str, Any]]:
        return {}


class _Places:
    """See :class:`aml_mirror.pull.resolved.Places`."""

    def __init__(self, catalog: AzureMLCatalog, version: Version) -> None:
        self._catalog = catalog
        self._version = version
        self._folder = folder_in(version.path, {**version.tags, keys.MODEL_NAME: version.model})

    @cached_property
    def files(self) -> Files:
        place = datastore_path(self._version.path)
        if place is None:
            raise SourceNotFound(
                f"version {self._version.number} of {self._version.model} has the path "
                f"{self._version.path or '(none)'}, which is in no datastore of {self._catalog.description}",
                "download it with az ml model download",
            )
        return self._catalog.open(*place)

    def artifacts(self, name: str, limit: int) -> Iterator[bytes]:
        if self._folder is None:
            return
        files = self.files
        assert isinstance(files, AzureFiles)  # noqa: S101 - for the type checker
        if data := files.sibling(self._folder.own).small(name, limit):
            yield data

    def own_digests(self) -> dict[str, str]:
        digest = stored_files.digest_in(self._version.tags)
        if self._folder is None or not digest:
            return {}
        files = self.files
        assert isinstance(files, AzureFiles)  # noqa: S101 - for the type checker
        folder, _, name = stored_files.name_of(self._folder, digest).rpartition("/")
        listed = stored_files.parse(files.sibling(folder).small(name, stored_files.MAX_BYTES), digest)
        # A list without its digest counts as none. 'aml-mirror verify' reports that it is lost.
        return dict(listed.own) if listed else {}

    def blocks(self) -> dict[str, tuple[int, BlockDigests]]:
        digest = self._version.tags.get(block_list.BLOCKS_SHA256, "")
        if self._folder is None or not digest:
            return {}
        files = self.files
        assert isinstance(files, AzureFiles)  # noqa: S101 - for the type checker
        folder, _, name = block_list.blob_name(self._folder, digest).rpartition("/")
        return block_list.parse(files.sibling(folder).small(name, block_list.MAX_BYTES), digest)

    @cached_property
    def is_ours(self) -> bool:
        return self._folder is not None
