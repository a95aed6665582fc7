"""Azure Resource Manager: cloud metadata, the workspace, its datastores; models are in ``models``.

Documented: the shapes of Microsoft.MachineLearningServices (azure-rest-api-specs, mfe.json and
workspaceRP.json), ``isDefault`` of the datastore list, the four kinds of datastore credentials, ARM's
``AuthorizationFailed``, ``ResourceNotFound``, ``ResourceGroupNotFound``, ``SubscriptionNotFound``,
``MissingApiVersionParameter`` and ``NoRegisteredProviderFound`` (Learn, "Troubleshoot common Azure deployment
errors"), the actions of the role AzureML Data Scientist. Assumed: ``listSecrets`` refused is
``AuthorizationFailed`` with that action.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from . import entra, models
from .names import (
    API_VERSIONS,
    ARM,
    AZUREML,
    CLOUD,
    DOMAIN,
    LOCATION,
    LOGIN,
    PROVIDER,
    REGISTRY_SUFFIX,
    STORAGE_SUFFIX,
)
from .state import SCIENTIST, Datastore, Identity, Scope, Workspace
from .web import Reply, Request, answer, arm_error, ml_error

if TYPE_CHECKING:
    from .server import Emulator

WORKSPACE = re.compile(
    rf"/subscriptions/(?P<subscription>[^/]+)/resourceGroups/(?P<group>[^/]+)"
    rf"/providers/{re.escape(PROVIDER)}/workspaces/(?P<workspace>[^/]+)(?P<rest>/.*)?$",
    re.IGNORECASE,
)


# Recorded in 2026, after one call; see azure-sdk-assets, azure-ai-ml.
QUOTA = {"reads": 249, "writes": 199}
ACCOUNT = re.compile(r"/subscriptions/.*/providers/Microsoft.Storage/storageAccounts/(?P<name>[^/]+)$")


async def serve(emulator: Emulator, request: Request) -> Reply:
    """Answer a request to the management host, with the rest of its quota."""
    reply = await _serve(emulator, request)
    kind = "reads" if request.method in ("GET", "HEAD") else "writes"
    reply.headers[f"x-ms-ratelimit-remaining-subscription-{kind}"] = str(QUOTA[kind])
    return reply


async def _serve(emulator: Emulator, request: Request) -> Reply:
    if request.path == "/metadata/endpoints":
        return answer(_metadata())
    identity = entra.judge_arm(request)
    version = request.query.get("api-version")
    if not version:
        raise arm_error(
            400,
            "MissingApiVersionParameter",
            "The api-version query parameter (?api-version=) is required for all requests.",
        )
    if version not in API_VERSIONS:
        raise arm_error(
            400,
            "NoRegisteredProviderFound",
            f"No registered resource provider found for location '{LOCATION}' and API version "
            f"'{version}' for type "
            f"'workspaces'. The supported api-versions are '{', '.join(API_VERSIONS)}'.",
        )
    if account := ACCOUNT.match(request.decoded_path):
        return _account(request.scope, identity, account)
    found = WORKSPACE.match(request.decoded_path)
    if not found:
        raise arm_error(404, "NotFound", f"The resource {request.decoded_path} could not be found.")
    workspace = find_workspace(request.scope, found)
    rest = (found["rest"] or "").strip("/")
    kind = rest.partition("/")[0].lower()
    write = request.method != "GET"
    verb = {"GET": "read", "DELETE": "delete", "POST": "action"}.get(request.method, "write")
    if not rest:
        require(identity, workspace, "workspaces/read", write)
        return answer(_workspace(request.scope, workspace))
    if kind == "datastores":
        secrets = request.method == "POST"
        action = "datastores/listSecrets/action" if secrets else f"datastores/{verb}"
        require(identity, workspace, f"workspaces/{action}", write)
        return _datastores(emulator, request, workspace, rest.split("/")[1:])
    if kind == "models":
        level = "models/versions" if len(rest.split("/")) > 2 else "models"
        require(identity, workspace, f"workspaces/{level}/{verb}", write)
        return await models.serve(emulator, request, workspace, rest.split("/")[1:])
    require(identity, workspace, f"workspaces/{kind}/{verb}", write)
    raise ml_error(404, "UserError", f"Not found: {rest}")


def find_workspace(scope: Scope, found: re.Match[str]) -> Workspace:
    """Return the scope's workspace if the request names it."""
    workspace = scope.workspace
    if found["subscription"].lower() != workspace.subscription:
        raise arm_error(
            404, "SubscriptionNotFound", f"The subscription '{found['subscription']}' could not be found."
        )
    if found["group"].lower() != workspace.resource_group.lower():
        raise arm_error(
            404, "ResourceGroupNotFound", f"Resource group '{found['group']}' could not be found."
        )
    if found["workspace"].lower() != workspace.name.lower():
        raise arm_error(
            404,
            "ResourceNotFound",
            f"The Resource '{PROVIDER}/workspaces/{found['workspace']}' under resource group "
            f"'{found['group']}' "
            "was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix",
        )
    return workspace


def require(identity: Identity, workspace: Workspace, action: str, write: bool) -> None:
    """Answer 403 unless the identity's role in the workspace is sufficient."""
    role = identity.roles.get("")
    if role == SCIENTIST or (role and not write):
        return
    raise arm_error(
        403,
        "AuthorizationFailed",
        f"The client '{identity.client_id}' with object id '{identity.object_id}' does not have "
        "authorization to "
        f"perform action '{PROVIDER}/{action}' over scope '{workspace.id}' or the scope is "
        "invalid. If access was "
        "recently granted, please refresh your credentials.",
    )


def _metadata() -> list[dict[str, Any]]:
    elsewhere = f"https://unused.{DOMAIN}"
    return [
        {
            "name": CLOUD,
            "portal": f"https://portal.{DOMAIN}/",
            "resourceManager": f"https://{ARM}/",
            "authentication": {
                "loginEndpoint": f"https://{LOGIN}",
                "audiences": [f"https://{ARM}/"],
                "tenant": "common",
                "identityProvider": "AAD",
            },
            "media": elsewhere,
            "graphAudience": elsewhere,
            "graph": elsewhere,
            "batch": elsewhere,
            "gallery": elsewhere,
            "sqlManagement": elsewhere,
            "vmImageAliasDoc": elsewhere,
            "activeDirectoryDataLake": elsewhere,
            "suffixes": {
                "storage": STORAGE_SUFFIX,
                "keyVaultDns": f"vault.{DOMAIN}",
                "sqlServerHostname": f"database.{DOMAIN}",
                "azureDataLakeStoreFileSystem": f"datalake.{DOMAIN}",
                "azureDataLakeAnalyticsCatalogAndJob": f"analytics.{DOMAIN}",
                "acrLoginServer": REGISTRY_SUFFIX,
            },
        }
    ]


def _workspace(scope: Scope, workspace: Workspace) -> dict[str, Any]:
    group = workspace.id.partition("/providers/")[0]
    account = next((store.account for store in workspace.datastores if store.is_default), "")
    return {
        "id": workspace.id,
        "name": workspace.name,
        "type": f"{PROVIDER}/workspaces",
        "location": LOCATION,
        "kind": "Default",
        "tags": {},
        "sku": {"name": "Basic", "tier": "Basic"},
        "identity": {
            "type": "SystemAssigned",
            "principalId": workspace.principal,
            "tenantId": scope.tenant,
        },
        "properties": {
            "friendlyName": workspace.name,
            "workspaceId": workspace.principal,
            "mlFlowTrackingUri": f"azureml://{AZUREML}/mlflow/v1.0{workspace.id}",
            "discoveryUrl": f"https://{AZUREML}/discovery",
            "provisioningState": "Succeeded",
            "storageAccount": f"{group}/providers/Microsoft.Storage/storageAccounts/{account}",
            "publicNetworkAccess": "Enabled",
            "hbiWorkspace": False,
            "v1LegacyMode": False,
            "storageHnsEnabled": any(one.hns for one in scope.accounts.values() if one.name == account),
            # The key that signs the SAS of artifacts.
            "systemDatastoresAuthMode": "accesskey" if workspace.artifact_sas == "key" else "identity",
        },
    }


def _account(scope: Scope, identity: Identity, found: re.Match[str]) -> Reply:
    """Return the storage account as a resource. The identity needs the role Reader on it."""
    if not scope.account_reader:
        raise arm_error(
            403,
            "AuthorizationFailed",
            f"The client '{identity.client_id}' with object id '{identity.object_id}' does not have "
            "authorization to perform action 'Microsoft.Storage/storageAccounts/read' over scope "
            f"'{found[0]}' or the scope is invalid.",
        )
    account = scope.accounts[found["name"]]
    return answer(
        {
            "id": found[0],
            "name": account.name,
            "type": "Microsoft.Storage/storageAccounts",
            "location": LOCATION,
            "kind": "StorageV2",
            "properties": {"allowSharedKeyAccess": account.shared_key, "isHnsEnabled": account.hns},
        }
    )


def _datastores(emulator: Emulator, request: Request, workspace: Workspace, rest: list[str]) -> Reply:
    if request.method == "GET" and not rest:
        default = request.query.get("isDefault", "").lower() == "true"
        return answer(
            {
                "value": [
                    _store(workspace, one) for one in workspace.datastores if one.is_default or not default
                ]
            }
        )
    store = next((one for one in workspace.datastores if rest and one.name == rest[0]), None)
    if not store:
        raise ml_error(404, "UserError", f"Could not find datastore: {rest[0] if rest else ''}")
    if request.method == "GET" and len(rest) == 1:
        return answer(_store(workspace, store))
    if request.method == "POST" and rest[1:] == ["listSecrets"]:
        if not workspace.secrets:
            identity = request.scope.identity(request.identity or "")
            assert identity
            require(
                Identity(identity.client_id, identity.object_id, ""),
                workspace,
                "workspaces/datastores/listSecrets/action",
                True,
            )
        return answer(_secrets(emulator, store))
    raise ml_error(405, "UserError", f"{request.method} is not offered by the emulator")


def _store(workspace: Workspace, store: Datastore) -> dict[str, Any]:
    place = {
        "AzureBlob": {"containerName": store.container},
        "AzureDataLakeGen2": {"filesystem": store.container},
        "AzureFile": {"fileShareName": store.container},
    }[store.kind]
    return {
        "id": f"{workspace.id}/datastores/{store.name}",
        "name": store.name,
        "type": f"{PROVIDER}/workspaces/datastores",
        "properties": {
            "description": None,
            "tags": {},
            "properties": None,
            "isDefault": store.is_default,
            "credentials": {"credentialsType": store.credentials},
            "datastoreType": store.kind,
            "accountName": store.account,
            **place,
            "endpoint": STORAGE_SUFFIX,
            "protocol": "https",
            "serviceDataAccessAuthIdentity": "None"
            if store.credentials != "None"
            else "WorkspaceSystemAssignedIdentity",
        },
    }


def _secrets(emulator: Emulator, store: Datastore) -> dict[str, Any]:
    account = emulator.accounts[store.account]
    if store.credentials == "AccountKey":
        return {"secretsType": "AccountKey", "key": account.key}
    if store.credentials == "Sas":
        token = generate_container_sas(
            account.name,
            store.container,
            account_key=account.key,
            permission=ContainerSasPermissions(read=True, add=True, create=True, write=True, list=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )
        return {"secretsType": "Sas", "sasToken": token}
    raise ml_error(400, "UserError", f"Datastore {store.name} has no secrets.")
