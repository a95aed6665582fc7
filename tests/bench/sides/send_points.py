"""Send the points of a run to the workspace that the environment names, in one of three ways."""

from __future__ import annotations

import os
import uuid

from measure import Timer, arguments, report

given = arguments()
way, points = given["way"], given["points"]
names = [f"train/metric_{number:02d}" for number in range(given["tags"])]
name = f"bench-{uuid.uuid4().hex[:8]}"

if way == "ours":
    # The program's own stage: it reads the event file and sends the points.
    from pathlib import Path

    from aml_mirror.cli.arguments import parser
    from aml_mirror.core.settings import resolve
    from aml_mirror.metrics.series import read_metrics
    from aml_mirror.registries import keys
    from aml_mirror.registries.azureml.workspace_loader import load_workspace
    from aml_mirror.registries.records import Version
    from aml_mirror.sources.local import LocalSource
    from aml_mirror.sources.tree import Tree

    settings = resolve(parser().parse_args(["mirror"]), os.environ, Path.cwd())
    workspace = load_workspace(settings, print)
    source = LocalSource(given["run"])
    metrics = read_metrics(Tree(source, source.scan()))
    tags = {keys.RUN_ID: name, keys.MODEL_NAME: name, keys.IDENTITY: name}
    tags |= {keys.CHECKPOINT: "checkpoint-100", keys.MANIFEST_SHA256: "0" * 64}
    writer = workspace.begin(name, name, tags)
    if isinstance(writer, Version):
        raise SystemExit("there is already such a version")
    with Timer() as timer:
        sent = writer.log_metrics(metrics.stream, lambda count: None)
    run_id = writer.run_id
    writer.abort("FINISHED", "")
else:
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    workspace = MLClient(
        DefaultAzureCredential(),
        os.environ["AZURE_SUBSCRIPTION_ID"],
        os.environ["AZURE_RESOURCE_GROUP"],
        os.environ["AZUREML_WORKSPACE_NAME"],
    )
    uri = workspace.workspaces.get(workspace.workspace_name).mlflow_tracking_uri
    client = MlflowClient(uri, uri)
    run_id = client.create_run(client.create_experiment(name)).info.run_id
    rows = [
        (names[index % len(names)], 1.0 / (index + 1), 1_760_000_000_000 + 1000 * index, index // len(names))
        for index in range(points)
    ]
    sent = len(rows)
    if way == "log_metric":
        with Timer() as timer:
            for row in rows:
                client.log_metric(run_id, *row)
    elif way == "log_batch":
        with Timer() as timer:
            for start in range(0, len(rows), 200):
                client.log_batch(run_id, [Metric(*row) for row in rows[start : start + 200]])
    else:
        raise SystemExit(f"no way {way}")

report(timer, {"points": sent}, run=int(run_id.replace("-", ""), 16))
