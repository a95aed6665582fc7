"""Sends a batch of points in the same form as MLflow's client, with a fraction of the CPU.

``MlflowClient.log_batch`` (mlflow-skinny 3.15) takes 7 ms of CPU for 200 points. 5 of these go into protobuf
messages, their indented JSON, and parsing it again. All partitions share one interpreter, so the CPU limits
their speed, not the network. Here the body is written directly. The request then goes through the same store
of the plugin, with its login and its errors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.protos.service_pb2 import LogBatch

from aml_mirror.registries.records import Point
from aml_mirror.support.library_internals import call_endpoint


def log_batch(client: MlflowClient, run_id: str, points: Sequence[Point], tags: dict[str, str]) -> None:
    """Send points and tags in one request. Errors are those of ``MlflowClient.log_batch``."""
    call_endpoint(client, LogBatch, json.dumps(body(run_id, points, tags)))


def body(run_id: str, points: Sequence[Point], tags: dict[str, str]) -> dict[str, Any]:
    """Return what MLflow's ``message_to_json`` produces from the same ``LogBatch``."""
    metrics = [
        {"key": name, "value": _number(value), "timestamp": int(timestamp), "step": int(step)}
        for name, value, timestamp, step in points
    ]
    return {"run_id": run_id, "metrics": metrics, "tags": [{"key": key, "value": tags[key]} for key in tags]}


def _number(value: float) -> float | str:
    """JSON cannot express these numbers; protobuf's JSON can (protobuf.dev, ProtoJSON)."""
    if math.isfinite(value):
        return float(value)
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
