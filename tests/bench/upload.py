"""Upload: a file of 1 GiB, and 500 files of 10 KB, to a blob server that drops them and answers after 30
ms.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from azure_emulator.client import Azure
from bench import emulator, environments, runs
from bench.harness import (
    MB,
    BenchError,
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

Command = Sequence[str | Path]

DELAY = 0.03  # seconds
GIB = 1 << 30
# Has the form of a key. The clients check that; the server does not.
SAS = "sv=2025-11-05&sr=c&sp=racwdl&sig=x"
# The fastest of the combinations tried with this server: 4, 8, 16 and 32 at a time, blocks of 4, 8 and 32
# MiB.
BEST = {"concurrency": 16, "block": 4 << 20, "files": 1}
BEST_SMALL = {"concurrency": 1, "block": 4 << 20, "files": 16}
_OBSTACLE = (
    "reading, SHA-256, block digests and sending share two cores with the server, and six requests of 30 ms "
    "run one by one before and after the blocks (list staged blocks; commit, look at the target, copy, "
    "check the result, delete the staged blob)"
)


@dataclass(frozen=True, slots=True)
class Sink:
    """A running :mod:`bench.blob_sink`."""

    url: str

    def blobs(self) -> dict[str, int]:
        """Path -> size of what was received."""
        with _opener.open(f"{self.url}/__stats", timeout=600) as answer:
            found: dict[str, int] = json.loads(answer.read())["blobs"]
        return found

    def requests(self) -> int:
        """How many requests were answered since the last reset."""
        with _opener.open(f"{self.url}/__stats", timeout=600) as answer:
            return int(json.loads(answer.read())["requests"])

    def reset(self) -> None:
        """Forget everything."""
        _opener.open(urllib.request.Request(f"{self.url}/__reset", method="POST"), timeout=600).close()


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@contextmanager
def sink(delay: float = DELAY) -> Iterator[Sink]:
    """Run the server during the block."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("blob_sink.py")), "--delay", str(delay)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdin is not None
    try:
        yield Sink(f"http://127.0.0.1:{int(process.stdout.readline())}")
    finally:
        process.stdin.close()
        process.wait(30)


def results(rounds: int | None) -> Iterator[Result]:
    """See the module's first line."""
    with emulator.scope() as azure, sink() as where:
        azure.set_workspace(artifact_endpoint=f"{where.url}/account")
        # The service that issues the SAS has the same delay.
        azure.fault("stall", match="artifacts/", seconds=DELAY, times=0)
        yield compare(big(azure, where), rounds)
        yield compare(small(azure, where), rounds)


def big(azure: Azure, where: Sink, size: int = GIB) -> Comparison:
    """The comparison with one file."""
    folder = runs.files("big", 1, size)
    faster = 1.6 if size <= GIB else 1.3

    def at_best(measured: Mapping[str, Measured]) -> float:
        return measured["upload_blob"].seconds / measured["ours"].seconds

    return Comparison(
        "upload-big",
        f"Upload: a file of {size / GIB:g} GiB to a server {DELAY * 1000:.0f} ms away that drops it",
        [
            Side(
                "ours",
                "reads the file once, hashes it and sends 16 blocks of 8 MiB at a time, each with a CRC-64 "
                "to compare; the service moves the file; ours checks the result; all clients are loaded",
                ours(where, folder),
            ),
            Side("azcopy", "Microsoft's own tool, as it comes", azcopy(where, folder)),
            Side(
                "upload_blob",
                "azure-storage-blob at its best: 16 blocks of 4 MiB; nothing hashed or verified",
                _python("upload_blob", None, where, folder, **BEST),
            ),
            Side("curl", "one PUT: the wire itself; nothing hashed, nothing to resume", curl(where, folder)),
            Side(
                "plugin",
                "`mlflow.log_artifacts` with azureml-mlflow",
                _python("plugin", azure, where, folder),
                rounds=1,
            ),
        ],
        [
            Goal(
                f"ours ≥ {faster} × as fast as azcopy",
                faster,
                False,
                times_faster("ours", "azcopy"),
                obstacle=_OBSTACLE,
            ),
            Goal("ours ≥ 0.6 × as fast as upload_blob at its best", 0.6, False, at_best, obstacle=_OBSTACLE),
            Goal(
                "ours ≤ 200 MB resident",
                200,
                True,
                lambda measured: measured["ours"].resident / MB,
                "MB",
            ),
        ],
        "ours",
    )


def small(azure: Azure, where: Sink, count: int = 500, size: int = 10_000) -> Comparison:
    """The comparison with many files."""
    folder = runs.files("small", count, size)
    return Comparison(
        "upload-small",
        f"Upload: {count} files of {size // 1000} KB to the same server",
        [
            Side("ours", "as above", ours(where, folder)),
            Side("azcopy", "as above", azcopy(where, folder)),
            Side(
                "upload_blob",
                "16 files at a time",
                _python("upload_blob", None, where, folder, **BEST_SMALL),
            ),
            Side("curl", "`curl --parallel`, 16 at a time", curl(where, folder)),
            Side("plugin", "as above", _python("plugin", azure, where, folder), rounds=1),
        ],
        [Goal("ours ≥ 3 × as fast as the plugin", 3, False, times_faster("ours", "plugin"))],
        "ours",
    )


def _checked(where: Sink, folder: Path, run: Callable[[str], Sample]) -> Callable[[], Sample]:
    """Run a side with its own prefix, and check what arrived."""

    def call() -> Sample:
        where.reset()
        prefix = uuid.uuid4().hex[:8]
        sample = run(prefix)
        arrived = where.blobs()
        expected = sorted(path.stat().st_size for path in folder.iterdir())
        if sorted(arrived.values()) != expected:
            raise BenchError(
                f"{len(arrived)} files of {sum(arrived.values())} bytes arrived of {folder.name}"
            )
        facts = {"requests": float(where.requests()), **sample.facts}
        return replace(sample, work={"files": len(arrived), "bytes": sum(arrived.values())}, facts=facts)

    return call


def _as_it_is(command: Command) -> Command:
    return command


def ours(where: Sink, folder: Path, wrap: Callable[[Command], Command] = _as_it_is) -> Callable[[], Sample]:
    """The program's upload. ``wrap`` changes a command so that it runs elsewhere."""
    return _python("ours", None, where, folder, wrap)


def ours_after(
    azure: Azure, model: str, where: Sink, folder: Path, wrap: Callable[[Command], Command] = _as_it_is
) -> Callable[[], Sample]:
    """The program's upload. Meanwhile it looks up the blocks of the versions that a model already has."""
    return _python("ours", azure, where, folder, wrap, model=model)


def _python(
    way: str,
    azure: Azure | None,
    where: Sink,
    folder: Path,
    wrap: Callable[[Command], Command] = _as_it_is,
    **options: int | str,
) -> Callable[[], Sample]:
    python = environments.ours() if way == "ours" else environments.peers()
    # Other servers are needed by the plugin, and to look up earlier versions.
    variables = emulator.environment(azure) if azure else environments.environment()
    script = environments.SIDES / "upload_files.py"

    def run(prefix: str) -> Sample:
        given: dict[str, Any] = {"way": way, "folder": str(folder), "prefix": prefix, "sas": SAS, **options}
        given["address"] = f"{where.url}/account/bench"
        return run_side(wrap([python, script, json.dumps(given)]), variables)

    return _checked(where, folder, run)


def azcopy(
    where: Sink, folder: Path, wrap: Callable[[Command], Command] = _as_it_is, *more: str
) -> Callable[[], Sample]:
    """The upload with Microsoft's own tool."""
    binary, variables = environments.azcopy()

    def run(prefix: str) -> Sample:
        scratch = environments.scratch() / prefix
        environment = environments.environment(
            **variables,
            AZCOPY_LOG_LOCATION=str(scratch),
            AZCOPY_JOB_PLAN_LOCATION=str(scratch),
            AZCOPY_DISABLE_SYSLOG="true",
        )
        address = f"{where.url}/account/bench/{prefix}?{SAS}"
        options = ("--from-to", "LocalBlob", "--recursive", "--log-level", "NONE", "--skip-version-check")
        command = wrap([binary, "copy", folder, address, *options, *more])
        return run_side(command, environment, prints_sample=False)

    return _checked(where, folder, run)


def curl(where: Sink, folder: Path, wrap: Callable[[Command], Command] = _as_it_is) -> Callable[[], Sample]:
    """The upload with curl: one request per file."""
    program = environments.curl()

    def run(prefix: str) -> Sample:
        scratch = environments.scratch() / prefix
        scratch.mkdir(parents=True)
        lines = []
        for path in sorted(folder.iterdir()):
            lines.append(f'url = "{where.url}/account/bench/{prefix}/{path.name}?{SAS}"')
            lines += [f'upload-file = "{path}"', 'header = "x-ms-blob-type: BlockBlob"', "next"]
        config = scratch / "curl.conf"
        # "next" separates the options of two transfers, so it does not follow the last.
        config.write_text("\n".join(lines[:-1]) + "\n")
        options = ("--silent", "--show-error", "--fail", "--parallel", "--parallel-max", "16")
        command = wrap([program, *options, "--config", config])
        return run_side(command, environments.environment(), prints_sample=False)

    return _checked(where, folder, run)
