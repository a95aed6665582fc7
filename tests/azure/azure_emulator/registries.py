"""Azure ML registries: discovery, the import of a model version from a workspace, and what it points at.

Built from the REST descriptions in azure-ai-ml 1.35.2 (``_restclient/registry_discovery``, ``_restclient/
model_dataplane``, ``_utils/_registry_utils.py``), and from nothing else, because no recording was found. So
all of this is **assumed**: 202 with ``Location`` for an import and 200 without a body at its end; 409 for an
existing version; tags, properties and type are copied, and ``modelUri`` is an address of blob storage (what
``models.download`` of a registry takes apart); files are copied by the service before the version shows; the
SAS is one for the container, to read and list; 404 for a missing registry.
"""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from . import entra
from .blobs import signature_of
from .names import AZUREML, LOCATION, PROVIDER, blob_host
from .state import Account, Scope
from .web import Reply, Request, answer, arm_error, ml_error

if TYPE_CHECKING:
    from .server import Emulator

API_VERSION = "2021-10-01-dataplanepreview"
DISCOVERY = re.compile(r"/registrymanagement/v1\.0/registries/([^/]+)/discovery")
SERVICE = re.compile(
    rf"/mferp/managementfrontend/subscriptions/([^/]+)/resourceGroups/([^/]+)/providers/{re.escape(PROVIDER)}"
    r"/registries/([^/]+)/(.+)"
)
SOURCE = re.compile(r"azureml://locations/([^/]+)/workspaces/([^/]+)/models/([^/]+)/versions/([^/]+)")
CONTAINER = "registry"


@dataclass
class ModelRegistry:
    """One registry with its own storage account."""

    name: str
    account: Account
    resource_group: str
    subscription: str = field(default_factory=lambda: str(uuid.uuid4()))
    # (model, number) -> properties.
    versions: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    # Imports: id -> how often its state is requested before it is finished.
    operations: dict[str, int] = field(default_factory=dict)
    # Whether tags and properties are copied.
    copies_properties: bool = True


async def serve(emulator: Emulator, request: Request) -> Reply:
    """Answer a request to the registries' service."""
    entra.judge_arm(request)
    scope = request.scope
    if found := DISCOVERY.fullmatch(request.decoded_path):
        return answer(_discovery(scope, found[1]))
    found = SERVICE.fullmatch(request.decoded_path)
    if not found:
        raise ml_error(404, "UserError", f"Not found: {request.path}")
    registry = _registry(scope, found[3])
    if (found[1], found[2]) != (registry.subscription, registry.resource_group):
        raise arm_error(404, "ResourceNotFound", "The registry is elsewhere.")
    rest = found[4].split("/")
    if request.method == "GET" and rest[0] == "operations":
        return _operation(registry, rest[1])
    if request.query.get("api-version") != API_VERSION:
        raise arm_error(400, "NoRegisteredProviderFound", "The supported api-versions are " + API_VERSION)
    match request.method, rest:
        case "GET", ["models", model, "versions", number]:
            return answer(_shown(registry, model, number))
        case "GET", ["models", model, "versions"]:
            # The newest first. azure-ai-ml only requests the first.
            numbers = [number for name, number in reversed(registry.versions) if name == model]
            return answer({"value": [_shown(registry, model, number) for number in numbers]})
        case "POST", ["import"]:
            return await _import(emulator, request, registry)
        case "POST", ["datarefs", model, "versions", number]:
            return await _reference(emulator, request, registry, model, number)
    raise ml_error(405, "UserError", f"{request.method} is not offered here.")


def _registry(scope: Scope, name: str) -> ModelRegistry:
    if name not in scope.registries:
        raise ml_error(404, "RegistryNotFound", f"Registry {name} not found.")
    return scope.registries[name]


def _discovery(scope: Scope, name: str) -> dict[str, Any]:
    registry = _registry(scope, name)
    return {
        "registryName": name,
        "tenantId": scope.tenant,
        "primaryRegion": LOCATION,
        "regions": [LOCATION],
        "subscriptionId": registry.subscription,
        "resourceGroup": registry.resource_group,
        "workspaceName": None,
        "primaryRegionResourceProviderUri": f"https://{AZUREML}/",
        "registryFqdns": {LOCATION: {"uri": f"https://{AZUREML}/"}},
    }


def _base(registry: ModelRegistry) -> str:
    return (
        f"/mferp/managementfrontend/subscriptions/{registry.subscription}/resourceGroups/"
        f"{registry.resource_group}/providers/{PROVIDER}/registries/{registry.name}"
    )


def _shown(registry: ModelRegistry, model: str, number: str) -> dict[str, Any]:
    if (model, number) not in registry.versions:
        raise ml_error(404, "UserError", f"Model {model}:{number} not found.")
    return {
        "id": f"azureml://registries/{registry.name}/models/{model}/versions/{number}",
        "name": number,
        "properties": registry.versions[model, number],
    }


def _operation(registry: ModelRegistry, name: str) -> Reply:
    if registry.operations.get(name, 0) > 0:
        registry.operations[name] -= 1
        reply = answer({}, 202)
        reply.headers["Location"] = f"https://{AZUREML}{_base(registry)}/operations/{name}"
        reply.headers["Retry-After"] = "0"
        return reply
    return Reply(200)


async def _import(emulator: Emulator, request: Request, registry: ModelRegistry) -> Reply:
    asked = (await request.json()).get("properties") or {}
    source = SOURCE.fullmatch(str(asked.get("sourceAssetId")))
    workspace = request.scope.workspace
    if asked.get("referenceType") != "Id" or not source or source[2] != workspace.principal:
        raise ml_error(400, "UserError", "The source asset cannot be found.")
    model = workspace.models.get(source[3])
    version = model.versions.get(source[4]) if model else None
    if version is None:
        raise ml_error(404, "UserError", f"Model {source[3]}:{source[4]} not found.")
    key = (str(asked["destinationName"]), str(asked["destinationVersion"]))
    if key in registry.versions:
        raise ml_error(409, "UserError", f"Model {key[0]}:{key[1]} exists already.")
    where = f"{key[0]}/{key[1]}"
    await _copy(emulator, request.scope, registry, str(version.properties["modelUri"]), where)
    kept = dict(version.properties)
    if not registry.copies_properties:
        kept |= {"tags": {}, "properties": {}}
    uri = f"https://{blob_host(registry.account.name)}/{CONTAINER}/{where}"
    registry.versions[key] = {**kept, "modelUri": uri, "provisioningState": "Succeeded"}
    name = uuid.uuid4().hex
    registry.operations[name] = 1
    reply = answer({}, 202)
    reply.headers["Location"] = f"https://{AZUREML}{_base(registry)}/operations/{name}"
    reply.headers["Retry-After"] = "0"
    return reply


async def _copy(emulator: Emulator, scope: Scope, registry: ModelRegistry, uri: str, where: str) -> None:
    """Copy the files of a version. The service's own identity may read the workspace's storage."""
    named = re.search(r"/?datastores/([^/]+)/paths/(.+)", uri)
    assert named is not None
    store = next(one for one in scope.workspace.datastores if one.name == named[1])
    account, prefix = emulator.accounts[store.account], named[2].rstrip("/") + "/"
    for name, is_folder in await emulator.blobs.names(scope, account, store.container, prefix, 5000):
        if is_folder:
            continue
        got = await emulator.blobs.whole(scope, account, "GET", f"/{store.container}/{quote(name)}")
        assert isinstance(got.body, bytes)
        target = f"/{CONTAINER}/{where}/{quote(name.removeprefix(prefix))}"
        put = await emulator.blobs.put(scope, registry.account, target, got.body, {})
        assert put.status == 201, put.status


async def _reference(
    emulator: Emulator, request: Request, registry: ModelRegistry, model: str, number: str
) -> Reply:
    asked = await request.json()
    if (model, number) not in registry.versions:
        raise ml_error(404, "UserError", f"Model {model}:{number} not found.")
    if asked.get("blobUri") != registry.versions[model, number]["modelUri"]:
        raise ml_error(400, "UserError", "The address is not that of the asset.")
    account = registry.account
    key = await emulator.blobs.delegation_key(request.scope, account, request.scope.workspace.principal)
    token = generate_container_sas(
        account.name,
        CONTAINER,
        user_delegation_key=key,
        permission=ContainerSasPermissions(read=True, list=True),
        start=datetime.now(UTC) - timedelta(minutes=10),
        expiry=datetime.fromtimestamp(time.time() + 3600, UTC),
    )
    request.scope.seen_sas.add(signature_of(token))
    sas = f"https://{blob_host(account.name)}/{CONTAINER}?{token}"
    return answer(
        {
            "blobReferenceForConsumption": {
                "blobUri": asked["blobUri"],
                "credential": {"credentialType": "SAS", "sasUri": sas},
            }
        }
    )
