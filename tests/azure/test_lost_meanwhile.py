"""A file of a source in blob storage that is lost while a mirror is at work: nothing is marked complete."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobClient

from azure_emulator.client import Azure
from builders.runs import huggingface_run
from mirroring import Mirroring, runs_of
from this_process import InThisProcess

UPLOADS = ("upload_blob", "start_copy_from_url", "commit_block_list")


def before_a_blob(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], None]) -> None:
    """Act once, directly before the request that writes the blob whose name ends so."""
    done: list[str] = []

    def wrapped(real: Any) -> Any:
        def call(blob: BlobClient, *given: Any, **more: Any) -> Any:
            if blob.blob_name.endswith(name) and not done:
                done.append(blob.blob_name)
                act()
            return real(blob, *given, **more)

        return call

    for method in UPLOADS:
        monkeypatch.setattr(BlobClient, method, wrapped(getattr(BlobClient, method)))


@pytest.mark.parametrize("count", [2, 12])
@pytest.mark.parametrize("how", ["changed", "deleted"])
def test_a_blob_of_the_source_between_its_copy_and_the_registration(
    here: Azure,
    in_this_process: InThisProcess,
    mirroring: Mirroring,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    how: str,
) -> None:
    """Few files are asked for one by one, from eight on by a listing."""
    run = huggingface_run(tmp_path / "run-c", points=1, steps=(20,))
    for number in range(count - 2):
        (run / "checkpoint-20" / f"part-{number}.json").write_text("{}")
    source = here.seed(run, "runs/run-c", container="runs-container")
    weights = here.blob_service().get_blob_client(
        "runs-container", "runs/run-c/checkpoint-20/model.safetensors"
    )
    whole = weights.download_blob().readall()

    def interfere() -> None:
        # The card is written when all files of the checkpoint are there.
        assert [name for name in here.blobs("aml-mirror/") if name.endswith("/model/model.safetensors")]
        if how == "changed":
            weights.upload_blob(bytes(reversed(whole)), overwrite=True)
        else:
            weights.delete_blob()

    with monkeypatch.context() as patch:
        before_a_blob(patch, "/MODEL_CARD.md", interfere)
        done = in_this_process("--source", source, "--model-name", "reach", "--json", code=65)
    assert "model.safetensors" in done["error"] and done["outcome"] == "failed"
    assert not here.models().get("reach")
    assert [run.data.tags.get("mirror.state") for run in runs_of(here, "reach")] != ["complete"]
    weights.upload_blob(whole, overwrite=True)
    again = mirroring.mirror(source, "reach").json
    assert (again["outcome"], again["model_version"]) == ("mirrored", "1")
    mirroring("verify", "reach:1")
