"""Send a run to an MLflow server, as a hand-written script would."""

from __future__ import annotations

from pathlib import Path

from measure import arguments
from mlflow import MlflowClient
from mlflow.entities import Metric
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

given = arguments()
run, name = Path(given["run"]), given["name"]
client = MlflowClient(given["url"], given["url"])
run_id = client.create_run(client.create_experiment(name)).info.run_id
(events,) = run.rglob("events.out.tfevents.*")
reader = EventAccumulator(str(events), size_guidance={"scalars": 0, "tensors": 0})
reader.Reload()
rows: list[Metric] = []
for tag in reader.Tags()["scalars"]:
    rows += [Metric(tag, item.value, int(item.wall_time * 1000), item.step) for item in reader.Scalars(tag)]
for tag in reader.Tags()["tensors"]:
    rows += [
        Metric(tag, float(item.tensor_proto.float_val[0]), int(item.wall_time * 1000), item.step)
        for item in reader.Tensors(tag)
    ]
for start in range(0, len(rows), 1000):
    client.log_batch(run_id, metrics=rows[start : start + 1000])
for path in (run / "checkpoint-100").iterdir():
    if path.name in ("model.safetensors", "config.json"):
        client.log_artifact(run_id, str(path), "model")
client.log_artifact(run_id, str(events), "tensorboard")
client.create_registered_model(name)
client.create_model_version(name, f"runs:/{run_id}/model", run_id, await_creation_for=0)
client.set_terminated(run_id)
