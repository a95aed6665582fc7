"""Translates between the real server's values and the form in which Azure ML's MLflow service shows them.

Recorded (promptflow and azure-ai-evaluation, test_metrics_upload): ids of experiments and runs are GUIDs with
dashes, times are strings, ``mlflow.user`` is listed twice among the tags of a run, beside
``mlflow.rootRunId`` and ``mlflow.runName``, and ``runs/update`` answers without ``artifact_uri``. The real
server has 32 hexadecimal digits and numbers. Both forms have the same value, so nothing has to be stored.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import Any

RUN_KEYS = ("run_id", "run_uuid")
EXPERIMENT_KEYS = ("experiment_id", "experiment_ids")
TIME_KEYS = ("start_time", "end_time", "creation_time", "last_update_time")


def shown(value: Any, key: str = "") -> Any:
    """Return an answer of the real server in Azure ML's form."""
    if isinstance(value, dict):
        return {name: shown(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [shown(one, key) for one in value]
    with suppress(ValueError):
        if key in RUN_KEYS and isinstance(value, str) and len(value) == 32:
            return str(uuid.UUID(hex=value))
        if key in EXPERIMENT_KEYS and str(value).isdecimal():
            return str(uuid.UUID(int=int(value)))
    if key in TIME_KEYS and type(value) is int:
        return str(value)
    return value


def taken(value: Any, key: str = "") -> Any:
    """Return a client's request in the real server's form."""
    if isinstance(value, dict):
        return {name: taken(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [taken(one, key) for one in value]
    if key in RUN_KEYS:
        return run_taken(str(value))
    if key in EXPERIMENT_KEYS:
        with suppress(ValueError):
            if len(str(value)) == 36:
                return str(uuid.UUID(str(value)).int)
    return value


def run_taken(run: str) -> str:
    """Return the real server's id of a run."""
    with suppress(ValueError):
        if len(run) == 36:
            return uuid.UUID(run).hex
    return run


def with_own_tags(run: dict[str, Any]) -> None:
    """Add the tags that Azure ML lists for every run."""
    info, data = run["info"], run.setdefault("data", {})
    tags = data.setdefault("tags", [])
    user = next((tag["value"] for tag in tags if tag["key"] == "mlflow.user"), "emulator")
    there = {tag["key"] for tag in tags}
    for name, text in (
        ("mlflow.user", user),
        ("mlflow.user", user),
        ("mlflow.rootRunId", info["run_id"]),
        ("mlflow.runName", info.get("run_name") or ""),
    ):
        if name not in there:
            tags.append({"key": name, "value": text})
    if "mlflow.user" in there:
        tags.append({"key": "mlflow.user", "value": user})
