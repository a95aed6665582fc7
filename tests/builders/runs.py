"""Writes runs with the same libraries as frameworks: TensorBoard's event writer and safetensors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from builders.saved import safetensors, write_json

WALL_TIME = 1_760_000_000.0  # seconds; any fixed moment


def write_events(path: Path, rows: list[tuple[str, int, float]], begun: float = WALL_TIME) -> None:
    """Write (tag, step, value) rows into one event file. Each point is one second after the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        writer = RecordWriter(stream)
        writer.write(Event(wall_time=begun, file_version="brain.Event:2").SerializeToString())
        for index, (tag, step, value) in enumerate(rows):
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            event = Event(wall_time=begun + index, step=step, summary=summary)
            writer.write(event.SerializeToString())
        writer.flush()


def write_weights(path: Path, seed: int = 0, size: int = 64) -> None:
    """Write a safetensors file of about ``4 * size ** 2`` bytes. The same seed gives the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).normal(size=(size, size)).astype(np.float32)
    save_file({"policy.weight": values}, path)


def grow_events(run: Path, rows: list[tuple[str, int, float]]) -> None:
    """Append to a run's only event file. ``rows`` are all rows, including existing ones."""
    path, longer = next((run / "runs").rglob("events*")), run.parent / "longer"
    before = path.read_bytes()
    write_events(longer, rows)
    whole = longer.read_bytes()
    longer.unlink()
    assert whole.startswith(before) and len(whole) > len(before)
    # A mirror may be reading it, so it must never become shorter.
    with path.open("ab") as stream:
        stream.write(whole[len(before) :])


def huggingface_run(
    root: Path,
    steps: tuple[int, ...] = (10, 20),
    points: int = 30,
    size: int = 64,
    series: tuple[str, ...] = ("train/loss",),
) -> Path:
    """Write a small Hugging Face run with an event file and ``points`` points per series; return its root."""
    rows = [(name, step, 1.0 / step) for step in range(1, points + 1) for name in series]
    write_events(root / "runs" / "Jan02_03-04-05_host" / "events.out.tfevents.1760000000.host.1.0", rows)
    for step in steps:
        folder = root / f"checkpoint-{step}"
        write_weights(folder / "model.safetensors", seed=step, size=size)
        (folder / "config.json").write_text(json.dumps({"model_type": "policy", "hidden_size": size}))
        (folder / "optimizer.pt").write_bytes(b"x" * 100)
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": []}))
    return root


def small_run(root: Path, seed: int = 0) -> Path:
    """Write a Hugging Face run with one checkpoint and no event file."""
    folder = root / "checkpoint-1"
    safetensors(folder / "model.safetensors", seed=seed)
    write_json(folder / "config.json", {"model_type": "policy"})
    write_json(folder / "trainer_state.json", {"global_step": 1, "log_history": []})
    return root
