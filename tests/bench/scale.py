"""Scale: time and memory of the whole program against points, files and runs, to the emulated workspace.

Each size is mirrored three times, each time by a process of its own: the start of the program scatters by as
much as the work of the smaller ones takes. The emulator keeps the points in memory: the MLflow server behind
it would take minutes for the largest number, and its growth is not what is asked for. Where that server is
asked, for the runs of a backfill, it takes longer for each page the further behind it is; so the program's
own CPU is beside the time.
The runs of a backfill are mirrored already: that is what one that is repeated each night finds, and a first
one costs a mirror for each run, whatever their number.
`make bench-scale` adds the largest sizes.
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
    """Measure."""
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
    """Measure each size so often."""
    return [_median([measure(azure, size) for _ in range(rounds)]) for size in sizes]


def _median(taken: Sequence[Point]) -> Point:
    seconds = statistics.median(point.seconds for point in taken)
    cpu = statistics.median(point.cpu for point in taken)
    return Point(taken[0].size, seconds, cpu, round(statistics.median(point.resident for point in taken)))


def points(azure: Azure, count: int) -> Point:
    """A run with so many points and a small checkpoint."""
    run = runs.run("scale-points", count, 1, 10_000)
    receipt, point = _mirror(azure, run, count)
    if receipt["points"] != count:
        raise BenchError(f"{receipt['points']} of {count} points were mirrored")
    return point


def files(azure: Azure, count: int) -> Point:
    """A checkpoint of so many files of 10 KB."""
    # config.json is one of them.
    run = runs.run("scale-files", 100, count - 1, 10_000)
    receipt, point = _mirror(azure, run, count)
    if receipt["files"] != count:
        raise BenchError(f"{receipt['files']} of {count} files were mirrored")
    return point


def backfill(azure: Azure, sizes: Sequence[int], rounds: int = ROUNDS) -> Iterator[Point]:
    """Ever more runs below one folder, each mirrored before it is counted."""
    name = f"backfill-{uuid.uuid4().hex[:6]}"
    folder = environments.scratch() / name
    program = environments.ours().with_name("aml-mirror")
    command = [program, "backfill", "--source", folder, "--model-name", name, "--json"]
    # The first is mirrored by the program, and is the pattern of the others.
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
    """Make more runs like the first, and what a mirror of each leaves in the workspace."""
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
    # In what is seeded, {n} becomes the number of the version.
    properties = {**pattern["properties"], keys.RUN_ID: "run-{n}", keys.IDENTITY: "of-run-{n}"}
    # A version is ours only where its path is that of its own run. Without a state of the logs, as earlier
    # releases left it, they count as unchanged.
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
    """The upload of :mod:`bench.upload` with a file of 4 GiB: the memory has to be the same.

    The other goals are those of the smaller file, and shown all the same.
    """
    with emulator.scope() as azure, upload.sink() as where:
        whole = upload.big(azure, where, LARGE_UPLOAD)
        sides = [side for side in whole.sides if side.name in ("ours", "upload_blob", "azcopy", "curl")]
        yield compare(replace(whole, name="upload-4gib", sides=sides), rounds or 3)
