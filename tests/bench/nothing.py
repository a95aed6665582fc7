"""Nothing to do: mirror a run again that is already mirrored, compared with only importing the clients."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable, Iterator

from azure_emulator.client import Azure
from bench import emulator, environments, runs
from bench.harness import BenchError, Comparison, Goal, Result, Sample, Side, compare, run_side, times_as_long

POINTS, FILES, SIZE = 10_000, 4, 8 << 20
_MIRRORED = {"outcome": "already-mirrored"}


def results(rounds: int | None) -> Iterator[Result]:
    """See the module's first line."""
    with emulator.scope() as azure:
        yield compare(comparison(azure), rounds)


def comparison(azure: Azure, points: int = POINTS, files: int = FILES, size: int = SIZE) -> Comparison:
    """Mirror a run into the workspace and to a plain MLflow server once; then run the sides."""
    run = runs.run("nothing", points, files, size)
    python = environments.ours()
    program = python.with_name("aml-mirror")
    model = f"bench-{uuid.uuid4().hex[:6]}"
    mirror = [str(program), "--source", str(run), "--model-name", model, "--json"]
    plain = ["--tracking-uri", f"{azure.control.url}/__mlflow/{azure.name}"]
    _mirror(mirror, emulator.environment(azure))
    _mirror([*mirror, *plain, "--experiment", f"{model}-plain"], emulator.environment(azure))

    def again(*more: str) -> Callable[[], Sample]:
        def call() -> Sample:
            azure.forget_requests()
            sample = run_side([*mirror, *more], emulator.environment(azure), prints_sample=False)
            return emulator.with_traffic(azure, sample, _MIRRORED)

        return call

    def load() -> Sample:
        command = [python, "-c", "import mlflow, azure.ai.ml"]
        return run_side(command, emulator.environment(azure), prints_sample=False)

    # The sides print a receipt, not a sample. It is checked once, before they run.
    for more in ((), (*plain, "--experiment", f"{model}-plain")):
        found = _mirror([*mirror, *more], emulator.environment(azure))
        if found["outcome"] != "already-mirrored":
            raise BenchError(f"mirroring a mirrored run again says {found['outcome']}")
    return Comparison(
        "nothing",
        f"Nothing to do: a mirrored run of {points:,} points and {files} files is mirrored again",
        [
            Side("ours, Azure ML", "from the start of the process to its end", again()),
            Side(
                "ours, MLflow server",
                "the same; MLflow's client is loaded",
                again(*plain, "--experiment", f"{model}-plain"),
            ),
            Side(
                "import", "`python -c 'import mlflow, azure.ai.ml'` of the same lock", load, is_yardstick=True
            ),
        ],
        [
            Goal(
                "Azure ML: ≤ 1.5 × as long as the import, better less than it",
                1.5,
                True,
                times_as_long("ours, Azure ML", "import"),
            ),
            Goal("MLflow server: likewise", 1.5, True, times_as_long("ours, MLflow server", "import")),
            Goal(
                "≤ 12 requests besides tokens and cloud metadata",
                12,
                True,
                lambda measured: measured["ours, Azure ML"].facts["requests"],
                "requests",
            ),
        ],
        "ours, Azure ML",
    )


def _mirror(command: list[str], environment: dict[str, str]) -> dict[str, object]:
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found
