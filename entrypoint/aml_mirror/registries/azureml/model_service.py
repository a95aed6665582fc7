"""The model service of an Azure ML workspace over its REST API, with only what a mirror needs.

azure-ai-ml's own model entity does not keep whether a version is archived. It sends ``isArchived: false``
with every change, which restores a version that somebody archived (recorded in its tests,
``archive_restore``). Here a change sends back what the service returned, with only the changed fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode

from azure.core import PipelineClient
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline import policies
from azure.core.rest import HttpRequest

from aml_mirror.registries.azureml.coordinates import Coordinates
from aml_mirror.storage import azure_errors
from aml_mirror.storage.azure_cloud import resource_manager
from aml_mirror.storage.azure_login import credential

# That of azure-ai-ml 1.35.2 for models.
API_VERSION = "2023-08-01-preview"
# The fields of a GET that a PUT may contain. The service sets the others.
_WRITABLE = (
    "description", "tags", "properties", "modelType", "modelUri", "isAnonymous", "isArchived", "flavors",
    "stage", "jobName",
)  # fmt: skip

Properties = dict[str, Any]
"""The ``properties`` of a version, as the service returns them."""


@contextmanager
def absence_allowed() -> Iterator[None]:
    """Ignore a 404 that says that there is no such model or version.

    A 404 about the workspace or its parent is raised.
    """
    try:
        yield
    except HttpResponseError as error:
        code = azure_errors.code_of(error)
        # ARM names the missing resource by type and name, up to the closing quote.
        workspace = re.search(r"workspaces/[^/']+'", str(error), re.IGNORECASE)
        if (
            azure_errors.status_of(error) != 404
            or code in ("ResourceGroupNotFound", "SubscriptionNotFound")
            or (code == "ResourceNotFound" and workspace)
        ):
            raise


class ModelService:
    """Versions and containers of models. A method sends one request, or one per page, and raises AzureError.

    Args:
        coordinates: the coordinates of the workspace.
        patience: options of azure-core's retry policy.
    """

    def __init__(self, coordinates: Coordinates, patience: dict[str, Any]) -> None:
        self._coordinates = coordinates
        self._patience = patience
        self._pipeline: PipelineClient[HttpRequest, Any] | None = None

    def version(self, model: str, number: str) -> Properties:
        """Return a version."""
        found: Properties = self._call("GET", self._url(model, "versions", number))["properties"]
        return found

    def version_if_any(self, model: str, number: str) -> Properties | None:
        """Return a version; None if there is none."""
        with absence_allowed():
            return self.version(model, number)
        return None

    def versions(self, model: str) -> Iterator[tuple[str, Properties]]:
        """Yield number and properties of each version, including archived ones, newest first."""
        url = self._url(model, "versions", listViewType="All")
        while url:
            page = self._call("GET", url)
            for item in page.get("value") or ():
                yield str(item["name"]), item["properties"]
            url = page.get("nextLink") or ""

    def models(self) -> Iterator[str]:
        """Yield the names of all models, including archived ones."""
        url = f"{resource_manager()}{self._coordinates.scope}/models?{_query(listViewType='All')}"
        while url:
            page = self._call("GET", url)
            yield from (str(item["name"]) for item in page.get("value") or ())
            url = page.get("nextLink") or ""

    def container(self, model: str) -> Properties:
        """Return the container of a model: whether it is archived, and the next number (``nextVersion``)."""
        found: Properties = self._call("GET", self._url(model))["properties"]
        return found

    def put_container(self, model: str, description: str) -> None:
        """Create the container of a model."""
        self._call("PUT", self._url(model), json={"properties": {"description": description}})

    def put(self, model: str, number: str, properties: Properties) -> None:
        """Create or change a version."""
        sent = {name: properties[name] for name in _WRITABLE if properties.get(name) is not None}
        self._call("PUT", self._url(model, "versions", number), json={"properties": sent})

    def delete(self, model: str, number: str) -> None:
        """Delete a version; its number cannot be used again (azureml-assets#3530)."""
        request = HttpRequest("DELETE", self._url(model, "versions", number))
        self._client().send_request(request).raise_for_status()

    def get(self, path: str, api_version: str) -> tuple[dict[str, Any], Mapping[str, str]]:
        """Return a resource of any kind, and the headers of the answer.

        Args:
            path: the path of the resource, beginning with ``/subscriptions``.
            api_version: the API version of its provider.
        """
        url = f"{resource_manager()}{path}?{urlencode({'api-version': api_version})}"
        request = HttpRequest("GET", url, headers={"Accept": "application/json"})
        response = self._client().send_request(request)
        response.raise_for_status()
        return response.json(), response.headers

    def long_path(self, path: str) -> str:
        """Return a short ``azureml://datastores/…`` path in the long form that azure-ai-ml sends."""
        at, short = self._coordinates, "azureml://datastores/"
        if not path.startswith(short):
            return path
        return (
            f"azureml://subscriptions/{at.subscription_id}/resourcegroups/{at.resource_group}/workspaces/"
            f"{at.workspace_name}/datastores/{path.removeprefix(short)}"
        )

    def _url(self, *parts: str, **query: str) -> str:
        path = "/".join(quote(part, safe="") for part in parts)
        return f"{resource_manager()}{self._coordinates.scope}/models/{path}?{_query(**query)}"

    def _call(self, method: str, url: str, **body: Any) -> dict[str, Any]:
        return self.send(HttpRequest(method, url, headers={"Accept": "application/json"}, **body))

    def send(self, request: HttpRequest) -> dict[str, Any]:
        """Send a request to the Azure Resource Manager and return its answer."""
        response = self._client().send_request(request)
        response.raise_for_status()
        found = response.json()
        return found if isinstance(found, dict) else {}

    def _client(self) -> PipelineClient[HttpRequest, Any]:
        if self._pipeline is None:
            manager = resource_manager()
            self._pipeline = PipelineClient(
                manager,
                policies=[
                    policies.RequestIdPolicy(),
                    policies.HeadersPolicy(),
                    policies.UserAgentPolicy("aml-mirror"),
                    policies.RetryPolicy(**self._patience),
                    policies.BearerTokenCredentialPolicy(credential(), f"{manager}/.default"),
                ],
                **self._patience,
            )
        return self._pipeline


def _query(**more: str) -> str:
    return urlencode({"api-version": API_VERSION, **more})
