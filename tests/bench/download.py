"""Download: a file of 1 GiB, and 500 files of 10 KB, from a blob server that answers after 30 ms."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench import environments
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
    times_faster,
)

DELAY = 0.03  # seconds
GIB = 1 << 30
# Has the form of a key. The clients check that; the server does not.
SAS = "sv=2025-11-05&sr=c&sp=rl&sig=x"
_OBSTACLE = "client, server, TLS-free HTTP and SHA-256 share two cores, and every file is synced to the disk"


@dataclass(frozen=True, slots=True)
class Source:
    """A running :mod:`bench.blob_source`."""

    account: str
    sha256: str


@contextmanager
def source(count: int, size: int) -> Iterator[Source]:
    """Run the server during the block."""
    command = [sys.executable, str(Path(__file__).with_name("blob_source.py")), "--count", str(count)]
    process = subprocess.Popen(
        [*command, "--size", str(size), "--delay", str(DELAY)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdin is not None
    try:
        port, sha256 = process.stdout.readline().split()
        yield Source(f"http://127.0.0.1:{port}/account", sha256)
    finally:
        process.stdin.close()
        process.wait(30)


def results(rounds: int | None) -> Iterator[Result]:
    """See the module's first line."""
    with source(1, GIB) as where:
        yield compare(comparison("download-big", "a file of 1 GiB", where, GIB), rounds)
    with source(500, 10_000) as where:
        yield compare(comparison("download-small", "500 files of 10 KB", where, 500 * 10_000), rounds)


def comparison(name: str, what: str, where: Source, total: int) -> Comparison:
    """Each side downloads the same blobs into a folder of its own."""
    return Comparison(
        name,
        f"Download: {what} from a server {DELAY * 1000:.0f} ms away",
        [
            Side("ours", "pull: 16 parts of 2 MiB at a time, hashed and synced", _ours(where, total)),
            Side("azcopy", "Microsoft's own tool, as it comes; nothing hashed", _azcopy(where, total)),
            Side(
                "azure-ai-ml", "as `MLClient.models.download`", _python("azure-ai-ml", where, total), rounds=1
            ),
        ],
        [
            Goal(
                "ours ≥ 1.5 × as fast as azcopy", 1.5, False, times_faster("ours", "azcopy"),
                obstacle=_OBSTACLE,
            ),
            Goal(
                "ours ≥ 5 × as fast as MLClient.models.download", 5, False,
                times_faster("ours", "azure-ai-ml"), obstacle=_OBSTACLE,
            ),
            Goal(
                "ours ≤ 200 MB resident", 200, True, lambda measured: measured["ours"].resident / MB, "MB"
            ),
        ],
        "ours",
    )  # fmt: skip


def _ours(where: Source, total: int) -> Callable[[], Sample]:
    return _python("ours", where, total)


def _python(way: str, where: Source, total: int) -> Callable[[], Sample]:
    def call() -> Sample:
        target = _target()
        given = {
            "way": way,
            "account": where.account,
            "sas": SAS,
            "sha256": where.sha256,
            "target": str(target),
        }
        command = [environments.ours(), environments.SIDES / "download_files.py", json.dumps(given)]
        sample = run_side(command, environments.environment())
        return _checked(sample, target, total)

    return call


def _azcopy(where: Source, total: int) -> Callable[[], Sample]:
    def call() -> Sample:
        binary, variables = environments.azcopy()
        target = _target()
        address = f"{where.account}/files/model?{SAS}"
        command = [
            binary,
            "copy",
            address,
            target,
            "--recursive",
            "--from-to",
            "BlobLocal",
            "--output-level=quiet",
        ]
        sample = run_side(
            [*command, "--log-level=ERROR"], environments.environment(**variables), prints_sample=False
        )
        return _checked(sample, target, total)

    return call


def _target() -> Path:
    target = environments.scratch() / "download"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    return target


def _checked(sample: Sample, target: Path, total: int) -> Sample:
    sizes = [path.stat().st_size for path in target.rglob("*") if path.is_file()]
    if sum(sizes) != total:
        raise BenchError(f"{sum(sizes)} bytes arrived instead of {total}")
    return replace(sample, work={"files": len(sizes), "bytes": sum(sizes)})
