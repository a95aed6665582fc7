"""Scale: time and memory of the whole program for growing numbers of points, files and runs.

Each size is mirrored into the emulated workspace three times, each time by a new process, because the start
of the program varies by as much as the smaller sizes take. The emulator keeps the points in memory. The
MLflow server behind it would take minutes for the largest number, and its growth is not the subject. A
backfill does ask that server for its runs, and later pages take it longer. So the table shows the program's
own CPU time as well. The runs of a backfill are already mirrored, as in a backfill that is repeated each
night. A first backfill costs one mirror per run, whatever their number. `make bench-scale` adds the largest
sizes.
"""

from __future__ import annotations

import json
import statistics
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from aml_mirror.registries import keys
from aml_mirror.registries.azureml.version_tags import VERSION
from aml_mirror.sources.hashing import quick_key
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from azure_emulator.client import Azure
from bench import emulator, environments, runs, upload
from bench.growth import Curve, Point
from bench.harness import BenchError, Result, compare, run_side
from builders.runs import huggingface_run

POINTS = (1_000, 10_000, 100_000)
FILES = (10, 100, 1_000)
RUNS = (10, 100, 1_000)
LARGE_POINTS, LARGE_FILES, LARGE_RUNS = 1_000_000, 1_500, 10_000
LARGE_UPLOAD = 4 << 30  # bytes
ROUNDS = 3
_FILES = ["checkpoint-20/config.json", "checkpoint-20/model.safetensors"]


def curves(large: bool) -> Iterator[Curve]:
    """Measure the curves."""
    with emulator.scope() as azure:
        azure.set_workspace(metric_store="memory")
        sizes = (*POINTS, LARGE_POINTS) if large else POINTS
        yield Curve("Points", "points of a run", medians(points, azure, sizes))
        sizes = (*FILES, LARGE_FILES) if large else FILES
        yield Curve("Files", "files of a checkpoint", medians(files, azure, sizes))
        sizes = (*RUNS, LARGE_RUNS) if large else RUNS
        yield Curve("Runs", "runs of a backfill, mirrored already", list(backfill(azure, sizes)))


def medians(
    measure: Callable[[Azure, int], Point], azure: Azure, sizes: Sequence[int], rounds: int = ROUNDS
) -> list[Point]:
    """Measure each size several times."""
    return [_median([measure(azure, size) for _ in range(rounds)]) for size in sizes]


def _median(taken: Sequence[Point]) -> Point:
    seconds = statistics.median(point.seconds for point in taken)
    cpu = statistics.median(point.cpu for point in taken)
    return Point(taken[0].size, seconds, cpu, round(statistics.median(point.resident for point in taken)))


def points(azure: Azure, count: int) -> Point:
    """A run with this number of points and a small checkpoint."""
    run = runs.run("scale-points", count, 1, 10_000)
    receipt, point = _mirror(azure, run, count)
    if receipt["points"] != count:
        raise BenchError(f"{receipt['points']} of {count} points were mirrored")
    return point


def files(azure: Azure, count: int) -> Point:
    """A checkpoint with this number of files of 10 KB."""
    # One of them is config.json.
    run = runs.run("scale-files", 100, count - 1, 10_000)
    receipt, point = _mirror(azure, run, count)
    if receipt["files"] != count:
        raise BenchError(f"{receipt['files']} of {count} files were mirrored")
    return point


def backfill(azure: Azure, sizes: Sequence[int], rounds: int = ROUNDS) -> Iterator[Point]:
    """Growing numbers of runs in one folder. Each run is mirrored before the backfill is measured."""
    name = f"backfill-{uuid.uuid4().hex[:6]}"
    folder = environments.scratch() / name
    program = environments.ours().with_name("aml-mirror")
    command = [program, "backfill", "--source", folder, "--model-name", name, "--json"]
    # The program mirrors the first run, which is the pattern for the others.
    _small_run(folder, 1)
    run_side(command, emulator.environment(azure), prints_sample=False)
    made = 1
    for size in sizes:
        seed(azure, name, folder, made, size)
        made = size
        taken = [_backfill_again(azure, command, name, size) for _ in range(rounds)]
        yield _median(taken)


def _backfill_again(azure: Azure, command: Sequence[str | Path], name: str, size: int) -> Point:
    sample = run_side(command, emulator.environment(azure), prints_sample=False)
    summary = json.loads(sample.said.splitlines()[-1])
    if summary["already_mirrored"] != size or len(azure.models()[name]) != size:
        raise BenchError(f"a backfill of {size} mirrored runs says {sample.said[-500:]}")
    return Point(size, sample.seconds, sample.cpu, sample.resident)


def seed(azure: Azure, name: str, folder: Path, there: int, wanted: int) -> None:
    """Make more runs like the first, and put into the workspace what mirroring each would leave there."""
    pattern = azure.models()[name]["1"]
    experiment = azure.mlflow.get_experiment_by_name(name)
    tags = azure.mlflow.get_run(pattern["properties"]["mlflow_run_id"]).data.tags
    kept = {tag: text for tag, text in tags.items() if not tag.startswith("mlflow.")}

    def make(number: int) -> None:
        target = _small_run(folder, number)
        source = LocalSource(str(target))
        key = quick_key(Tree(source, source.scan()), target.name, "checkpoint-20", _FILES)
        own = {keys.RUN_ID: target.name, keys.OUTPUT_DIR: str(target), keys.QUICK_KEY: key}
        own |= {keys.IDENTITY: f"of-run-{number}", VERSION: str(number)}
        made = azure.mlflow.create_run(experiment.experiment_id, tags={**kept, **own})
        azure.mlflow.update_run(made.info.run_id, "FINISHED")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(make, range(there + 1, wanted + 1)))
    # In the seeded records, {n} becomes the number of the version.
    properties = {**pattern["properties"], keys.RUN_ID: "run-{n}", keys.IDENTITY: "of-run-{n}"}
    # A version counts as ours only if its path is that of its own run. Logs without a stored state, as
    # earlier releases left them, count as unchanged.
    path = pattern["modelUri"].replace("/run-1/", "/run-{n}/")
    tags = {key: text for key, text in pattern["tags"].items() if key != "mirror.logs"}
    more = {"tags": tags, "properties": properties, "modelUri": path}
    azure.seed_versions(name, wanted - there, **more)


def _small_run(folder: Path, number: int) -> Path:
    return huggingface_run(folder / f"run-{number}", steps=(20,), points=10, size=8)


def _mirror(azure: Azure, run: Path, size: int) -> tuple[dict[str, int], Point]:
    name = f"scale-{uuid.uuid4().hex[:8]}"
    program = environments.ours().with_name("aml-mirror")
    command = [program, "--source", run, "--run-id", name, "--model-name", name, "--json"]
    sample = run_side(command, emulator.environment(azure), prints_sample=False)
    receipt = json.loads(sample.said.splitlines()[-1])
    if receipt["outcome"] != "mirrored":
        raise BenchError(f"{run.name} was not mirrored")
    return receipt, Point(size, sample.seconds, sample.cpu, sample.resident)


def large_upload(rounds: int | None) -> Iterator[Result]:
    """The upload of :mod:`bench.upload` with a file of 4 GiB. The memory must be the same.

    The other goals are those of the smaller file, and are still shown.
    """
    with emulator.scope() as azure, upload.sink() as where:
        whole = upload.big(azure, where, LARGE_UPLOAD)
        sides = [side for side in whole.sides if side.name in ("ours", "upload_blob", "azcopy", "curl")]
        yield compare(replace(whole, name="upload-4gib", sides=sides), rounds or 3)
