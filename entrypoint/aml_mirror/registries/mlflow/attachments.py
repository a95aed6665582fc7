"""Adds something to a complete version: see :meth:`aml_mirror.registries.base.Registry.attach`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence

from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag

from aml_mirror.core.errors import ConfigurationError, DataError
from aml_mirror.registries import keys
from aml_mirror.registries.attached_marks import ATTACHED, attached_marks, marks_with
from aml_mirror.registries.mlflow.artifact_store import ArtifactStores
from aml_mirror.registries.records import Point, Version
from aml_mirror.support.retry import Retry


def put_text(
    client: MlflowClient, stores: ArtifactStores, retry: Retry, version: Version, name: str, text: str
) -> None:
    """Write a small file to the run of a version."""
    run_id = version.tags.get(keys.MLFLOW_RUN_ID, "")
    location = str(retry(lambda: client.get_run(run_id)).info.artifact_uri)
    store_retry = stores.retry_for(location)
    store = store_retry(lambda: stores.open(location))
    folder, _, last = name.rpartition("/")
    with tempfile.TemporaryDirectory(prefix="aml-mirror-") as scratch:
        local = os.path.join(scratch, last)
        with open(local, "w", encoding="utf-8") as stream:
            stream.write(text)
        store_retry(lambda: store.log_artifact(local, folder or None))


def put_points(
    client: MlflowClient, retry: Retry, version: Version, points: Sequence[Point], mark: str
) -> list[str]:
    """Send points to the run of a version, once, with a mark that says that they are there."""
    run_id = version.tags.get(keys.MLFLOW_RUN_ID, "")
    metrics = [Metric(name, value, time, step) for name, value, time, step in points]
    if not metrics:
        return []
    try:
        marks = attached_marks(retry(lambda: client.get_run(run_id)).data.tags)
        if mark in marks:
            return []
        tags = [RunTag(ATTACHED, marks_with(marks, mark))]
        retry(lambda: client.log_batch(run_id, metrics=metrics, tags=tags, synchronous=True))
    except (ConfigurationError, DataError) as error:
        return [f"the metrics were not written to the run {run_id}: {error.message}"]
    return []
