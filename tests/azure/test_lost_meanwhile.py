"""A file of the source or the claim is lost while a mirror runs. Nothing is marked complete."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobClient, BlobLeaseClient

from aml_mirror.registries.azureml import blob_lease
from azure_emulator.client import Azure
from builders.runs import huggingface_run
from mirroring import Mirroring, assert_exactly_once, complete_versions, runs_of
from this_process import InThisProcess

POINTS = 20
# Releasing a lease is not a write to what it protects.
WRITES = r"(PUT|DELETE|PATCH) |POST .*/(runs/(create|update|log-batch|set-tag)|artifacts/)"
UPLOADS = ("upload_blob", "start_copy_from_url", "commit_block_list")


def before_a_blob(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], None]) -> None:
    """Act once, directly before the request that writes the blob with this end of its name."""
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
    """A few files are checked one by one, eight or more with a listing."""
    run = huggingface_run(tmp_path / "run-c", points=1, steps=(20,))
    for number in range(count - 2):
        (run / "checkpoint-20" / f"part-{number}.json").write_text("{}")
    source = here.seed(run, "runs/run-c", container="runs-container")
    weights = here.blob_service().get_blob_client(
        "runs-container", "runs/run-c/checkpoint-20/model.safetensors"
    )
    whole = weights.download_blob().readall()

    def interfere() -> None:
        # The card is written after all files of the checkpoint have arrived.
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


@pytest.mark.parametrize("where", ["the checkpoint", "the run was finished"])
def test_a_claim_that_is_lost(
    here: Azure,
    in_this_process: InThisProcess,
    mirroring: Mirroring,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    """The previous holder writes nothing more: no blob, no mark, no end of the run."""
    run = huggingface_run(tmp_path / "run-7", steps=(20,), points=POINTS)
    other: list[BlobLeaseClient] = []

    def take() -> None:
        (name,) = here.blobs("aml-mirror/claims/")
        blob = here.blob_service().get_blob_client(here.container, name)
        BlobLeaseClient(blob).break_lease(0)
        other.append(blob.acquire_lease(-1))
        for thread in threading.enumerate():
            if thread.name == "claim":
                thread.join(600)
        here.forget_requests()

    monkeypatch.setattr(blob_lease, "RENEW_SECONDS", 0.1)
    # One sender, so that no other request is active when the claim is lost.
    words = ("--source", run, "--model-name", "reach", "--concurrency", "1", "--json")
    with monkeypatch.context() as patch:
        if where == "the checkpoint":
            before_a_blob(patch, "/model/config.json", take)
        else:
            from mlflow import MlflowClient

            real = MlflowClient.set_terminated

            def end(client: Any, *given: Any, **more: Any) -> None:
                real(client, *given, **more)
                take()

            patch.setattr(MlflowClient, "set_terminated", end)
        done = in_this_process(*words, code=75)
    assert "another mirror took over" in done["error"]
    assert not complete_versions(here, "reach")
    written = [
        text
        for one in here.requests()
        if re.match(WRITES, text := f"{one['method']} {one['host']}{one['path']}")
        and "comp=lease" not in text
    ]
    if where == "the checkpoint":
        # The active request; then nothing.
        assert [one for one in written if not one.endswith("/model/config.json")] == []
        assert not here.models().get("reach")
    else:
        assert written == []
        assert here.models()["reach"]["1"]["tags"]["mirror.state"] == "incomplete"
    other[0].release()
    assert mirroring.mirror(run, "reach").json["outcome"] in ("mirrored", "already-mirrored")
    assert_exactly_once(here, "reach", run, POINTS)
