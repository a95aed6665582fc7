"""Model containers and versions of the management API.

Documented: the operations and their parameters (azure-rest-api-specs, mfe.json: ``$orderBy``, ``$top``,
``$skip``, ``version``, ``tags`` and ``properties`` as "Comma-separated list of names (and optionally values).
Example: prop1,prop2=value2", ``listViewType``), 201 for a new version and 200 for an existing one, the name's
rule, "a version is a positive integer" (azureml-examples#2725), at most 1,500 files (Learn, "Manage resource
quotas"). Documented as well: only description and tags of a version can be updated (Learn, "Work with
models"); properties cannot change, new keys may be added (SDK v1). No refusal of a change is recorded, so its
text is invented here, and ``changed_properties`` has three modes. Reported: a deleted version "cannot be
recreated" (azureml-assets#3530), "Asset paths cannot be updated." (azure-ai-ml's
``_artifacts/_constants.py``), ``NoMatchingArtifactsFoundFromJob`` (azure-sdk-for-python#33978). Assumed:
which status comes with the immutable properties (409, or 400 by a switch), a property left out of a PUT is
kept, the path must exist for datastore paths too, 30 versions per page, the newest first if no order is
requested.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .names import ARM, PROVIDER
from .state import Model, Version, Workspace
from .web import Refused, Reply, Request, answer, ml_error, timestamp

if TYPE_CHECKING:
    from .server import Emulator

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9\-._]{0,254}")
NUMBER = re.compile(r"[1-9][0-9]{0,8}")
FILES_LIMIT = 1500
TYPES = ("custom_model", "mlflow_model", "triton_model")
PATH = re.compile(
    r"azureml://(?:subscriptions/(?P<subscription>[^/]+)/resourcegroups/(?P<group>[^/]+)/workspaces/"
    r"(?P<workspace>[^/]+)/)?datastores/(?P<store>[^/]+)/paths/(?P<path>.*)",
    re.IGNORECASE,
)
JOB = re.compile(
    r"(?:azureml://jobs/(?P<job>[^/]+)/outputs/artifacts/paths/|runs:/(?P<run>[^/]+)/)(?P<path>.*)"
)


async def serve(emulator: Emulator, request: Request, workspace: Workspace, rest: list[str]) -> Reply:
    """Answer a request below ``/models``."""
    match request.method, rest:
        case "GET", []:
            found = [
                _container(workspace, model)
                for model in workspace.models.values()
                if _visible(request, model.is_archived) and _is_listed(workspace, model)
            ]
            return answer(_page(request, found, workspace.page_size, lambda one: one))
        case "GET", [name]:
            return answer(_container(workspace, _model(workspace, name)))
        case "PUT", [name]:
            return await _put_container(request, workspace, name)
        case "GET", [name, "versions"] if name not in workspace.models and not workspace.lists_missing:
            return answer({"value": []})
        case "GET", [name, "versions"]:
            return answer(_list(request, workspace, _model(workspace, name)))
        case "GET", [name, "versions", number]:
            return answer(_version(workspace, name, _find(workspace, name, number)))
        case "PUT", [name, "versions", number]:
            return await _put(emulator, request, workspace, name, number)
        case "DELETE", [name, "versions", number]:
            model = _model(workspace, name)
            if model.versions.pop(number, None) is None:
                return Reply(204)
            model.deleted.add(number)
            return Reply(200)
    raise ml_error(405, "UserError", f"{request.method} is not offered here.")


def _visible(request: Request, archived: bool) -> bool:
    view = request.query.get("listViewType", "ActiveOnly").lower()
    return view == "all" or archived == (view == "archivedonly")


def _is_listed(workspace: Workspace, one: Model | Version) -> bool:
    return one.is_seeded or one.created <= workspace.listed_until


def _model(workspace: Workspace, name: str) -> Model:
    if name not in workspace.models:
        raise ml_error(404, "UserError", f"Not found model container with name {name}.", "ModelNotFound")
    return workspace.models[name]


def _find(workspace: Workspace, name: str, number: str) -> Version:
    model = workspace.models.get(name)
    if (
        not model
        or number not in model.versions
        or time.time() - model.versions[number].created < workspace.read_lag
    ):
        raise ml_error(404, "UserError", f"Model {name}:{number} not found.", "ModelNotFound")
    return model.versions[number]


def _system(created: float, modified: float) -> dict[str, str]:
    return {
        "createdAt": timestamp(created),
        "createdBy": "emulator",
        "createdByType": "Application",
        "lastModifiedAt": timestamp(modified),
        "lastModifiedBy": "emulator",
        "lastModifiedByType": "Application",
    }


def _container(workspace: Workspace, model: Model) -> dict[str, Any]:
    numbers = [int(number) for number in model.versions]
    highest = max([*numbers, *map(int, model.deleted)], default=0)
    return {
        "id": f"{workspace.id}/models/{model.name}",
        "name": model.name,
        "type": f"{PROVIDER}/workspaces/models",
        "properties": {
            "description": model.description,
            "tags": {},
            "properties": {},
            "isArchived": model.is_archived,
            "latestVersion": str(max(numbers)) if numbers else None,
            "nextVersion": str(highest + 1),
            "provisioningState": "Succeeded",
        },
        "systemData": _system(model.created, model.created),
    }


def _version(workspace: Workspace, name: str, version: Version) -> dict[str, Any]:
    return {
        "id": f"{workspace.id}/models/{name}/versions/{version.number}",
        "name": version.number,
        "type": f"{PROVIDER}/workspaces/models/versions",
        "properties": {
            **version.properties,
            # Recorded: the path is returned in another spelling, and with a stage that nobody set.
            "modelUri": version.properties["modelUri"].replace("/resourcegroups/", "/resourceGroups/"),
            "stage": version.properties["stage"] or "Development",
            "autoDeleteSetting": None,
            "intellectualProperty": None,
            # Learn, "Archive a model": a version under an archived container is archived too.
            "isArchived": version.properties["isArchived"] or workspace.models[name].is_archived,
        },
        "systemData": _system(version.created, version.modified),
    }


def _asked(text: str, values: dict[str, str]) -> bool:
    for part in filter(None, text.split(",")):
        name, given, value = part.partition("=")
        if name not in values or (given and values[name] != value):
            return False
    return True


def _list(request: Request, workspace: Workspace, model: Model) -> dict[str, Any]:
    query = request.query
    # A model may have ten thousand versions, and each page examines them all, so only the requested fields
    # are compared.
    shown = [is_archived for is_archived in (False, True) if _visible(request, is_archived)]
    found = [
        version
        for version in model.versions.values()
        if version.properties["isArchived"] in shown and _is_listed(workspace, version)
    ]
    if "version" in query:
        found = [version for version in found if version.number == query["version"]]
    if text := query.get("description"):
        found = [version for version in found if text in (version.properties.get("description") or "")]
    for values in ("tags", "properties"):
        if text := query.get(values):
            found = [version for version in found if _asked(text, version.properties[values])]
    order = query.get("$orderBy", "createdtime desc").lower().split()
    keys: dict[str, Any] = {
        "createdtime": lambda one: one.created,
        "updatetime": lambda one: one.modified,
        "version": lambda one: int(one.number),
    }
    if order[0] not in keys or order[1:] not in ([], ["asc"], ["desc"]):
        raise ml_error(400, "UserError", f"Invalid $orderBy: {query['$orderBy']}")
    found.sort(key=keys[order[0]], reverse=order[1:] == ["desc"])
    text = query.get("$top", str(workspace.page_size))
    if not text.isdecimal() or int(text) < 1:
        raise ml_error(400, "UserError", f"Invalid $top: {text}")
    return _page(request, found, int(text), lambda one: _version(workspace, model.name, one))


def _page(request: Request, found: list[Any], size: int, show: Callable[[Any], Any]) -> dict[str, Any]:
    start = int(request.query.get("$skip") or 0)
    page: dict[str, Any] = {"value": [show(one) for one in found[start : start + size]]}
    if start + size < len(found):
        kept = {**request.query, "$skip": str(start + size)}
        text = "&".join(f"{name}={quote(value, safe='')}" for name, value in kept.items())
        page["nextLink"] = f"https://{ARM}{request.path}?{text}"
    return page


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ml_error(
            400,
            "UserError",
            f"The specified asset name is invalid: {name}. It must only consist of letters, numbers, dashes, "
            "periods, or underscores, start with a letter or number, and be between 1 and 255 "
            "characters long.",
        )


async def _put_container(request: Request, workspace: Workspace, name: str) -> Reply:
    _check_name(name)
    asked = (await request.json()).get("properties") or {}
    model = workspace.models.get(name)
    status = 200 if model else 201
    model = workspace.models.setdefault(name, Model(name))
    model.is_archived = bool(asked.get("isArchived", model.is_archived))
    model.description = asked.get("description", model.description)
    shown = _container(workspace, model)
    return answer(shown, status, **({"Location": f"https://{ARM}{shown['id']}"} if status == 201 else {}))


async def _put(emulator: Emulator, request: Request, workspace: Workspace, name: str, number: str) -> Reply:
    _check_name(name)
    if not NUMBER.fullmatch(number):
        raise ml_error(400, "UserError", f"Model version must be a positive integer: {number}")
    asked = (await request.json()).get("properties") or {}
    for kind in ("tags", "properties"):
        if not all(isinstance(value, str) for value in (asked.get(kind) or {}).values()):
            raise ml_error(400, "UserError", f"The values of {kind} must be strings.")
    there = _existing(workspace, name, number)
    if there:
        return answer(_version(workspace, name, _update(workspace, name, there, asked)))
    model = workspace.models.get(name)
    if model and number in model.deleted:
        raise ml_error(
            409,
            "UserError",
            f"Asset {workspace.id}/models/{name}/versions/{number} was deleted, it cannot be "
            "recreated. Please try "
            "again with a different version.",
        )
    if not asked.get("modelUri"):
        raise ml_error(400, "UserError", "The modelUri field is required.")
    if asked.get("modelType", "custom_model") not in TYPES:
        raise ml_error(400, "UserError", f"Invalid model type: {asked['modelType']}")
    if asked.get("jobName") and workspace.job_name == "refused":
        raise ml_error(400, "UserError", "The request is invalid.")
    job = await _check_files(emulator, request, workspace, asked["modelUri"])
    there = _existing(workspace, name, number)
    if there:
        # Another request was faster while the files were checked.
        return answer(_version(workspace, name, _update(workspace, name, there, asked)))
    now = time.time()
    properties = {
        "description": asked.get("description"),
        "tags": asked.get("tags") or {},
        "properties": asked.get("properties") or {},
        "isArchived": bool(asked.get("isArchived", False)),
        "isAnonymous": bool(asked.get("isAnonymous", False)),
        "flavors": asked.get("flavors") or {},
        "modelType": asked.get("modelType", "custom_model"),
        "modelUri": asked["modelUri"],
        "jobName": asked.get("jobName") if workspace.job_name == "kept" else job,
        "stage": asked.get("stage"),
        "provisioningState": "Succeeded",
    }
    version = Version(number, properties, now, now)
    workspace.models.setdefault(name, Model(name)).versions[number] = version
    made = _version(workspace, name, version)
    return answer(made, 201, Location=f"https://{ARM}{made['id']}")


def _existing(workspace: Workspace, name: str, number: str) -> Version | None:
    model = workspace.models.get(name)
    return model.versions.get(number) if model else None


def _update(workspace: Workspace, name: str, version: Version, asked: dict[str, Any]) -> Version:
    kept = version.properties
    if _same_path(asked.get("modelUri"), kept["modelUri"]):
        # Recorded, archive_restore: a path that was returned in another spelling may be sent back.
        asked = {**asked, "modelUri": kept["modelUri"]}
    if workspace.changed_properties == "accepted":
        for field in ("modelUri", "properties"):
            kept[field] = asked.get(field, kept[field])
    elif workspace.changed_properties == "ignored":
        same = {key: kept["properties"][key] for key in kept["properties"]}
        asked = {**asked, "modelUri": kept["modelUri"], "modelType": kept["modelType"]}
        asked["properties"] = {**(asked.get("properties") or {}), **same}
    if asked.get("modelUri", kept["modelUri"]) != kept["modelUri"]:
        raise _immutable(workspace, "Asset paths cannot be updated.")
    if asked.get("modelType", kept["modelType"]) != kept["modelType"]:
        raise _immutable(workspace, "Model type cannot be updated.")
    for key, value in (asked.get("properties") or {}).items():
        if kept["properties"].get(key, value) != value:
            raise _immutable(
                workspace,
                f"The property {key} of model {name} is immutable.",
            )
    kept["properties"] = {**kept["properties"], **(asked.get("properties") or {})}
    if "tags" in asked:
        kept["tags"] = asked["tags"] or {}
    for field in ("description", "isArchived", "stage"):
        if field in asked:
            kept[field] = asked[field]
    version.modified = time.time()
    return version


def _same_path(asked: str | None, kept: str) -> bool:
    return (asked or "").replace("/resourceGroups/", "/resourcegroups/") == kept.replace(
        "/resourceGroups/", "/resourcegroups/"
    )


def _immutable(workspace: Workspace, message: str) -> Refused:
    return ml_error(workspace.immutable_status, "UserError", message)


async def _check_files(emulator: Emulator, request: Request, workspace: Workspace, uri: str) -> str | None:
    """Refuse a path with no file or too many; return the run that it belongs to."""
    run = None
    if found := JOB.fullmatch(uri):
        run = found["job"] or found["run"]
        store = next(one for one in workspace.datastores if one.name == "workspaceartifactstore")
        path = f"ExperimentRun/dcid.{run}/{found['path']}"
    elif found := PATH.fullmatch(uri):
        if found["workspace"] and (
            found["subscription"].lower() != workspace.subscription
            or found["group"].lower() != workspace.resource_group.lower()
            or found["workspace"].lower() != workspace.name.lower()
        ):
            raise ml_error(400, "UserError", f"The path is in another workspace: {uri}")
        named = [one for one in workspace.datastores if one.name == found["store"]]
        if not named:
            raise ml_error(404, "UserError", f"Could not find datastore: {found['store']}")
        store, path = named[0], found["path"]
    else:
        raise ml_error(400, "UserError", f"The path is not one that a model can have: {uri}")
    account = emulator.accounts[store.account]
    path = path.rstrip("/")
    below = await emulator.blobs.names(request.scope, account, store.container, path + "/", FILES_LIMIT * 4)
    files = [name for name, folder in below if not folder]
    if not files:
        alone = await emulator.blobs.names(request.scope, account, store.container, path, 1)
        files = [name for name, folder in alone if name == path and not folder]
    if not files:
        reason = "NoMatchingArtifactsFoundFromJob" if run else "ModelAssetPathNotFoundInStorage"
        raise ml_error(400, "UserError", f"No matching artifacts found at {uri}.", reason)
    if len(files) > FILES_LIMIT:
        raise ml_error(
            400,
            "UserError",
            f"The number of files of the model is over the limit. Limit={FILES_LIMIT}, "
            f"Size={len(files)}. See "
            "https://aka.ms/azure-machine-learning-limits",
        )
    return run
