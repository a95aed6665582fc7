"""The clients of one Azure ML workspace: created when first needed, with one login, without telemetry.

``MLClient.workspaces.get()`` returns the tracking URI and also tells the MLflow plugin to use our login. If
the plugin gets the URI in any other way, it makes its own login, which in a pod without identity ends in a
device-code prompt that nobody sees. The default datastore is requested without its secrets, because its data
are accessed with the same login.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from azure.core import exceptions as core

from aml_mirror.core.errors import ConfigurationError, MirrorError, NotAllowed, ServiceUnavailable
from aml_mirror.registries import http_status
from aml_mirror.registries import mlflow_errors as mlflow_errors
from aml_mirror.registries.azureml.coordinates import Coordinates
from aml_mirror.storage import azure_errors as azure_errors
from aml_mirror.storage.azure_cloud import resource_manager
from aml_mirror.storage.azure_login import claims_of, credential, with_fresh_login
from aml_mirror.storage.blob_client import container_client
from aml_mirror.support.retry import Once, Retry

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.storage.blob import ContainerClient
    from mlflow import MlflowClient

# What the libraries would send elsewhere without being asked. azure-ai-ml sends only from notebooks, and not
# with enable_telemetry=False. The rest is for the libraries that it loads.
_TELEMETRY = {
    "OTEL_SDK_DISABLED": "true",
    "AZURE_TRACING_ENABLED": "false",
    "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true",
    "APPLICATIONINSIGHTS_SDKSTATS_DISABLED": "true",
    "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}
# The clients retry a few times by themselves and honour Retry-After. --retry-for applies above that.
PATIENCE: dict[str, Any] = {
    "retry_total": 3,
    "retry_backoff_factor": 0.5,
    "retry_backoff_max": 8,  # seconds, as the following
    "connection_timeout": 20,
    "read_timeout": 60,
}
_MLFLOW_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Datastore:
    """The workspace's default datastore: a blob container."""

    name: str
    account: str
    container: str
    account_url: str


class AzureML:
    """One workspace.

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
        self.coordinates = coordinates
        self.connections = connections
        self.shown = f"the Azure ML workspace {coordinates.workspace_name}"
        self.retry = _FreshRetry(retry_seconds, self.translate, Once(notice))
        self._containers: dict[str, ContainerClient] = {}
        os.environ.update(_TELEMETRY)
        http_status.watch()

    def translate(self, error: Exception) -> MirrorError:
        """Return our error for an error of any of the clients."""
        if isinstance(error, MirrorError):
            return error
        if azure_errors.is_private_link(error):
            return azure_errors.private_link(self.shown, "private link")
        if "Unknown cloud environment" in str(error):
            # If azure-ai-ml cannot fetch the cloud's metadata for any reason, it says that it knows no such
            # cloud.
            return ServiceUnavailable("the cloud's metadata could not be fetched", azure_errors.AGAIN)
        if any(
            isinstance(cause, (core.AzureError, json.JSONDecodeError)) for cause in azure_errors.chain(error)
        ):
            return azure_errors.translate(error, self.shown)
        found = mlflow_errors.translate(error, self.shown)
        if isinstance(found, ServiceUnavailable):
            # MLflow's client honours it only if it retries by itself: see single_attempt.
            found.retry_after = http_status.pause_asked_in(error)
        if isinstance(found, NotAllowed):
            # MLflow's hint is about its own tokens.
            found.hint = (
                "grant this identity 'AzureML Data Scientist' on the workspace; a new assignment takes up to "
                "ten minutes to work"
            )
        return found

    @cached_property
    def ml(self) -> MLClient:
        """The client of the workspace's resources."""
        from azure.ai.ml import MLClient

        # When it is imported, it sets its own logger to INFO, with a handler that prints to stderr.
        logging.getLogger("azure.ai.ml").setLevel(logging.getLogger("azure").getEffectiveLevel())
        return self.retry(
            lambda: MLClient(
                credential(),
                self.coordinates.subscription_id,
                self.coordinates.resource_group,
                self.coordinates.workspace_name,
                enable_telemetry=False,
                show_progress=False,
                **PATIENCE,
            )
        )

    @cached_property
    def tracking_uri(self) -> str:
        """The workspace's MLflow URI. The first request also tells whether the workspace exists."""
        client = self.ml
        found = self.retry(lambda: client.workspaces.get(self.coordinates.workspace_name))
        uri = found.mlflow_tracking_uri if found else None
        if not uri:
            raise ConfigurationError(
                f"{self.shown} has no MLflow tracking URI",
                "use a workspace of the kind Default: hubs and registries do not track runs",
            )
        return str(uri)

    @cached_property
    def mlflow(self) -> MlflowClient:
        """The client of the workspace's runs."""
        from mlflow import MlflowClient

        uri = self.tracking_uri
        return self.retry(lambda: MlflowClient(tracking_uri=uri, registry_uri=uri))

    @property
    def history_host(self) -> str:
        """The host that stores the runs and their artifacts."""
        return f"https://{urlsplit(self.tracking_uri).netloc}"

    @cached_property
    def arm_scope(self) -> str:
        """The scope of tokens for Azure Resource Manager, which the run history accepts too."""
        return f"{self.retry(resource_manager)}/.default"

    @cached_property
    def datastore(self) -> Datastore:
        """The default datastore, without its secrets.

        Raises:
            ConfigurationError: it is not blob storage.
        """
        return self._datastore(self.ml.datastores.get_default)

    def _datastore(self, get: Callable[..., Any], *name: str) -> Datastore:
        from azure.ai.ml.entities import AzureBlobDatastore

        found = self.retry(lambda: get(*name))
        if not isinstance(found, AzureBlobDatastore):
            which = "datastore" if name else "default datastore"
            raise ConfigurationError(
                f"the {which} {found.name} of {self.shown} is {found.type}, not blob storage",
                "in Azure ML studio, under Data, Datastores, choose one of type Azure Blob Storage (each "
                "workspace has workspaceblobstore) and 'Set as default datastore'",
            )
        return Datastore(
            str(found.name),
            str(found.account_name),
            str(found.container_name),
            f"https://{found.account_name}.blob.{found.endpoint}",
        )

    @cached_property
    def container(self) -> ContainerClient:
        """The default datastore's container, accessed with our login."""
        return self._open(self.datastore)

    def container_of(self, name: str) -> ContainerClient:
        """Return the container of a datastore, accessed with our login; without a name, of the default one.

        Raises:
            ConfigurationError: there is no such datastore, or it is not blob storage.
        """
        if name in ("", self.datastore.name):
            return self.container
        if name not in self._containers:
            store = self._datastore(self.ml.datastores.get, name)
            self._containers[name] = self._open(store)
        return self._containers[name]

    def _open(self, store: Datastore) -> ContainerClient:
        return container_client(store.account_url, store.container, connections=self.connections)

    def user(self) -> str:
        """Return whose login this is, read from its token: a name if it has one, and the object id."""
        claims = claims_of(self.retry(lambda: credential().get_token(self.arm_scope)).token)
        name = claims.get("upn") or claims.get("unique_name") or claims.get("appid") or "unknown"
        return f"{name} (object {claims.get('oid') or 'unknown'})"

    def datastore_uri(self, path: str, name: str = "") -> str:
        """Return a folder of a datastore in the form of a model version's path."""
        return f"azureml://datastores/{name or self.datastore.name}/paths/{path.strip('/')}/"


class _FreshRetry(Retry):
    """Like :class:`Retry`, but an operation that ends in 401 is repeated once with new tokens."""

    def __call__(self, operation: Callable[[], T]) -> T:
        return super().__call__(lambda: with_fresh_login(lambda: _telling_401(operation)))


def _telling_401(operation: Callable[[], T]) -> T:
    """Run an operation; give an MLflow exception its HTTP status if that is 401."""
    try:
        return operation()
    except Exception as error:
        if not isinstance(error, (MirrorError, core.AzureError)) and http_status.last() == 401:
            error.status_code = 401  # type: ignore[attr-defined]
        raise


@contextmanager
def single_attempt() -> Iterator[None]:
    """Keep MLflow's client from sending a request again by itself.

    It is used for requests that must not be duplicated: the caller first checks whether the lost one arrived.
    """
    before = os.environ.get(_MLFLOW_RETRIES)
    os.environ[_MLFLOW_RETRIES] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_MLFLOW_RETRIES]
        else:
            os.environ[_MLFLOW_RETRIES] = before
