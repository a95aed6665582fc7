"""MLflow: a run with 50,000 points and 250 MB to a real MLflow server in a separate process."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from bench import environments, runs
from bench.harness import BenchError, Comparison, Goal, Result, Sample, Side, compare, run_side, times_faster
from builders import mlflow_servers

POINTS = 50_000
SIZE = 250_000_000


def results(rounds: int | None) -> Iterator[Result]:
    """See the module's first line."""
    folder = environments.scratch() / "mlflow"
    with mlflow_servers.server(folder) as server:
        yield compare(comparison(server.url), rounds)


def comparison(url: str, points: int = POINTS, size: int = SIZE) -> Comparison:
    """Both sides read the event file, send points, checkpoint and event file, and register a version."""
    run = runs.run("mlflow", points, 1, size)

    def ours() -> Sample:
        name = f"bench-{uuid.uuid4().hex[:8]}"
        program = environments.ours().with_name("aml-mirror")
        command = [program, run, "--run-id", name, "--model-name", name, "--tracking-uri", url, "--json"]
        return _arrived(url, name, run_side(command, environments.environment(), prints_sample=False))

    def script() -> Sample:
        name = f"bench-{uuid.uuid4().hex[:8]}"
        given = {"run": str(run), "name": name, "url": url}
        command = [environments.peers(), environments.SIDES / "plain_mlflow.py", json.dumps(given)]
        return _arrived(url, name, run_side(command, environments.environment(), prints_sample=False))

    return Comparison(
        "mlflow-server",
        f"MLflow: a run with {points:,} points and {size // 1_000_000} MB to a real MLflow server",
        [
            Side("ours", "the whole program: examines, hashes, sends, compares sizes, registers", ours),
            Side(
                "script",
                "a hand-written script: tensorboard's reader, 1,000 points per `log_batch`, one "
                "model version; nothing hashed or compared",
                script,
            ),
        ],
        [Goal("ours ≥ 1.0 × as fast as the script", 1, False, times_faster("ours", "script"))],
        "ours",
        note="Whole processes, including their start.",
    )


def _arrived(url: str, name: str, sample: Sample) -> Sample:
    """The sample with what the server stored. The files are removed afterwards."""
    client = MlflowClient(url, url)
    (version,) = client.search_model_versions(f"name = '{name}'")
    run = client.get_run(version.run_id)
    points = sum(len(client.get_metric_history(version.run_id, key)) for key in run.data.metrics)
    store = get_artifact_repository(run.info.artifact_uri, url)
    sizes = {Path(item.path).name: int(item.file_size or 0) for item in store.list_artifacts("model")}
    if not sizes:
        raise BenchError(f"{name} has no files")
    store.delete_artifacts()
    work = {"points": points, "bytes": sizes["model.safetensors"]}
    return replace(sample, work=work)
