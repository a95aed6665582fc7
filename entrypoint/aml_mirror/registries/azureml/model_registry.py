"""An Azure ML registry, which shares models between workspaces, over its REST API.

The requests are those of azure-ai-ml 1.35.2 (``operations/_model_operations.py``, ``share``;
``_utils/_registry_utils.py``). Discovery returns the address of the registry's service. ``import`` takes the
id of a model version in a workspace, and the service copies it, as a long-running operation. ``datarefs``
returns a SAS for the files of a version. The SDK's own ``share`` is not used. If the operation answers with a
body, it continues and uploads something, and it reports any existing version as invalid. No registry was ever
reached from here: see tests/azure/README.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from azure.core import PipelineClient
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline import policies
from azure.core.polling import LROPoller
from azure.core.rest import HttpRequest
from azure.mgmt.core.polling.arm_polling import ARMPolling
from azure.storage.blob import ContainerClient

from aml_mirror.core.errors import (
    ConfigurationError,
    DataError,
    MirrorError,
    NotAllowed,
    ServiceUnavailable,
)
from aml_mirror.registries.azureml.service_client import PATIENCE, AzureML
from aml_mirror.registries.azureml.version_tags import version_of
from aml_mirror.registries.file_digests import hashed
from aml_mirror.registries.records import FileDigest, Version
from aml_mirror.storage import azure_errors
from aml_mirror.storage.azure_cloud import blob_suffix
from aml_mirror.storage.azure_login import credential
from aml_mirror.support.library_internals import registry_discovery_endpoint
from aml_mirror.support.retry import Retry

if TYPE_CHECKING:
    from aml_mirror.registries.azureml.workspace import AzureMLRegistry

API_VERSION = "2021-10-01-dataplanepreview"
_WORKSPACE_API = "2024-10-01-preview"
# Seconds between two polls of the copy, unless the service says how many.
POLL_SECONDS = 5.0


class ModelRegistry:
    """See :class:`aml_mirror.registries.base.Sharing`.

    Args:
        workspace: the workspace of the shared versions.
        name: the name of the registry.
    """

    def __init__(self, workspace: AzureMLRegistry, name: str) -> None:
        self._azure: AzureML = workspace.azure
        self._name = name
        self._retry: Retry = workspace.retry.with_translation(self._translate)
        self.description = f"the Azure ML registry {name}"

    def uri(self, version: Version) -> str:
        return f"azureml://registries/{self._name}/models/{version.model}/versions/{version.number}"

    def find(self, model: str, number: str) -> Version | None:
        def get() -> Version | None:
            try:
                found = self._send(HttpRequest("GET", self._url(f"models/{_part(model)}/versions/{number}")))
            except HttpResponseError as error:
                if azure_errors.is_missing(error):
                    return None
                raise
            said = found.get("properties") or {}
            return version_of(
                model,
                number,
                said.get("tags"),
                said.get("properties"),
                said.get("modelUri"),
                bool(said.get("isArchived")),
            )

        return self._retry(get)

    def send(self, version: Version) -> None:
        said = self._workspace
        body = import_request(version, str(said["location"]), str(said["properties"]["workspaceId"]))

        def run() -> None:
            try:
                raw = self._client._pipeline.run(  # noqa: SLF001 - azure-core's own pollers begin with this
                    HttpRequest("POST", self._url("import"), json=body), stream=False
                )
                raw.http_response.raise_for_status()
                LROPoller(self._client, raw, lambda response: response, ARMPolling(POLL_SECONDS)).result()
            except HttpResponseError as error:
                # 409: the version exists, or an import whose answer was lost is under way.
                if error.status_code != 409:
                    raise
            if self.find(version.model, version.number) is None:
                raise ServiceUnavailable(
                    f"{self.description} does not show {version.model} version {version.number} yet",
                    "run the same command again",
                )

        self._retry(run)

    def files(self, version: Version) -> dict[str, int]:
        container, prefix = self._place(version)
        return self._retry(lambda: dict(_listed(container, prefix)))

    def hashed(self, version: Version, path: str) -> FileDigest:
        container, prefix = self._place(version)

        def read() -> FileDigest:
            return hashed(container.get_blob_client(prefix + path).download_blob(max_concurrency=1).chunks())

        return self._retry(read)

    def _place(self, version: Version) -> tuple[ContainerClient, str]:
        """Return the container of a version and the path in it, with a SAS from the registry.

        Raises:
            DataError: the version points to something other than the cloud's blob storage.
        """
        parts = urlsplit(version.path)
        if parts.scheme != "https" or not str(parts.hostname).endswith(f".blob.{blob_suffix()}"):
            raise DataError(
                f"{version.model} version {version.number} in {self.description} points to "
                f"{version.path or 'nothing'}, not to blob storage",
                "look at it in Azure ML studio",
            )
        body = {"assetId": self.uri(version), "blobUri": version.path}
        path = f"datarefs/{_part(version.model)}/versions/{version.number}"
        found = self._retry(lambda: self._send(HttpRequest("POST", self._url(path), json=body)))
        said = found.get("blobReferenceForConsumption") or {}
        sas = str((said.get("credential") or {}).get("sasUri") or "")
        _, _, rest = parts.path.partition("/")
        name, _, prefix = rest.partition("/")
        query = urlsplit(sas).query
        client = ContainerClient(
            f"https://{parts.hostname}", name, credential=query or credential(), retry_total=3
        )
        return client, f"{prefix.strip('/')}/"

    @cached_property
    def _workspace(self) -> dict[str, Any]:
        manager = self._azure.arm_scope.removesuffix("/.default")
        url = f"{manager}{self._azure.coordinates.scope}?api-version={_WORKSPACE_API}"
        return self._retry(lambda: self._send(HttpRequest("GET", url)))

    @cached_property
    def _discovered(self) -> dict[str, Any]:
        endpoint = self._retry(registry_discovery_endpoint).rstrip("/")
        url = f"{endpoint}/registrymanagement/v1.0/registries/{_part(self._name)}/discovery"
        try:
            found = self._retry(lambda: self._send(HttpRequest("GET", url)))
        except MirrorError as error:
            if not azure_errors.is_missing(error.__cause__):
                raise
            raise ConfigurationError(
                f"there is no Azure ML registry {self._name}, or this identity has no access to it",
                "check --registry; it needs the role 'AzureML Registry User'",
            ) from error
        if not found.get("primaryRegionResourceProviderUri"):
            raise ServiceUnavailable(f"{self.description} was not discovered: no address", azure_errors.AGAIN)
        return found

    def _url(self, path: str) -> str:
        said = self._discovered
        return (
            f"{str(said['primaryRegionResourceProviderUri']).rstrip('/')}/mferp/managementfrontend"
            f"/subscriptions/{said['subscriptionId']}/resourceGroups/{said['resourceGroup']}"
            f"/providers/Microsoft.MachineLearningServices/registries/{_part(self._name)}/{path}"
            f"?api-version={API_VERSION}"
        )

    def _send(self, request: HttpRequest) -> dict[str, Any]:
        request.headers["Accept"] = "application/json"
        response = self._client.send_request(request)
        response.raise_for_status()
        found = response.json() if response.content else {}
        return found if isinstance(found, dict) else {}

    @cached_property
    def _client(self) -> PipelineClient[Any, Any]:
        scope = self._azure.arm_scope
        return PipelineClient(
            scope.removesuffix("/.default"),
            policies=[
                policies.RequestIdPolicy(),
                policies.HeadersPolicy(),
                policies.UserAgentPolicy("aml-mirror"),
                policies.RetryPolicy(**PATIENCE),
                policies.BearerTokenCredentialPolicy(credential(), scope),
            ],
            **PATIENCE,
        )

    def _translate(self, error: Exception) -> MirrorError:
        found = self._azure.translate(error)
        if isinstance(found, NotAllowed):
            found.hint = (
                "grant this identity 'AzureML Registry User' on the registry; a new assignment takes up to "
                "ten minutes to work"
            )
        return found


def import_request(version: Version, location: str, workspace_id: str) -> dict[str, Any]:
    """Return the body of a request that imports a version into a registry, with its name and number.

    Args:
        version: a version of a workspace.
        location, workspace_id: of that workspace, as the service reports them.
    """
    source = (
        f"azureml://locations/{location}/workspaces/{workspace_id}/models/{version.model}/versions/"
        f"{version.number}"
    )
    return {
        "properties": {
            "referenceType": "Id",
            "destinationName": version.model,
            "destinationVersion": version.number,
            "sourceAssetId": source,
        }
    }


def _listed(container: ContainerClient, prefix: str) -> Iterator[tuple[str, int]]:
    for blob in container.list_blobs(name_starts_with=prefix):
        path = str(blob.name)[len(prefix) :]
        if path and not path.endswith("/"):
            yield path, int(blob.size or 0)


def _part(text: str) -> str:
    return quote(text, safe="")
