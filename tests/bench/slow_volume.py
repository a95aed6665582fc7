"""Upload from a slow volume: 1.6 GB at 150 MB/s into a pod of 1 GiB, and the same file from the page cache.

Control groups slow the volume (:mod:`bench.volume`). Without them only the warm sides run, and the title says
so. One side looks up the blocks of earlier versions (:mod:`bench.earlier`) of which none is equal, to show
the cost of reuse that finds nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from aml_mirror.registries.azureml.read_once import MOST_VERSIONS
from azure_emulator.client import Azure
from bench import earlier, emulator, environments, runs, upload, volume
from bench.harness import (
    MB,
    BenchError,
    Comparison,
    Goal,
    Result,
    Sample,
    Side,
    compare,
    run_side,
    times_as_long,
    times_faster,
)

SIZE = 1_600_000_000
BYTES_A_SECOND = 150_000_000
MEMORY = 1 << 30


def results(rounds: int | None) -> Iterator[Result]:
    """See the module's first line."""
    folder = runs.files("slow", 1, SIZE)
    (file,) = folder.iterdir()
    with emulator.scope() as azure, upload.sink() as where, volume.pod(file, BYTES_A_SECOND, MEMORY) as pod:
        made = comparison(azure, where, file, pod)
        # The workspace and its storage are as far away as the blob server.
        azure.fault("stall", seconds=upload.DELAY, times=0)
        yield compare(made, rounds)


def comparison(azure: Azure, where: upload.Sink, file: Path, pod: volume.Pod) -> Comparison:
    """One file, read from a cold and from a warm page cache."""
    folder, size = file.parent, file.stat().st_size
    model = f"slow-{uuid.uuid4().hex[:8]}"
    earlier.seed(azure, model, file.name, size)
    bare = environments.environment()

    def after(prepare: Callable[[Path], None], run: Callable[[], Sample]) -> Callable[[], Sample]:
        def call() -> Sample:
            prepare(file)
            before = pod.bytes_read()
            sample = run()
            seen = {"MB read": (pod.bytes_read() - before) / MB} if pod.kind else {}
            return replace(sample, facts={**sample.facts, **seen})

        return call

    cold, warm = partial(after, volume.drop_cache), partial(after, volume.warm)

    def read() -> Sample:
        command = pod.command(["dd", f"if={file}", "of=/dev/null", "bs=1M"])
        return run_side(command, bare, prints_sample=False)

    ours = upload.ours(where, folder, pod.command)
    seeking = upload.ours_after(azure, model, where, folder, pod.command)

    def nothing_to_reuse() -> Sample:
        sample = seeking()
        if sample.facts["blocks looked up"] != earlier.blocks_of(size):
            raise BenchError(f"{sample.facts['blocks looked up']} blocks of earlier versions were looked up")
        return sample

    azcopy = upload.azcopy(where, folder, pod.command, "--put-md5")
    curl = upload.curl(where, folder, pod.command)
    slow = [
        Side("read", "the file alone, read once", cold(read), is_yardstick=True),
        Side("ours", "reads the file once, hashes and sends it; the service moves it", cold(ours)),
        Side(
            "ours, nothing to reuse",
            f"likewise; looks for each block in {MOST_VERSIONS} earlier versions, without success",
            cold(nothing_to_reuse),
        ),
        Side("azcopy", "with `--put-md5`", cold(azcopy)),
        Side("curl", "one PUT, nothing hashed", cold(curl), rounds=1),
    ]
    cached = [
        Side("ours, warm", "the file is in the page cache", warm(ours)),
        Side("ours, nothing to reuse, warm", "likewise", warm(nothing_to_reuse)),
        Side("azcopy, warm", "likewise", warm(azcopy)),
    ]
    warm_cost = Goal(
        "warm, nothing to reuse, compared with no earlier versions",
        None,
        True,
        times_as_long("ours, nothing to reuse, warm", "ours, warm"),
    )
    goals = [
        Goal("ours ≤ 1.10 × as long as reading the file", 1.10, True, times_as_long("ours", "read")),
        Goal("ours ≥ 1.05 × as fast as azcopy --put-md5", 1.05, False, times_faster("ours", "azcopy")),
        Goal(
            "ours reads each byte once: ≤ 1.05 × its size",
            1.05,
            True,
            lambda measured: measured["ours"].facts["MB read"] * MB / size,
        ),
        Goal("ours ≤ 200 MB resident", 200, True, lambda measured: measured["ours"].resident / MB, "MB"),
        Goal(
            "nothing to reuse: ≤ 1.03 × as long as without earlier versions",
            1.03,
            True,
            times_as_long("ours, nothing to reuse", "ours"),
        ),
        warm_cost,
    ]
    by = f"{pod.kind} slows the volume" if pod.kind else "no control groups here: only from the page cache"
    return Comparison(
        "upload-volume",
        f"Upload: {size / 1e9:g} GB from a volume of {BYTES_A_SECOND // MB} MB/s with a pod's 1 GiB of "
        f"memory, cold and warm ({by})",
        [*slow, *cached] if pod.kind else cached,
        goals if pod.kind else [warm_cost],
        "ours" if pod.kind else "ours, warm",
    )
