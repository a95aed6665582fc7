"""The runs for the comparisons, created once below ``.bench/data``."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from bench.environments import DATA
from builders.runs import write_events

TAGS = 20
EVENTS = "events.out.tfevents.1760000000.host.1.0"
_CHUNK = 8 << 20


def event_rows(points: int, tags: int = TAGS) -> list[tuple[str, int, float]]:
    """``points`` points, spread evenly over the tags, in the order in which a training writes them."""
    names = [f"train/metric_{number:02d}" for number in range(tags)]
    return [(names[index % tags], index // tags, 1.0 / (index + 1)) for index in range(points)]


def event_file(points: int) -> Path:
    """An event file with this number of points in ``TAGS`` tags."""

    def make(folder: Path) -> None:
        write_events(folder / EVENTS, event_rows(points))

    return _once(f"events-{points}", make) / EVENTS


def run(name: str, points: int, files: int, size: int) -> Path:
    """A Hugging Face run with this number of points, and a checkpoint with files of this number and size."""

    def make(folder: Path) -> None:
        if points:
            write_events(folder / "runs" / "Jan02_03-04-05_host" / EVENTS, event_rows(points))
        checkpoint = folder / "checkpoint-100"
        checkpoint.mkdir(parents=True)
        safetensors(checkpoint / "model.safetensors", size)
        for number in range(files - 1):
            (checkpoint / f"part-{number:04d}.dat").write_bytes(os.urandom(size))
        (checkpoint / "config.json").write_text(json.dumps({"model_type": "policy"}))
        (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": 100, "log_history": []}))

    return _once(f"{name}-{points}-{files}-{size}", make)


def safetensors(path: Path, size: int) -> None:
    """A safetensors file of about this size, with one tensor of random content."""
    header = {"weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        left = size
        while left:
            left -= stream.write(os.urandom(min(_CHUNK, left)))


def files(name: str, count: int, size: int) -> Path:
    """A folder with random files of this number and size."""

    def make(folder: Path) -> None:
        for number in range(count):
            with (folder / f"file-{number:05d}.bin").open("wb") as stream:
                left = size
                while left:
                    left -= stream.write(os.urandom(min(_CHUNK, left)))

    return _once(f"{name}-{count}-{size}", make)


def _once(name: str, make: Callable[[Path], None]) -> Path:
    target = DATA / name
    if not target.exists():
        beside = DATA / f"{name}.part"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        make(beside)
        beside.rename(target)
    return target
