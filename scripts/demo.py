#!/usr/bin/env python3
"""Mirror a small run into a local MLflow database, twice, and show what happened.

The run is written with the libraries that training frameworks use: TensorBoard's event writer and
safetensors. Its layout is that of a Hugging Face training that saved twice and logged every step.

Usage: demo.py FOLDER      (FOLDER is deleted first)
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from safetensors.numpy import save_file
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from aml_mirror.registries.pages import mlflow_pages

RUN_ID = "demo-reach-7"
MODEL = "demo-reach"
STEPS = 400


def write_events(session: Path, first: int, last: int) -> list[dict[str, float]]:
    """Log the steps from ``first`` to ``last`` into a folder; return them as entries of a trainer's log."""
    session.mkdir(parents=True)
    writer = EventFileWriter(str(session))
    started = time.time() - last
    history = []
    for step in range(first, last + 1):
        loss = 2.0 * math.exp(-step / 120) + 0.05 * math.sin(step / 7)
        values = {"train/loss": loss, "train/learning_rate": 1e-4 * (1 - step / STEPS)}
        if step % 50 == 0:
            values["eval/success_rate"] = 1 - math.exp(-step / 150)
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        writer.add_event(Event(wall_time=started + step, step=step, summary=summary))
        history.append({"loss": loss, "step": step})
    writer.close()
    return history


def make_run(root: Path) -> None:
    """Write a run of ``STEPS`` steps: event files, two checkpoints, and the trainer's other files."""
    history = write_events(root / "runs" / "Nov24_09-00-00_demo", 1, STEPS)
    random = np.random.default_rng(7)
    for step in (STEPS // 2, STEPS):
        folder = root / f"checkpoint-{step}"
        folder.mkdir()
        weights = {f"layers.{i}.weight": random.normal(size=(256, 256)).astype(np.float32) for i in range(4)}
        save_file(weights, folder / "model.safetensors")
        config = {"model_type": "demo_policy", "hidden_size": 256, "hub_token": "a-secret-that-stays-here"}
        (folder / "config.json").write_text(json.dumps(config, indent=2))
        (folder / "optimizer.pt").write_bytes(bytes(4096))
        state = {"global_step": step, "log_history": history[:step], "best_model_checkpoint": None}
        (folder / "trainer_state.json").write_text(json.dumps(state))


def show(program: str, *arguments: str) -> str:
    """Run a command as a person would type it, show both, and return what it printed on stdout."""
    print(f"\n$ aml-mirror {' '.join(arguments)}", flush=True)
    done = subprocess.run([program, *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"the demo failed: exit code {done.returncode}")
    return done.stdout


def main() -> None:
    """Run the demo in the folder that the command line names."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(str(__doc__).strip().splitlines()[-1])
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    run = folder / "runs" / RUN_ID
    make_run(run)
    program = str(Path(sys.executable).with_name("aml-mirror"))
    database = f"sqlite:///{folder}/mlflow.db"
    target = ("--model-name", MODEL, "--tracking-uri", database)

    print(f"A run is in {run}. What would be mirrored of it?")
    print(show(program, "plan", "--source", str(run), "--model-name", MODEL), end="")

    print("\nMirror it; the receipt is one line of JSON, shown here with one line per key:")
    first = json.loads(show(program, "--source", str(run), *target, "--json"))
    print(json.dumps(first, indent=2))

    print("\nMirror it again: nothing is read, nothing is sent.")
    second = json.loads(show(program, "--source", str(run), *target, "--json"))
    short = {key: second[key] for key in ("outcome", "model_uri", "bytes_sent", "seconds")}
    print(json.dumps(short, indent=2))
    if (first["outcome"], second["outcome"]) != ("mirrored", "already-mirrored"):
        sys.exit("the demo failed: the outcomes are not mirrored, then already-mirrored")

    print(show(program, "status", "--run-id", RUN_ID, *target), end="")
    mlflow = Path(sys.executable).with_name("mlflow")
    experiment = MlflowClient(database, database).get_run(first["mlflow_run_id"]).info.experiment_id
    pages = mlflow_pages(
        "http://127.0.0.1:5000", experiment, MODEL, first["model_version"], first["mlflow_run_id"]
    )
    print(
        "\nTo look at it in the browser, start MLflow's server:\n"
        f"  {mlflow} server --backend-store-uri {database} --host 127.0.0.1 --port 5000\n"
        f"and open the version or its run:\n  {pages.version}\n  {pages.run}"
    )


if __name__ == "__main__":
    main()
