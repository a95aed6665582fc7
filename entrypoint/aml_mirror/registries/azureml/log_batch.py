"""A batch of points, sent as MLflow's client sends it, for a fraction of the CPU.

Of the 7 ms of CPU that 200 points cost with ``MlflowClient.log_batch`` (mlflow-skinny 3.15), 5 go into
protobuf messages, their indented JSON, and reading that again. All partitions share one
interpreter, so this limits their speed, and not the network. Here the body is written directly. The request
then goes through the same store of the plugin, with its login and its errors.
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
    """Send points and tags in one request; errors are those of ``MlflowClient.log_batch``."""
    call_endpoint(client, LogBatch, json.dumps(body(run_id, points, tags)))


def body(run_id: str, points: Sequence[Point], tags: dict[str, str]) -> dict[str, Any]:
    """What MLflow's ``message_to_json`` makes of the same ``LogBatch``."""
    metrics = [
        {"key": name, "value": _number(value), "timestamp": int(timestamp), "step": int(step)}
        for name, value, timestamp, step in points
    ]
    return {"run_id": run_id, "metrics": metrics, "tags": [{"key": key, "value": tags[key]} for key in tags]}


def _number(value: float) -> float | str:
    """JSON has no word for these; protobuf's does (protobuf.dev, ProtoJSON)."""
    if math.isfinite(value):
        return float(value)
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
