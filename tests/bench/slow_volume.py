"""Upload from a slow volume: 1.6 GB at 150 MB/s into a pod of 1 GiB, and the same file from the page cache.

Control groups slow the volume (:mod:`bench.volume`). Without them only the warm sides run, and the title says
so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from bench import environments, runs, upload, volume
from bench.harness import (
    MB,
    Comparison,
    Goal,
    Measured,
    Result,
    Sample,
    Side,
    compare,
    run_side,
    times_faster,
)

SIZE = 1_600_000_000
BYTES_A_SECOND = 150_000_000
MEMORY = 1 << 30
ROUNDS = 3


def results(rounds: int | None) -> Iterator[Result]:
    """See the module's first line."""
    folder = runs.files("slow", 1, SIZE)
    (file,) = folder.iterdir()
    with upload.sink() as where, volume.pod(file, BYTES_A_SECOND, MEMORY) as pod:
        yield compare(comparison(where, file, pod), rounds)


def comparison(where: upload.Sink, file: Path, pod: volume.Pod) -> Comparison:
    """One file, read from a cold and from a warm page cache."""
    folder = file.parent
    bare = environments.environment()

    def cold(run: Callable[[], Sample]) -> Callable[[], Sample]:
        def call() -> Sample:
            volume.drop_cache(file)
            before = pod.bytes_read()
            sample = run()
            return replace(sample, facts={**sample.facts, "MB read": (pod.bytes_read() - before) / MB})

        return call

    def warm(run: Callable[[], Sample]) -> Callable[[], Sample]:
        def call() -> Sample:
            volume.warm(file)
            return run()

        return call

    def read() -> Sample:
        command = pod.command(["dd", f"if={file}", "of=/dev/null", "bs=1M"])
        return run_side(command, bare, prints_sample=False)

    ours = upload.ours(where, folder, pod.command)
    azcopy = upload.azcopy(where, folder, pod.command, "--put-md5")
    curl = upload.curl(where, folder, pod.command)
    slow = [
        Side("read", "the file alone, read once", cold(read), is_yardstick=True),
        Side("ours", "reads the file once, hashes and sends it; the service moves it", cold(ours)),
        Side("azcopy", "with `--put-md5`", cold(azcopy)),
        Side("curl", "one PUT, nothing hashed", cold(curl)),
    ]
    cached = [
        Side("ours, warm", "the file is in the page cache", warm(ours)),
        Side("azcopy, warm", "likewise", warm(azcopy)),
    ]

    def as_long_as_reading(measured: Mapping[str, Measured]) -> float:
        return measured["ours"].seconds / measured["read"].seconds

    goals = [
        Goal("ours ≤ 1.10 × as long as reading the file", 1.10, True, as_long_as_reading),
        Goal("ours ≥ 1.05 × as fast as azcopy --put-md5", 1.05, False, times_faster("ours", "azcopy")),
        Goal(
            "ours reads each byte once: ≤ 1.05 × its size",
            1.05,
            True,
            lambda measured: measured["ours"].facts["MB read"] * MB / SIZE,
        ),
        Goal("ours ≤ 200 MB resident", 200, True, lambda measured: measured["ours"].resident / MB, "MB"),
    ]
    by = f"{pod.kind} slows the volume" if pod.kind else "no control groups here: only from the page cache"
    return Comparison(
        "upload-volume",
        f"Upload: {SIZE / 1e9:g} GB from a volume of {BYTES_A_SECOND // MB} MB/s with a pod's 1 GiB of "
        f"memory, cold and warm ({by})",
        [*slow, *cached] if pod.kind else cached,
        goals if pod.kind else [],
        "ours" if pod.kind else "ours, warm",
        ROUNDS,
    )
