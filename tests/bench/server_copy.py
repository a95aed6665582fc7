"""Already in blob storage: mirror a checkpoint of 1 GiB whose source and target are in the same account."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace

from azure_emulator.client import Azure
from bench import emulator, environments, runs
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

GIB = 1 << 30
_CONTAINER = "runs"


def results(rounds: int | None) -> Iterator[Result]:
    """See the module's first line."""
    with emulator.scope() as azure:
        yield compare(comparison(azure), rounds)


def comparison(azure: Azure, size: int = GIB) -> Comparison:
    """The run is uploaded once. Then the sides copy its checkpoint into the datastore."""
    run = runs.run("copy", 1_000, 1, size)
    source = azure.seed(run, "run", container=_CONTAINER)
    checkpoint = "run/checkpoint-100/"
    program = environments.ours().with_name("aml-mirror")
    files = {"model.safetensors", "config.json"}

    def arrived(prefix: str) -> dict[str, int]:
        found = azure.blobs(prefix)
        kept = [size for name, size in found.items() if name.rpartition("/")[2] in files]
        service = azure.blob_service()
        for name in found:
            service.get_blob_client(azure.container, name).delete_blob()
        return {"files": len(kept), "bytes": sum(kept)}

    def ours() -> Sample:
        azure.forget_requests()
        # A new run id, because otherwise the program would find the run already mirrored.
        name = f"copy-{uuid.uuid4().hex[:8]}"
        command = [program, "--source", source, "--run-id", name, "--model-name", name, "--json"]
        sample = run_side(command, emulator.environment(azure), prints_sample=False)
        requests = azure.requests()
        (version,) = azure.models()[name].values()
        if version["properties"]["integrity"] != "copied":
            raise BenchError("the checkpoint was not copied by the storage service")
        facts = emulator.traffic(requests)
        path = version["modelUri"].partition("/paths/")[2]
        return replace(sample, work=arrived(path), facts=facts)

    def by_way_of_here() -> Sample:
        azure.forget_requests()
        scratch = environments.scratch()
        scratch.mkdir(exist_ok=True)
        prefix = f"by-hand/{uuid.uuid4().hex[:8]}/"
        url = f"https://{azure.account}.blob.core.azure.test"
        given = {
            "from_account": url,
            "from_container": _CONTAINER,
            "prefix": checkpoint,
            "to_account": url,
            "to_container": azure.container,
            "to_prefix": prefix,
        }
        command = [environments.peers(), environments.SIDES / "download_upload.py", json.dumps(given)]
        sample = run_side(command, emulator.environment(azure, SCRATCH=str(scratch)))
        facts = emulator.traffic(azure.requests())
        return replace(sample, work=arrived(prefix), facts=facts)

    def through(name: str) -> Callable[..., float]:
        return lambda measured: (
            (measured[name].facts["bytes sent"] + measured[name].facts["bytes received"]) / MB
        )

    return Comparison(
        "server-copy",
        f"Already in blob storage: a checkpoint of {size / GIB:g} GiB in the workspace's own account",
        [
            Side("ours", "the whole program: examines, lets the service copy, registers", ours),
            Side("download and upload", "a script with azure-storage-blob, 8 at a time", by_way_of_here),
        ],
        [
            Goal("< 5 MB through the program", 5, True, through("ours"), "MB"),
            Goal("faster than by way of this machine", 1, False, times_faster("ours", "download and upload")),
        ],
        "ours",
        note="Azurite copies a blob by reading and writing it.",
    )
