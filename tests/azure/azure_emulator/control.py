"""The control endpoint: plain HTTP on the same port, for tests and for a person with curl. README.md lists
it.

``/__mlflow/SCOPE/api/2.0/…`` beside it is the real MLflow server as that scope sees it, without Azure's
refusals, for looking at what was written.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlencode

from aiohttp import web
from multidict import CIMultiDict

from . import entra, history, mlflow_front, registries, shapes, storage
from .faults import Fault
from .names import ARM, AZUREML, CLOUD, LOGIN, STORAGE_SUFFIX
from .state import (
    CONTRIBUTOR,
    SCIENTIST,
    Account,
    Datastore,
    Identity,
    Model,
    Scope,
    Version,
    new_identity,
    new_scope,
)
from .web import Refused, Reply, answer

if TYPE_CHECKING:
    from .server import Emulator

# The settings that can be changed from outside.
WORKSPACE_SWITCHES = (
    "secrets",
    "metric_rows",
    "changed_properties",
    "metric_store",
    "accepts_nan",
    "metric_history_limit",
    "artifact_sas",
    "artifact_sas_seconds",
    "artifact_endpoint",
    "artifact_references",
    "job_name",
    "past_times",
    "immutable_status",
    "page_size",
    "list_lag",
    "read_lag",
    "lists_missing",
    "plain_conflict",
)
ACCOUNT_SWITCHES = (
    *("hns", "shared_key", "network", "crc64", "header_case"),
    *("copy_scope", "copy_pending_polls", "copy_outcome"),
)
SCOPE_SWITCHES = ("token_seconds", "skew", "proxy_status", "account_reader")


async def serve(emulator: Emulator, raw: web.BaseRequest) -> Reply:
    """Answer a plain request."""
    # It has its own reader, because that of the request stops at a megabyte.
    data = b"".join([piece async for piece in raw.content.iter_any()])
    parts = [unquote(part) for part in raw.raw_path.partition("?")[0].strip("/").split("/")]
    if parts[0] == "__mlflow":
        return await _look(emulator, emulator.scopes[parts[1]], raw, "/".join(parts[2:]), data)
    if parts[0] != "__control":
        return Reply(404)
    asked = json.loads(data or b"{}")
    match raw.method, parts[1:]:
        case "GET", ["health"]:
            return answer({"ready": True})
        case "GET", ["scopes"]:
            return answer(sorted(emulator.scopes))
        case "POST", ["scopes"]:
            return answer(await _new_scope(emulator, asked), 201)
    if len(parts) < 3 or parts[1] != "scopes" or parts[2] not in emulator.scopes:
        return answer({"error": f"no such thing: {raw.method} {raw.path}"}, 404)
    scope = emulator.scopes[parts[2]]
    return await _in_scope(emulator, scope, raw.method, parts[3:], asked, dict(raw.query))


async def _in_scope(
    emulator: Emulator, scope: Scope, method: str, rest: list[str], asked: Any, query: dict[str, str]
) -> Reply:
    match method, rest:
        case "GET", []:
            return answer(describe(emulator, scope))
        case "PATCH", []:
            _set(scope, asked, SCOPE_SWITCHES)
            return answer(describe(emulator, scope))
        case "DELETE", []:
            for name in scope.accounts:
                del emulator.accounts[name]
            del emulator.scopes[scope.name]
            return answer({})
        case "PATCH", ["workspace"]:
            _set(scope.workspace, asked, WORKSPACE_SWITCHES)
            return answer(describe(emulator, scope))
        case "POST", ["settle"]:
            scope.workspace.settled = time.time()
            return answer({})
        case "PUT", ["datastores", name]:
            return answer(_datastore(scope, name, asked))
        case "POST", ["accounts"]:
            account = await _new_account(emulator, scope, asked)
            return answer(_account(emulator, account), 201)
        case "POST", ["registries"]:
            account = await _new_account(emulator, scope, {"role": "", "containers": [registries.CONTAINER]})
            made = registries.ModelRegistry(asked["name"], account, f"rg-{asked['name']}")
            made.copies_properties = bool(asked.get("copies_properties", True))
            scope.registries[made.name] = made
            return answer({"account": account.name, "container": registries.CONTAINER}, 201)
        case "GET", ["registries", name]:
            return answer(
                {f"{key[0]}:{key[1]}": value for key, value in scope.registries[name].versions.items()}
            )
        case "PATCH", ["accounts", name]:
            _set(scope.accounts[name], asked, ACCOUNT_SWITCHES)
            return answer(_account(emulator, scope.accounts[name]))
        case "POST", ["accounts", name, "folders"]:
            account = scope.accounts[name]
            await storage.make_folders(
                emulator, scope, account, asked["container"], asked["path"].strip("/") + "/x"
            )
            return answer({})
        case "POST", ["accounts", name, "sas"]:
            sas = await emulator.blobs.blob_sas(
                scope,
                scope.accounts[name],
                asked["container"],
                asked["path"],
                asked.get("permission", "r"),
                asked.get("seconds", 3600),
                object_id=asked.get("object_id"),
            )
            url = storage.public_url(scope.accounts[name], asked["container"], asked["path"])
            return answer({"url": f"{url}?{sas}"})
        case "POST", ["identities"]:
            identity = _new_identity(emulator, scope, asked.get("name", f"sa-{len(scope.identities)}"))
            return answer(_identity(emulator, scope, identity), 201)
        case "PUT", ["roles"]:
            for identity in scope.identities:
                if asked.get("object_id", scope.identities[0].object_id) == identity.object_id:
                    identity.roles[asked.get("account", "")] = asked["role"] or ""
            return answer(describe(emulator, scope))
        case "POST", ["federated-token"]:
            return answer({"token": entra.federated_token(scope.identities[0], asked.get("seconds", 86400))})
        case "POST", ["expire"]:
            if asked["what"] == "tokens":
                entra.expire_tokens(scope)
            elif asked["what"] == "sas":
                scope.expired_sas |= scope.seen_sas
            else:
                raise ValueError("what is tokens or sas")
            return answer({})
        case "POST", ["faults"]:
            fault = Fault(**asked)
            scope.faults.append(fault)
            return answer(fault.describe(), 201)
        case "GET", ["faults"]:
            return answer([fault.describe() for fault in scope.faults])
        case "DELETE", ["faults"]:
            scope.faults.clear()
            return answer({})
        case "GET", ["requests"]:
            return answer(list(scope.requests))
        case "DELETE", ["requests"]:
            scope.requests.clear()
            return answer({})
        case "GET", ["containers"]:
            return answer({model.name: model.description for model in scope.workspace.models.values()})
        case "GET", ["models"]:
            return answer(
                {
                    model.name: {
                        number: {**version.properties, "created": version.created}
                        for number, version in model.versions.items()
                    }
                    for model in scope.workspace.models.values()
                }
            )
        case "DELETE", ["models", name, number]:
            model = scope.workspace.models[name]
            del model.versions[number]
            model.deleted.add(number)
            return answer({})
        case "POST", ["models", name]:
            return answer(_seed_versions(scope, name, asked), 201)
        case "GET", ["artifacts", run]:
            return answer(history.places(scope.workspace, run))
        case "GET", ["artifacts"]:
            return answer({run: sorted(paths) for run, paths in scope.workspace.artifacts.items()})
    return answer({"error": f"no such thing: {method} {'/'.join(rest)}"}, 404)


def _set(thing: Any, asked: dict[str, Any], allowed: tuple[str, ...]) -> None:
    for name, value in asked.items():
        if name not in allowed:
            raise ValueError(f"{name} cannot be set; what can: {', '.join(allowed)}")
        if isinstance(value, dict):
            value = {**getattr(thing, name), **value}
        setattr(thing, name, value)


async def _new_scope(emulator: Emulator, asked: dict[str, Any]) -> dict[str, Any]:
    name = asked.get("name") or f"s{len(emulator.scopes)}-{secrets.token_hex(4)}"
    if name in emulator.scopes:
        return describe(emulator, emulator.scopes[name])
    scope = new_scope(name)
    async with emulator.mlflow.post(
        f"{emulator.mlflow_url}/api/3.0/mlflow/workspaces", json={"name": name}
    ) as response:
        if response.status not in (200, 201):
            raise RuntimeError(await response.text())
    (emulator.folder / "scopes" / name).mkdir(parents=True, exist_ok=True)
    identity = _new_identity(emulator, scope, "runner")
    emulator.scopes[name] = scope
    account = await _new_account(emulator, scope, {})
    identity.roles[""] = SCIENTIST
    scope.workspace.datastores = [
        Datastore("workspaceblobstore", account=account.name, container="azureml-blobstore", is_default=True),
        Datastore("workspaceartifactstore", account=account.name, container="azureml"),
    ]
    for store in scope.workspace.datastores:
        await _container(emulator, scope, account, store.container)
    return describe(emulator, scope)


def _new_identity(emulator: Emulator, scope: Scope, name: str) -> Identity:
    identity = new_identity(name)
    scope.identities.append(identity)
    _token_file(emulator, scope, identity).write_text(entra.federated_token(identity))
    return identity


def _token_file(emulator: Emulator, scope: Scope, identity: Identity) -> Any:
    return emulator.folder / "scopes" / scope.name / f"token-{identity.client_id}"


async def _new_account(emulator: Emulator, scope: Scope, asked: dict[str, Any]) -> Account:
    name = next(one for one in emulator.blobs.keys if one not in emulator.accounts)
    # A name is used once, so what an earlier scope left in Azurite stays hidden.
    key = emulator.blobs.keys.pop(name)
    other = asked.pop("other_tenant", False)
    role = asked.pop("role", CONTRIBUTOR)
    containers = asked.pop("containers", [])
    account = Account(name, key, scope.other_tenant if other else scope.tenant)
    _set(account, asked, ACCOUNT_SWITCHES)
    emulator.accounts[name] = scope.accounts[name] = account
    if not other and role:
        scope.identities[0].roles[name] = role
    for container in containers:
        await _container(emulator, scope, account, container)
    return account


async def _container(emulator: Emulator, scope: Scope, account: Account, name: str) -> None:
    reply = await emulator.blobs.whole(scope, account, "PUT", f"/{name}?restype=container")
    if reply.status not in (201, 409):
        raise RuntimeError(f"{reply.status} {reply.body!r}")


def _datastore(scope: Scope, name: str, asked: dict[str, Any]) -> dict[str, Any]:
    store = next((one for one in scope.workspace.datastores if one.name == name), None)
    if not store:
        store = Datastore(name)
        scope.workspace.datastores.append(store)
    _set(store, asked, ("kind", "account", "container", "credentials", "is_default"))
    if store.is_default:
        for other in scope.workspace.datastores:
            other.is_default = other is store
    return dataclasses.asdict(store)


def _seed_versions(scope: Scope, name: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Create many versions at once. ``{n}`` in a tag, a property or the path becomes the number."""
    model = scope.workspace.models.setdefault(name, Model(name, is_seeded=True))
    first = max(map(int, model.versions), default=0) + 1

    def filled(values: dict[str, str], number: int) -> dict[str, str]:
        return {key: value.replace("{n}", str(number)) for key, value in values.items()}

    for number in range(first, first + int(asked.get("count", 1))):
        model.versions[str(number)] = Version(
            str(number),
            {
                "description": asked.get("description"),
                "tags": filled(asked.get("tags", {}), number),
                "properties": filled(asked.get("properties", {}), number),
                "isArchived": bool(asked.get("archived", False)),
                "isAnonymous": False,
                "flavors": {},
                "modelType": "custom_model",
                "modelUri": asked.get(
                    "modelUri", "azureml://datastores/workspaceblobstore/paths/{n}/"
                ).replace("{n}", str(number)),
                "jobName": None,
                "stage": None,
            },
            # Each is created after the one before.
            time.time() + number * 1e-6,
            time.time(),
            is_seeded=True,
        )
    return {"versions": len(model.versions)}


def _account(emulator: Emulator, account: Account) -> dict[str, Any]:
    return {
        "name": account.name,
        "url": f"https://{account.name}.blob.{STORAGE_SUFFIX}",
        "backend": f"{emulator.blobs.url}/{account.name}",
        "key": account.key,
        "tenant": account.tenant,
        **{name: getattr(account, name) for name in ACCOUNT_SWITCHES},
    }


def _identity(emulator: Emulator, scope: Scope, identity: Identity) -> dict[str, Any]:
    return {
        **dataclasses.asdict(identity),
        "token_file": str(_token_file(emulator, scope, identity)),
    }


def describe(emulator: Emulator, scope: Scope) -> dict[str, Any]:
    """Return everything about a scope, including the environment for its clients."""
    workspace = scope.workspace
    return {
        "name": scope.name,
        "tenant": scope.tenant,
        "subscription": workspace.subscription,
        "resource_group": workspace.resource_group,
        "workspace": workspace.name,
        "workspace_id": workspace.id,
        "identities": [_identity(emulator, scope, one) for one in scope.identities],
        "accounts": [_account(emulator, one) for one in scope.accounts.values()],
        "datastores": [dataclasses.asdict(one) for one in workspace.datastores],
        "mlflow": f"http://127.0.0.1:{emulator.port}/__mlflow/{scope.name}",
        "ca": str(emulator.folder / "ca.pem"),
        "switches": {
            **{name: getattr(scope, name) for name in SCOPE_SWITCHES},
            **{name: getattr(workspace, name) for name in WORKSPACE_SWITCHES},
        },
        "env": environment(emulator, scope),
    }


def environment(emulator: Emulator, scope: Scope) -> dict[str, str]:
    """Return the variables for a client."""
    identity, workspace = scope.identities[0], scope.workspace
    proxy = f"http://{scope.name}:x@127.0.0.1:{emulator.port}"
    return {
        "HTTPS_PROXY": proxy,
        "https_proxy": proxy,
        "NO_PROXY": "localhost,127.0.0.1",
        "no_proxy": "localhost,127.0.0.1",
        "REQUESTS_CA_BUNDLE": str(emulator.folder / "ca.pem"),
        "AZURE_AUTHORITY_HOST": f"https://{LOGIN}/",
        "ARM_CLOUD_METADATA_URL": f"https://{ARM}/metadata/endpoints?api-version=2019-05-01",
        "AZUREML_CURRENT_CLOUD": CLOUD,
        "REGISTRY_DISCOVERY_ENDPOINT_URL": f"https://{AZUREML}/",
        # Nobody listens there, so instance metadata does not answer.
        "AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://127.0.0.1:9",
        "AZURE_TENANT_ID": scope.tenant,
        "AZURE_CLIENT_ID": identity.client_id,
        "AZURE_FEDERATED_TOKEN_FILE": str(_token_file(emulator, scope, identity)),
        "AZURE_TOKEN_CREDENTIALS": "WorkloadIdentityCredential",
        "AZURE_SUBSCRIPTION_ID": workspace.subscription,
        "AZURE_RESOURCE_GROUP": workspace.resource_group,
        "AZUREML_WORKSPACE_NAME": workspace.name,
        "AZURE_EMULATOR_CONTROL": f"http://127.0.0.1:{emulator.port}/__control/scopes/{scope.name}",
    }


async def _look(emulator: Emulator, scope: Scope, raw: web.BaseRequest, path: str, data: bytes) -> Reply:
    query = shapes.taken(dict(raw.query))
    if path == "api/2.0/mlflow/metrics/get-history":
        try:
            return await mlflow_front.get_history(emulator, scope, query)
        except Refused as refused:
            return refused.reply
    await mlflow_front.flush(emulator, scope)
    if raw.method != "GET":
        # It may delete runs.
        for run in scope.workspace.runs.values():
            run.is_active = False
    is_file = "/mlflow-artifacts/" in path
    if data and not is_file:
        data = json.dumps(shapes.taken(json.loads(data))).encode()
    async with emulator.mlflow.request(
        raw.method,
        f"{emulator.mlflow_url}/{path}?{urlencode(query)}",
        data=data or None,
        headers={"Content-Type": "application/json", "X-MLFLOW-WORKSPACE": scope.name},
    ) as response:
        found = await response.read()
        if response.status == 200 and "/mlflow/" in path:
            value = json.loads(found or b"{}")
            if path.endswith(("mlflow/runs/get", "mlflow/runs/search")):
                mlflow_front.show_points(scope.workspace, value)
            found = json.dumps(shapes.shown(value)).encode()
        return Reply(
            response.status,
            CIMultiDict({"Content-Type": response.headers.get("Content-Type", "application/json")}),
            found,
        )
