"""The artifact service of run history, which returns SAS for the workspace's storage account.

Reported, but not in a public specification: the paths and shapes (the plugin's own REST client), one creation
per path with "Resource Conflict: ArtifactId … already exists" as an entry of ``errors`` in an answer of 200
(lightly-train#256 and the plugin's reading of it), "Artifact batch size exceeded the limit of 100"
(ultralytics#3223). Documented: paths up to 5,000 characters (Learn, resource limits). Recorded: registering a
path by reference to a blob of a datastore (``artifact/v2.0 … artifacts/register``, promptflow,
test_metrics_upload). Assumed: the rights of a SAS (``rcw``); its lifetime (a day, or a switch); in a batch
with conflicts, the other paths are created; 500 artifacts per page; registering an existing path again is
refused with 409; the blob need not exist.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from . import arm, entra, shapes
from .blobs import blob_target
from .names import AZUREML, blob_host
from .state import Datastore, Workspace
from .web import Reply, Request, answer, history_error, timestamp

if TYPE_CHECKING:
    from .server import Emulator

BATCH_LIMIT = 100
PATH_LIMIT = 5000
PAGE = 500
RUN = re.compile(
    r"/(?:experiments|experimentids)/(?P<experiment>[^/]+)/runs/(?P<run>[^/]+)/artifacts(?P<rest>/.*)?"
)


async def serve(emulator: Emulator, request: Request) -> Reply:
    """Answer a request below ``/history/v1.0``."""
    identity = entra.judge_arm(request)
    found = arm.WORKSPACE.match(request.decoded_path.removeprefix("/history/v1.0"))
    inner = RUN.fullmatch((found["rest"] or "") if found else "")
    if not found or not inner:
        return Reply(404)
    workspace = arm.find_workspace(request.scope, found)
    write = request.method != "GET"
    arm.require(identity, workspace, f"workspaces/experiments/runs/{'write' if write else 'read'}", write)
    run = inner["run"]
    await _check_run(emulator, request, run)
    there = workspace.artifacts.setdefault(run, {})
    path = request.query.get("path", "")
    match request.method, (inner["rest"] or "").strip("/"):
        case "POST", "batch/metadata":
            return await _create(emulator, request, workspace, run)
        case "GET", "":
            return answer(_page(request, workspace, run, sorted(there), there))
        case "GET", "path":
            below = [
                name for name in sorted(there) if not path or f"{name}/".startswith(f"{path.rstrip('/')}/")
            ]
            return answer(_page(request, workspace, run, below, there))
        case "GET", "metadata" if path in there:
            return answer(_artifact(workspace, run, path, there[path]))
        case "GET", "contentinfo" if path in there:
            return answer((await _contents(emulator, request, workspace, run, [path], "r"))[path])
        case "GET", "artifacturi" if path in there:
            contents = await _contents(emulator, request, workspace, run, [path], "r")
            return answer(contents[path]["contentUri"])
        case "GET", "prefix/contentinfo":
            below = [name for name in sorted(there) if name.startswith(path)]
            contents = await _contents(emulator, request, workspace, run, below, "r")
            return answer({"value": list(contents.values()), "continuationToken": None, "nextLink": None})
        case "GET", "metadata" | "contentinfo" | "artifacturi":
            raise history_error(404, f"Artifact not found: ExperimentRun/dcid.{run}/{path}")
    return Reply(404)


async def serve_artifacts(emulator: Emulator, request: Request) -> Reply:
    """Answer a request below ``/artifact/v2.0``: a path of a run that refers to a blob of a datastore."""
    identity = entra.judge_arm(request)
    found = arm.WORKSPACE.match(request.decoded_path.removeprefix("/artifact/v2.0"))
    if not found or (request.method, found["rest"]) != ("POST", "/artifacts/register"):
        return Reply(404)
    workspace = arm.find_workspace(request.scope, found)
    arm.require(identity, workspace, "workspaces/experiments/runs/write", True)
    if workspace.artifact_references != "taken":
        return Reply(int(workspace.artifact_references))
    asked = await request.json()
    place, path = asked.get("dataPath") or {}, asked.get("path") or ""
    run = str(asked.get("container") or "").removeprefix("dcid.")
    if asked.get("origin") != "ExperimentRun" or not run or not place.get("relativePath"):
        raise history_error(400, "The request is invalid.")
    if not path or path.startswith("/") or len(path) > PATH_LIMIT or ".." in path.split("/"):
        raise history_error(400, f"The artifact path is invalid: {path[:100]}")
    if place.get("dataStoreName") not in [store.name for store in workspace.datastores]:
        raise history_error(404, f"Could not find datastore: {place.get('dataStoreName')}")
    await _check_run(emulator, request, run)
    there = workspace.artifacts.setdefault(run, {})
    if path in there:
        raise history_error(
            409, f"Resource Conflict: ArtifactId ExperimentRun/dcid.{run}/{path} already exists."
        )
    there[path] = time.time()
    workspace.artifact_places.setdefault(run, {})[path] = (place["dataStoreName"], place["relativePath"])
    return answer(_artifact(workspace, run, path, there[path]))


async def _check_run(emulator: Emulator, request: Request, run: str) -> None:
    run = shapes.run_taken(run)
    if run in request.scope.workspace.runs:
        return
    async with emulator.mlflow.get(
        f"{emulator.mlflow_url}/api/2.0/mlflow/runs/get",
        params={"run_id": run},
        headers={"X-MLFLOW-WORKSPACE": request.scope.name},
    ) as response:
        if response.status != 200:
            raise history_error(404, f"Run {run} was not found.", "UserError")


def _store(workspace: Workspace) -> Datastore:
    return next(one for one in workspace.datastores if one.name == "workspaceartifactstore")


def _place(workspace: Workspace, run: str, path: str) -> tuple[Datastore, str]:
    """Return datastore and blob of an artifact."""
    if found := workspace.artifact_places.get(run, {}).get(path):
        return next(one for one in workspace.datastores if one.name == found[0]), found[1]
    return _store(workspace), f"ExperimentRun/dcid.{run}/{path}"


def places(workspace: Workspace, run: str) -> dict[str, dict[str, str]]:
    """Return account, container and name of the blob of each artifact of a run, by path."""
    found = {}
    for path in workspace.artifacts.get(run, {}):
        store, name = _place(workspace, run, path)
        found[path] = {"account": store.account, "container": store.container, "name": name}
    return found


def _artifact(workspace: Workspace, run: str, path: str, created: float) -> dict[str, Any]:
    place = workspace.artifact_places.get(run, {}).get(path)
    named = {"dataStoreName": place[0], "relativePath": place[1], "sqlDataPath": None} if place else None
    return {
        "artifactId": f"ExperimentRun/dcid.{run}/{path}",
        "origin": "ExperimentRun",
        "container": f"dcid.{run}",
        "path": path,
        "etag": f'"{int(created * 1e6):x}"',
        "createdTime": timestamp(created),
        "dataPath": named,
        "tags": {},
    }


def _page(
    request: Request, workspace: Workspace, run: str, names: list[str], there: dict[str, float]
) -> dict[str, Any]:
    start = int(request.query.get("continuationToken") or 0)
    more = start + PAGE < len(names)
    kept = {**request.query, "continuationToken": str(start + PAGE)}
    text = "&".join(f"{name}={quote(value, safe='')}" for name, value in kept.items())
    return {
        "value": [_artifact(workspace, run, name, there[name]) for name in names[start : start + PAGE]],
        "continuationToken": str(start + PAGE) if more else None,
        "nextLink": f"https://{AZUREML}{request.path}?{text}" if more else None,
    }


async def _contents(
    emulator: Emulator, request: Request, workspace: Workspace, run: str, paths: list[str], permission: str
) -> dict[str, Any]:
    signer = workspace.principal if workspace.artifact_sas == "user-delegation" else None
    contents = {}
    for path in paths:
        store, name = _place(workspace, run, path)
        account = emulator.accounts[store.account]
        endpoint = workspace.artifact_endpoint or f"https://{blob_host(account.name)}"
        sas = await emulator.blobs.blob_sas(
            request.scope,
            account,
            store.container,
            name,
            permission,
            workspace.artifact_sas_seconds,
            object_id=signer,
        )
        contents[path] = {
            "contentUri": f"{endpoint}{blob_target(store.container, name)}?{sas}",
            "origin": "ExperimentRun",
            "container": f"dcid.{run}",
            "path": path,
            "tags": None,
        }
    return contents


async def _create(emulator: Emulator, request: Request, workspace: Workspace, run: str) -> Reply:
    paths = [entry["path"] for entry in (await request.json()).get("paths") or []]
    if not paths:
        raise history_error(400, "The paths field is required.")
    if len(paths) > BATCH_LIMIT:
        raise history_error(400, f"Artifact batch size exceeded the limit of {BATCH_LIMIT}")
    there = workspace.artifacts[run]
    errors, made = {}, []
    for path in paths:
        if not path or path.startswith("/") or len(path) > PATH_LIMIT or ".." in path.split("/"):
            problem = f"The artifact path is invalid: {path[:100]}"
        elif path in there:
            problem = f"Resource Conflict: ArtifactId ExperimentRun/dcid.{run}/{path} already exists."
        else:
            there[path] = time.time()
            made.append(path)
            continue
        errors[path] = {"error": {"code": "UserError", "message": problem, "details": []}}
    return answer(
        {
            "artifacts": {path: _artifact(workspace, run, path, there[path]) for path in made},
            "artifactContentInformation": await _contents(emulator, request, workspace, run, made, "rcw"),
            "errors": errors,
        }
    )
