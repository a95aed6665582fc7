"""Files read once: sent to a staging folder as they are hashed, then copied to their place by the service."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from azure_emulator.client import Azure
from builders.runs import huggingface_run
from mirroring import Mirroring, assert_exactly_once

MIB = 1 << 20
BLOCK = "--block-size=1MiB"
STAGING = "aml-mirror/.staging/"
WEIGHTS = "checkpoint-20/model.safetensors"


@pytest.fixture
def mirroring(azure: Azure, tmp_path: Path) -> Mirroring:
    return Mirroring(azure, tmp_path)


def large_run(root: Path, seed: int = 20, frozen: int = 0, name: str = "run-1") -> Path:
    """A run with a checkpoint of 6 MiB and a bit, of which ``frozen`` MiB are the same for all seeds."""
    run = huggingface_run(root / name, points=30)
    parts = {"backbone": (0, frozen), "head": (seed, 6 - frozen)}
    tensors = {
        part: np.random.default_rng(source).integers(0, 255, size * MIB, dtype=np.uint8)
        for part, (source, size) in parts.items()
        if size
    }
    save_file(tensors, run / WEIGHTS)
    return run


def blocks_sent(azure: Azure, where: str = "") -> int:
    """How many requests brought a block's bytes, to paths that have this in their names."""
    found = [one for one in azure.requests("comp=block&") if one["method"] == "PUT" and where in one["path"]]
    return sum(one["bytes_in"] > MIB // 2 for one in found)


def assert_nothing_is_staged(azure: Azure) -> None:
    assert azure.blobs(STAGING) == {}
    service = azure.blob_service().get_container_client(azure.container)
    assert not list(service.list_blobs(name_starts_with=STAGING, include=["uncommittedblobs"]))


def test_each_byte_is_sent_once_to_staging_and_moved_by_the_service(
    mirroring: Mirroring, azure: Azure, tmp_path: Path
) -> None:
    run = large_run(tmp_path)
    receipt = mirroring.mirror(run, "reach", BLOCK).json
    assert_exactly_once(azure, "reach", run, 30)
    assert_nothing_is_staged(azure)
    assert blocks_sent(azure) == blocks_sent(azure, STAGING) == 7 - 1
    size = sum((run / "checkpoint-20" / name).stat().st_size for name in ("model.safetensors", "config.json"))
    events = next((run / "runs").rglob("events*")).stat().st_size
    assert (receipt["bytes_sent"], receipt["bytes_copied"], receipt["bytes_reused"]) == (size + events, 0, 0)
    azure.forget_requests()
    assert mirroring.mirror(run, "reach", BLOCK).json["outcome"] == "already-mirrored"
    assert not azure.requests(".blob.")
