"""Azure ML's MLflow service: its endpoints of MLflow's REST API 2.0, in front of a real server.

Documented (Learn, "Manage resource quotas", limits of run history): 250 metric values per name and batch, 50
metric names per run, 200 params per run, 50 tags with keys up to 100 and values up to 1,000 characters.
Reported: the body of the first (mlflow#11462), of a history requested in pages of 1,000 and more
(mlflow#10694, closed since: a switch), the rule for experiment names and its text (mlops templates and model
builder, 400), no logged models (azure-sdk-for-python#44896), ``:`` in a tag key of the registry refused
(mlflow#8008), ``mlflow.user`` cannot be set (mlflow-export-import#78). Assumed: a 404 for missing objects has
no body; the other limits have the first one's body; MLflow's own tags count among the 50; a run has the times
of the service's clock whatever a client says (a switch); and which of the registry's endpoints exist.
"""

from __future__ import annotations

import json
import math
import posixpath
import re
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from multidict import CIMultiDict

from . import arm, entra, shapes
from .names import AZUREML
from .series import Series
from .state import Run, Scope, Workspace
from .web import Refused, Reply, Request, mlflow_error

if TYPE_CHECKING:
    from .server import Emulator

ENDPOINTS = {
    *(("GET", f"experiments/{name}") for name in ("get", "get-by-name", "search", "list")),
    *(("POST", f"experiments/{name}") for name in ("create", "delete", "restore", "search", "update")),
    ("GET", "runs/get"),
    *(
        ("POST", f"runs/{name}")
        for name in ("create", "delete", "restore", "search", "update", "set-tag", "delete-tag")
    ),
    *(("POST", f"runs/{name}") for name in ("log-batch", "log-metric", "log-parameter")),
    ("GET", "metrics/get-history"),
    *(("GET", f"registered-models/{name}") for name in ("get", "search", "list")),
    *(("POST", f"registered-models/{name}") for name in ("create", "set-tag", "get-latest-versions")),
    ("GET", "registered-models/get-latest-versions"),
    ("PATCH", "registered-models/update"),
    *(("DELETE", f"registered-models/{name}") for name in ("delete", "delete-tag")),
    *(("GET", f"model-versions/{name}") for name in ("get", "search", "get-download-uri")),
    *(("POST", f"model-versions/{name}") for name in ("create", "set-tag", "transition-stage")),
    ("PATCH", "model-versions/update"),
    *(("DELETE", f"model-versions/{name}") for name in ("delete", "delete-tag")),
}
# Older times of a run are in the past, because a request may take a while.
PAST_MS = 60_000
READS = ("runs/search", "experiments/search", "registered-models/get-latest-versions")
KEPT_IN_MEMORY = "memory"
# What the real server refuses about points, if they are not sent to it: MLflow's REST API, "Request Limits"
# of log-batch, and mlflow/utils/validation.py.
BATCH_LIMIT = 1000
BATCH_BYTES_LIMIT = 1_000_000
METRIC_KEY = re.compile(r"[/\w.\- :]{1,250}")
VALUES_LIMIT = 250
METRICS_LIMIT = 50
PARAMS_LIMIT = 200
TAGS_LIMIT = 50
TAG_KEY_LIMIT = 100
TAG_VALUE_LIMIT = 1000
EXPERIMENT = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,255}")
PREFIX = re.compile(r"/mlflow/v[12]\.0(?=/)")


async def serve(emulator: Emulator, request: Request) -> Reply:
    """Answer a request below ``/mlflow``."""
    identity = entra.judge_arm(request)
    prefix = PREFIX.match(request.decoded_path)
    found = arm.WORKSPACE.match(request.decoded_path[prefix.end() :]) if prefix else None
    if not found:
        return Reply(404)
    workspace = arm.find_workspace(request.scope, found)
    endpoint = (found["rest"] or "").removeprefix("/api/2.0/mlflow/")
    write = request.method != "GET" and endpoint not in READS
    arm.require(identity, workspace, f"workspaces/experiments/runs/{'write' if write else 'read'}", write)
    if (request.method, endpoint) not in ENDPOINTS:
        return Reply(404)
    asked = shapes.taken(await request.json() if request.method != "GET" else dict(request.query))
    _judge_times(workspace, endpoint, asked)
    query = "" if request.method != "GET" else urlencode(asked)
    body = json.dumps(asked).encode() if request.method != "GET" else b""
    if endpoint == "metrics/get-history":
        return await get_history(emulator, request.scope, asked, workspace.metric_history_limit)
    run = _check(workspace, endpoint, asked)
    if run and workspace.metric_store == KEPT_IN_MEMORY and _parts(endpoint, asked)[0]:
        status, value = await _ask_without_points(
            emulator, request.scope, endpoint, asked, run, len(await request.body())
        )
    else:
        await flush(emulator, request.scope)
        status, value = await ask(
            emulator,
            request.scope,
            request.method,
            f"{endpoint}?{query}",
            body,
        )
    if workspace.plain_conflict and value.get("error_code") == "RESOURCE_ALREADY_EXISTS":
        raise arm.arm_error(409, "UserError", f"{asked.get('name')} is there already.")
    if endpoint == "runs/search" and workspace.list_lag:
        value["runs"] = _as_it_was(workspace, value.get("runs") or [])
    if status == 200:
        _remember(workspace, endpoint, asked, value, run)
        show_points(workspace, value)
        value = shapes.shown(value)
        _rewrite(workspace, value)
        for shown in _runs(value):
            shapes.with_own_tags(shown)
        if endpoint == "runs/update":
            # Recorded: the answer does not say where the artifacts are.
            (value.get("run_info") or {}).pop("artifact_uri", None)
    return Reply(status, CIMultiDict({"Content-Type": "application/json"}), json.dumps(value).encode())


def _judge_times(workspace: Workspace, endpoint: str, asked: dict[str, Any]) -> None:
    """Accept, ignore or refuse times in the past: Azure ML's behaviour is unknown."""
    key = {"runs/create": "start_time", "runs/update": "end_time"}.get(endpoint, "")
    now = int(time.time() * 1000)
    if workspace.past_times == "taken" or not asked.get(key) or now - int(asked[key]) < PAST_MS:
        return
    if workspace.past_times == "refused":
        raise mlflow_error(400, "BAD_REQUEST", f"{key} must not be in the past.")
    asked[key] = now


async def ask(
    emulator: Emulator, scope: Scope, method: str, endpoint: str, body: bytes = b""
) -> tuple[int, Any]:
    """Ask the real server, in the scope's own MLflow workspace."""
    async with emulator.mlflow.request(
        method,
        f"{emulator.mlflow_url}/api/2.0/mlflow/{endpoint.rstrip('?')}",
        data=body or None,
        headers={"Content-Type": "application/json", "X-MLFLOW-WORKSPACE": scope.name},
    ) as response:
        text = await response.text()
        try:
            return response.status, json.loads(text or "{}")
        except ValueError:
            return response.status, {"message": text}


async def _ask_without_points(
    emulator: Emulator, scope: Scope, endpoint: str, asked: dict[str, Any], run: Run, size: int
) -> tuple[int, Any]:
    """Refuse the points that the real server would refuse, and send it the rest of the request.

    If nothing is left, it is asked only whether the run accepts writes, and only until it did. A new value of
    an existing tag is delayed until somebody may read it: see :func:`flush`.
    """
    metrics, params, tags = _parts(endpoint, asked)
    if size > BATCH_BYTES_LIMIT or len(metrics) + len(params) + len(tags) > BATCH_LIMIT:
        raise mlflow_error(
            400,
            "INVALID_PARAMETER_VALUE",
            f"A batch can contain at most {BATCH_LIMIT} metrics, params, and tags.",
        )
    for row in metrics:
        if not _is_point(row):
            raise mlflow_error(400, "INVALID_PARAMETER_VALUE", f"Invalid metric: {row}")
    values = {tag["key"]: tag.get("value") or "" for tag in tags}
    if run.is_active and not params and values.keys() <= run.tags:
        run.waiting |= values
        return 200, {}
    await flush(emulator, scope)
    rest = {"run_id": asked.get("run_id") or asked.get("run_uuid"), "params": params, "tags": tags}
    status, value = await ask(emulator, scope, "POST", "runs/log-batch", json.dumps(rest).encode())
    run.is_active = status == 200
    return status, value


async def flush(emulator: Emulator, scope: Scope) -> None:
    """Send the delayed tags to the real server, before any other request to it."""
    # One at a time, because otherwise an older value could come last.
    async with scope.workspace.flushing:
        for number, run in list(scope.workspace.runs.items()):
            if not run.waiting:
                continue
            tags = [{"key": key, "value": value} for key, value in run.waiting.items()]
            run.waiting = {}
            body = json.dumps({"run_id": number, "tags": tags}).encode()
            status, value = await ask(emulator, scope, "POST", "runs/log-batch", body)
            if status != 200:
                raise RuntimeError(f"tags that were accepted before are refused: {value}")


def _is_point(row: dict[str, Any]) -> bool:
    try:
        float(row["value"]), int(row.get("step") or 0)
        return _is_metric_name(row["key"]) and int(row["timestamp"]) >= 0
    except (KeyError, TypeError, ValueError):
        return False


@lru_cache(1000)
def _is_metric_name(key: str) -> bool:
    plain = posixpath.normpath(key)
    return bool(METRIC_KEY.fullmatch(key)) and plain == key and key != "." and not key.startswith(("..", "/"))


async def get_history(emulator: Emulator, scope: Scope, asked: dict[str, str], limit: int = 0) -> Reply:
    """Return the points of a metric, including those kept twice, or in memory, if the workspace does that."""
    workspace = scope.workspace
    size = int(asked.get("max_results") or 0)
    if limit and size >= limit:
        raise mlflow_error(
            400,
            "BAD_REQUEST",
            f"MaxResults = {size} is invalid: MaxResults must be less than {limit}.",
        )
    run = workspace.runs.get(asked.get("run_id") or asked.get("run_uuid") or "")
    key = asked.get("metric_key", "")
    kept = workspace.metric_rows == "kept" or workspace.metric_store == KEPT_IN_MEMORY
    if kept and run and key in run.series:
        start = int(asked.get("page_token") or 0)
        rows, more = run.series[key].page(key, start, size)
        value: dict[str, Any] = {"metrics": rows}
        if more:
            value["next_page_token"] = str(start + size)
        status = 200
    else:
        text = urlencode(asked)
        status, value = await ask(emulator, scope, "GET", f"metrics/get-history?{text}")
    return Reply(status, CIMultiDict({"Content-Type": "application/json"}), json.dumps(value).encode())


def _over(field: str, limit: int, size: int) -> Refused:
    if field == "Parameters":
        # As azure-sdk-for-python#35685 quotes it: without a message on top.
        said = f"FieldName={field}, Limit={limit}, Size={size}."
        return mlflow_error(
            400, "INVALID_PARAMETER_VALUE", f"A field of the entity is over the size limit. {said}", ""
        )
    return mlflow_error(
        400,
        "BAD_REQUEST",
        f"A field of the entity is over the size limit. FieldName={field}, Limit={limit}, Size={size}. See "
        "https://aka.ms/azure-machine-learning-limits for service limits documentation.",
        "ValidationError",
    )


def _parts(endpoint: str, asked: dict[str, Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """Return the metrics, params and tags that a request would write into a run."""
    match endpoint:
        case "runs/log-batch":
            return tuple(asked.get(kind) or [] for kind in ("metrics", "params", "tags"))  # type: ignore[return-value]
        case "runs/log-metric":
            return [asked], [], []
        case "runs/log-parameter":
            return [], [asked], []
        case "runs/set-tag":
            return [], [], [asked]
        case "runs/create":
            return [], [], asked.get("tags") or []
    return [], [], []


def _check(workspace: Workspace, endpoint: str, asked: dict[str, Any]) -> Run | None:
    """Refuse what Azure ML refuses; return what is known about the run."""
    if endpoint in ("experiments/create", "experiments/update"):
        name = asked.get("name") or asked.get("new_name") or ""
        if not EXPERIMENT.fullmatch(name):
            raise mlflow_error(
                400,
                "BAD_REQUEST",
                "Experiment name must be 1-256 characters, start with a letter or a number, and "
                "can only contain "
                "letters, numbers, underscores, and dashes.",
            )
    if endpoint == "runs/search" and workspace.metric_store == KEPT_IN_MEMORY:
        # The real server would silently find none.
        wanted = " ".join([asked.get("filter") or "", *(asked.get("order_by") or [])])
        if re.search(r"\bmetrics?\.", re.sub(r"'[^']*'", "''", wanted)):
            raise mlflow_error(501, "NOT_IMPLEMENTED", "Points kept in memory cannot be searched for.")
    if endpoint.endswith("/set-tag") and not endpoint.startswith("runs/") and ":" in asked.get("key", ""):
        raise mlflow_error(400, "BAD_REQUEST", f"Invalid tag key: {asked['key']}")
    metrics, params, tags = _parts(endpoint, asked)
    if not (metrics or params or tags):
        return None
    number = asked.get("run_id") or asked.get("run_uuid") or ""
    run = workspace.runs.setdefault(number, Run()) if number else Run()
    counts: dict[str, int] = {}
    for row in metrics:
        counts[row["key"]] = counts.get(row["key"], 0) + 1
        if not workspace.accepts_nan and not math.isfinite(float(row["value"])):
            raise mlflow_error(
                400, "BAD_REQUEST", f"The value of metric {row['key']} is not a finite number."
            )
    if counts and max(counts.values()) > VALUES_LIMIT:
        raise _over("MetricV2Dto.Value/Count", VALUES_LIMIT, max(counts.values()))
    for field, there, keys, limit in (
        ("RunDto.Metrics/Count", run.metrics, counts, METRICS_LIMIT),
        ("Parameters", run.params, {one["key"] for one in params}, PARAMS_LIMIT),
        ("RunDto.Tags/Count", run.tags, {one["key"] for one in tags}, TAGS_LIMIT),
    ):
        size = len(there | set(keys))
        if keys and size > limit:
            raise _over(field, limit, size)
    for tag in tags:
        if len(tag["key"]) > TAG_KEY_LIMIT:
            raise _over("RunDto.Tags/Key", TAG_KEY_LIMIT, len(tag["key"]))
        if len(tag.get("value") or "") > TAG_VALUE_LIMIT:
            raise _over("RunDto.Tags/Value", TAG_VALUE_LIMIT, len(tag["value"]))
        if tag["key"] == "mlflow.user" and endpoint != "runs/create":
            raise mlflow_error(400, "BAD_REQUEST", "The tag mlflow.user cannot be set.")
    return run


def _remember(
    workspace: Workspace, endpoint: str, asked: dict[str, Any], value: dict[str, Any], run: Run | None
) -> None:
    if endpoint == "runs/create":
        run = workspace.runs.setdefault(value["run"]["info"]["run_id"], Run())
    elif endpoint == "runs/delete-tag":
        other = workspace.runs.setdefault(asked["run_id"], Run())
        other.tags.discard(asked["key"])
        if other.seen:
            left = {key: value for key, value in other.seen[-1][1].items() if key != asked["key"]}
            other.seen.append((time.time(), left))
    elif endpoint in ("runs/delete", "runs/restore"):
        workspace.runs.setdefault(asked["run_id"], Run()).is_active = False
    if run is None:
        return
    metrics, params, tags = _parts(endpoint, asked)
    run.params |= {one["key"] for one in params}
    run.tags |= {one["key"] for one in tags}
    # Nothing earlier is known about a run that did not begin here.
    if run.seen or endpoint == "runs/create":
        now = dict(run.seen[-1][1]) if run.seen else {}
        run.seen.append((time.time(), now | {one["key"]: one.get("value") or "" for one in tags}))
    twice = workspace.metric_rows == "kept"
    for row in metrics:
        run.metrics.add(row["key"])
        if twice or workspace.metric_store == KEPT_IN_MEMORY:
            run.series.setdefault(row["key"], Series()).add(row, twice)


def show_points(workspace: Workspace, value: dict[str, Any]) -> None:
    """Add the latest point of each metric that is kept in memory to the runs of an answer."""
    if workspace.metric_store != KEPT_IN_MEMORY:
        return
    for shown in _runs(value):
        run = workspace.runs.get(shown["info"]["run_id"])
        if run and run.series:
            rows = shown.setdefault("data", {}).setdefault("metrics", [])
            rows[:] = [row for row in rows if row["key"] not in run.series]
            rows += [series.latest(key) for key, series in run.series.items()]


def _runs(value: dict[str, Any]) -> list[dict[str, Any]]:
    return [*(value.get("runs") or []), *([value["run"]] if "run" in value else [])]


def _as_it_was(workspace: Workspace, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what an outdated search shows of runs: the runs at that time, with their tags at that time."""
    shown, until = [], workspace.listed_until
    for run in runs:
        # If it was not created through this service, a test put it there, as if some time ago.
        seen = known.seen if (known := workspace.runs.get(run["info"]["run_id"])) else []
        earlier = [tags for when, tags in seen if when <= until]
        if earlier and len(earlier) < len(seen):
            run["data"]["tags"] = [{"key": key, "value": value} for key, value in earlier[-1].items()]
        if earlier or not seen:
            shown.append(run)
    return shown


def _rewrite(workspace: Workspace, value: dict[str, Any]) -> None:
    """Change the addresses of artifacts from the real server's to Azure ML's."""
    infos = [run["info"] for run in _runs(value)] + ([value["run_info"]] if "run_info" in value else [])
    for info in infos:
        info["artifact_uri"] = (
            f"azureml://{AZUREML}/mlflow/v2.0{workspace.id}/experiments/{info['experiment_id']}"
            f"/runs/{info['run_id']}/artifacts"
        )
    for experiment in [*(value.get("experiments") or []), value.get("experiment") or {}]:
        if experiment:
            experiment["artifact_location"] = ""
