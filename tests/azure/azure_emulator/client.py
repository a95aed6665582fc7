"""The control endpoint from Python: creates scopes, sets switches, and seeds and reads blobs."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import ResourceExistsError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobServiceClient, ContainerClient

if TYPE_CHECKING:
    from mlflow import MlflowClient

CONTRIBUTOR = "Storage Blob Data Contributor"
READER = "Storage Blob Data Reader"
SCIENTIST = "AzureML Data Scientist"
WORKSPACE_READER = "Reader"
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@cache
def _transport(authority: str) -> RequestsTransport:
    """Return the connections to Azurite that all scopes share: opening one costs more than most requests."""
    return RequestsTransport(connection_verify=authority)


class Control:
    """The control endpoint of a running emulator."""

    def __init__(self, url: str) -> None:
        self.url = url

    def call(self, method: str, path: str, value: object = None) -> Any:
        """Send one request. An error answer is raised with its text."""
        request = urllib.request.Request(
            f"{self.url}/__control/{path}",
            data=None if value is None else json.dumps(value).encode(),
            method=method,
            headers={"Content-Type": "application/json"},
        )
        try:
            with _opener.open(request, timeout=600) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise ValueError(error.read().decode()) from None

    def new_scope(self, name: str | None = None) -> Azure:
        """Create a new scope."""
        return Azure(self, self.call("POST", "scopes", {"name": name})["name"])

    def scope(self, name: str) -> Azure:
        """Return an existing scope."""
        self.call("GET", f"scopes/{name}")
        return Azure(self, name)


class Azure:
    """One scope: a tenant with a subscription, a workspace, an identity and storage accounts.

    At first, the identity has the roles that the toolchain grants (``AzureML Data Scientist`` in the
    workspace, ``Storage Blob Data Contributor`` on its account), shared keys are off and the datastore has no
    secrets.
    """

    def __init__(self, control: Control, name: str) -> None:
        self.control, self.name = control, name
        self._services: dict[str, BlobServiceClient] = {}

    def call(self, method: str, path: str = "", value: object = None) -> Any:
        """Send a request to the scope's part of the control endpoint."""
        return self.control.call(method, f"scopes/{self.name}/{path}".rstrip("/"), value)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The fixed facts: ids, names, the first identity, the CA, the MLflow address."""
        found = self.call("GET")
        assert isinstance(found, dict)
        return found

    def env(self, **more: str) -> dict[str, str]:
        """The variables that lead a client into this scope, and those given; not the rest of "
        "the environment."""
        return {**self.facts["env"], **more}

    @property
    def url(self) -> str:
        """The address of faults, requests and switches, for curl."""
        return f"{self.control.url}/__control/scopes/{self.name}"

    @property
    def account(self) -> str:
        """The workspace's storage account."""
        return str(self.facts["accounts"][0]["name"])

    @property
    def container(self) -> str:
        """The container of the default datastore."""
        return str(self.facts["datastores"][0]["container"])

    @property
    def object_id(self) -> str:
        """The object id of the first identity."""
        return str(self.facts["identities"][0]["object_id"])

    # Switches

    def set(self, **switches: Any) -> None:
        """``token_seconds={"arm": …, "storage": …}``, ``skew``, ``proxy_status``."""
        self.call("PATCH", "", switches)

    def set_workspace(self, **switches: Any) -> None:
        """The switches of ``state.Workspace``."""
        self.call("PATCH", "workspace", switches)

    def set_account(self, account: str | None = None, **switches: Any) -> None:
        """The switches of ``state.Account``."""
        self.call("PATCH", f"accounts/{account or self.account}", switches)

    def set_datastore(self, name: str = "workspaceblobstore", **fields: Any) -> None:
        """``kind``, ``account``, ``container``, ``credentials``, ``is_default`` of an old or a "
        "new datastore."""
        self.call("PUT", f"datastores/{name}", fields)

    def set_role(self, role: str | None, account: str | None = None, object_id: str | None = None) -> None:
        """Give an identity (the first) a role on an account, or in the workspace where no "
        "account is named."""
        who = {} if object_id is None else {"object_id": object_id}
        self.call("PUT", "roles", {"role": role, "account": account or "", **who})

    def settle(self) -> None:
        """Let searches and lists show everything that was written so far, as they would some time later."""
        self.call("POST", "settle")

    def new_account(self, **fields: Any) -> str:
        """Create another storage account (``other_tenant``, ``role`` or None, ``containers``, switches)."""
        return str(self.call("POST", "accounts", fields)["name"])

    def new_identity(self, name: str = "other") -> dict[str, Any]:
        """Another identity, without a role; its ``token_file`` and ``client_id`` go into ``env``."""
        found = self.call("POST", "identities", {"name": name})
        assert isinstance(found, dict)
        return found

    def new_registry(self, name: str, copies_properties: bool = True) -> dict[str, str]:
        """Create an Azure ML registry; return its account and container."""
        found = self.call("POST", "registries", {"name": name, "copies_properties": copies_properties})
        assert isinstance(found, dict)
        return found

    def registry_models(self, name: str) -> dict[str, Any]:
        """Return the versions in a registry, by ``model:number``."""
        found = self.call("GET", f"registries/{name}")
        assert isinstance(found, dict)
        return found

    # Faults and requests

    def fault(self, action: str, **fields: Any) -> None:
        """Add a fault; README.md describes the fields."""
        self.call("POST", "faults", {"action": action, **fields})

    def faults(self) -> list[dict[str, Any]]:
        """Return the faults, with how often each was ``seen`` and ``acted``."""
        found = self.call("GET", "faults")
        assert isinstance(found, list)
        return found

    def clear_faults(self) -> None:
        """Remove all faults."""
        self.call("DELETE", "faults")

    def expire(self, what: str) -> None:
        """Make all existing ``tokens`` or ``sas`` expire."""
        self.call("POST", "expire", {"what": what})

    def requests(self, contains: str = "") -> list[dict[str, Any]]:
        """Return the scope's requests so far whose ``METHOD https://host/path`` contains a text."""
        found = self.call("GET", "requests")
        return [one for one in found if contains in f"{one['method']} https://{one['host']}{one['path']}"]

    def forget_requests(self) -> None:
        """Clear the log of requests."""
        self.call("DELETE", "requests")

    # The contents, without any refusal

    def blob_service(self, account: str | None = None) -> BlobServiceClient:
        """Return the real client with all rights, straight to Azurite."""
        name = account or self.account
        if name not in self._services:
            found = next(one for one in self.call("GET")["accounts"] if one["name"] == name)
            self._services[name] = BlobServiceClient(
                found["backend"],
                credential={"account_name": name, "account_key": found["key"]},
                transport=_transport(self.facts["ca"]),
                proxies={},
            )
        return self._services[name]

    def _container(self, account: str | None, container: str | None) -> ContainerClient:
        return self.blob_service(account).get_container_client(container or self.container)

    def seed(
        self,
        files: dict[str, bytes] | Path,
        prefix: str = "",
        *,
        account: str | None = None,
        container: str | None = None,
    ) -> str:
        """Write files (name to bytes, or a folder) below a prefix, and return their ``azure://`` URL."""
        target = self._container(account, container)
        with suppress(ResourceExistsError):
            target.create_container()
        found: Iterator[tuple[str, Any]]
        if isinstance(files, Path):
            root = files
            found = (
                (path.relative_to(root).as_posix(), path)
                for path in sorted(root.rglob("*"))
                if path.is_file()
            )
        else:
            found = iter(files.items())
        hns = next(
            one["hns"] for one in self.call("GET")["accounts"] if one["name"] == (account or self.account)
        )
        prefix = prefix.strip("/")

        def put(one: tuple[str, Any]) -> None:
            name, data = one
            path = f"{prefix}/{name}" if prefix else name
            if isinstance(data, Path):
                with data.open("rb") as stream:
                    target.upload_blob(path, stream, overwrite=True)
            else:
                target.upload_blob(path, data, overwrite=True)
            if hns and "/" in path:
                self.seed_folder(path.rpartition("/")[0], account=account, container=container)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put, found))
        return f"azure://{account or self.account}/{container or self.container}/{prefix}"

    def seed_folder(self, path: str, *, account: str | None = None, container: str | None = None) -> None:
        """Create a folder as a hierarchical namespace shows it, with its parents."""
        self.call(
            "POST",
            f"accounts/{account or self.account}/folders",
            {"container": container or self.container, "path": path},
        )

    def blobs(
        self, prefix: str = "", *, account: str | None = None, container: str | None = None
    ) -> dict[str, int]:
        """Return names and sizes below a prefix."""
        found = self._container(account, container).list_blobs(name_starts_with=prefix)
        return {blob.name: blob.size for blob in found}

    def read(self, name: str, *, account: str | None = None, container: str | None = None) -> bytes:
        """A blob's bytes."""
        return self._container(account, container).download_blob(name).readall()

    def metadata(
        self, name: str, *, account: str | None = None, container: str | None = None
    ) -> dict[str, str]:
        """A blob's metadata."""
        found = self._container(account, container).get_blob_client(name).get_blob_properties().metadata
        return dict(found or {})

    def sas(
        self,
        name: str,
        *,
        account: str | None = None,
        container: str | None = None,
        permission: str = "r",
        object_id: str | None = None,
        seconds: float = 3600,
    ) -> str:
        """Return a blob's URL with a SAS: from a user delegation key of that identity, else from the account
        key.
        """
        found = self.call(
            "POST",
            f"accounts/{account or self.account}/sas",
            {
                "container": container or self.container,
                "path": name,
                "permission": permission,
                "object_id": object_id,
                "seconds": seconds,
            },
        )
        return str(found["url"])

    def models(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return the models, their versions by number, and each version's properties in the API."""
        found = self.call("GET", "models")
        assert isinstance(found, dict)
        return found

    def model_descriptions(self) -> dict[str, str | None]:
        """Return name and description of each model."""
        found = self.call("GET", "containers")
        assert isinstance(found, dict)
        return found

    def seed_versions(self, name: str, count: int, **fields: Any) -> None:
        """Many versions at once: ``tags`` and ``properties`` in which ``{n}`` becomes the "
        "number, ``modelUri``, ``archived``."""
        self.call("POST", f"models/{name}", {"count": count, **fields})

    def artifacts(self) -> dict[str, list[str]]:
        """Return the paths created in the artifact service, by run."""
        found = self.call("GET", "artifacts")
        assert isinstance(found, dict)
        return found

    @cached_property
    def mlflow(self) -> MlflowClient:
        """MLflow's own client on the real server behind, without Azure's refusals."""
        # Imported late: the emulator itself imports this module.
        from mlflow import MlflowClient

        return MlflowClient(self.facts["mlflow"], self.facts["mlflow"])

    def artifact(self, run_id: str, path: str) -> bytes:
        """Return the bytes of a run's artifact, wherever they are."""
        return self.read(**self.artifact_places(run_id)[path])

    def artifact_places(self, run_id: str) -> dict[str, dict[str, str]]:
        """Return ``account``, ``container`` and ``name`` of the blob of each artifact of a run, by path."""
        found = self.call("GET", f"artifacts/{run_id}")
        assert isinstance(found, dict)
        return found
