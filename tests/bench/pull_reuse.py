"""Pull the next version of a policy whose backbone is frozen, and pull a version that is already on disk."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from azure_emulator.client import Azure
from bench import emulator, environments
from bench.environments import DATA
from bench.harness import BenchError, Comparison, Goal, Measured, Result, Sample, Side, compare, run_side
from bench.reuse import FROZEN, MIB, SIZE, Tensors, one_file, shards, tensors, torch_zip

ROUNDS = 1


def results(rounds: int | None) -> Iterator[Result]:
    """See the module's first line."""
    with emulator.scope() as azure:
        yield compare(comparison(azure), rounds)


def comparison(azure: Azure) -> Comparison:
    """Two versions are mirrored, and the first is pulled, once for each kind of file and without being
    measured. Then each side pulls the second.
    """
    program = environments.ours().with_name("aml-mirror")

    def run(*arguments: object) -> Sample:
        command = [program, *map(str, arguments), "--json"]
        return run_side(command, emulator.environment(azure), prints_sample=False)

    @cache
    def prepared(write: Callable[[Path, Tensors], None]) -> tuple[str, Path]:
        name = f"pulled-{uuid.uuid4().hex[:8]}"
        for seed in (1, 2):
            folder = DATA / name / f"run-{seed}" / "checkpoint-100"
            folder.mkdir(parents=True)
            write(folder, tensors(seed))
            (folder / "config.json").write_text('{"model_type": "policy"}')
            (folder / "trainer_state.json").write_text('{"global_step": 100, "log_history": []}')
            run("mirror", folder.parent, "--model-name", name)
        shutil.rmtree(DATA / name)
        target = environments.scratch() / name
        run("pull", f"{name}:1", target / "one")
        return name, target

    def measured(name: str, target: Path, *more: object) -> Sample:
        azure.forget_requests()
        sample = run("pull", f"{name}:2", target / "two", *more)
        said = json.loads(sample.said.splitlines()[-1])
        # For the storage only: the bytes sent over the network, and the number of requests for them.
        stored = [one for one in azure.requests() if ".blob." in one["host"]]
        facts = {
            "% of the bytes received": 100 * sum(one["bytes_out"] for one in stored) / said["bytes"],
            "requests to the storage": float(len(stored)),
        }
        if said["outcome"] not in ("pulled", "already-pulled"):
            raise BenchError(said["outcome"])
        return Sample(sample.seconds, sample.resident, {"version": 2}, facts, sample.cpu)

    def side(write: Callable[[Path, Tensors], None], *, again: bool = False) -> Callable[[], Sample]:
        def call() -> Sample:
            name, target = prepared(write)
            shutil.rmtree(target / "two", ignore_errors=True)
            sample = measured(name, target, "--reuse", target / "one")
            return measured(name, target) if again else sample

        return call

    def received(side: str) -> Callable[[dict[str, Measured]], float]:
        return lambda found: found[side].facts["% of the bytes received"]

    return Comparison(
        "pull-reuse",
        f"Pull: a version of {SIZE // MIB} MiB of which {FROZEN:.0%} are on this disk, from Azurite",
        [
            Side("safetensors", "one file, `--reuse` of the version before", side(one_file)),
            Side("shards", "four safetensors files, also with `--reuse`", side(shards)),
            Side("torch zip", "records at shifted offsets, also with `--reuse`", side(torch_zip)),
            Side("there already", "the same pull again", side(one_file, again=True)),
        ],
        [
            Goal("`--reuse`: ≤ 40 % of the bytes", 40, True, received("safetensors"), "%"),
            Goal("pull of what is there: no byte of a file", 0, True, received("there already"), "%"),
        ],
        "safetensors",
        ROUNDS,
    )  # fmt: skip
