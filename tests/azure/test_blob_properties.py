"""Properties of blobs: tier, kind, leases, and leftovers of uploads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobLeaseClient, StandardBlobTier

from aml_mirror.core.errors import DataError, MirrorError, Unreadable, UnreadableForNow
from aml_mirror.core.settings import Settings
from aml_mirror.pipeline.locate import locate
from aml_mirror.pipeline.select import SelectedCheckpoint, choose
from aml_mirror.sources.azure_blob import BlobSource
from azure_emulator.client import Azure
from builders import torch_zip
from builders.saved import safetensors, write_json
from this_process import here  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("here")

NEWEST = "checkpoint-20/model.safetensors"


def hf_run(root: Path, steps: tuple[int, ...] = (10, 20)) -> Path:
    for step in steps:
        folder = root / f"checkpoint-{step}"
        safetensors(folder / "model.safetensors", seed=step)
        write_json(folder / "config.json", {"model_type": "policy"})
        write_json(folder / "trainer_state.json", {"global_step": step, "log_history": []})
    return root


@pytest.fixture
def uri(azure: Azure, tmp_path: Path) -> str:
    return azure.seed(hf_run(tmp_path / "run"), "runs/hf")


def chosen(uri: str, wanted: str = "final", strict: bool = False) -> SelectedCheckpoint:
    subject = locate(BlobSource(uri), Settings(checkpoint=wanted))
    *_, last = choose(subject.tree, subject.run, wanted, strict)
    return last


def blob(azure: Azure, name: str) -> Any:
    return azure.blob_service().get_blob_client(azure.container, f"runs/hf/{name}")


def refusal(azure: Azure, status: int, code: str, match: str = NEWEST) -> None:
    """The service lists a blob but does not return it."""
    azure.fault("status", match=f"GET.*{match}", status=status, headers={"x-ms-error-code": code}, times=0)


# --- unreadable blobs: no older checkpoint replaces them ------------------------------------------


def test_the_newest_in_the_archive_tier(azure: Azure, uri: str) -> None:
    blob(azure, NEWEST).set_standard_blob_tier(StandardBlobTier.ARCHIVE)
    with pytest.raises(Unreadable, match=f"{NEWEST} cannot be read: it is in the archive tier") as caught:
        chosen(uri)
    assert caught.value.exit_code == 65
    # A user can still select another one.
    assert chosen(uri, "10").checkpoint.path == "checkpoint-10"


def test_an_older_one_in_the_archive_tier_is_no_obstacle(azure: Azure, uri: str) -> None:
    blob(azure, "checkpoint-10/model.safetensors").set_standard_blob_tier(StandardBlobTier.ARCHIVE)
    assert chosen(uri).checkpoint.path == "checkpoint-20"
    last = chosen(uri, "all")
    assert last.checkpoint.path == "checkpoint-20"
    assert [path for path, why in last.passed_over if "archive tier" in why] == ["checkpoint-10"]


def test_a_run_that_is_archived_as_a_whole_says_so(azure: Azure, uri: str) -> None:
    for name in azure.blobs("runs/hf/"):
        blob(azure, name.removeprefix("runs/hf/")).set_standard_blob_tier(StandardBlobTier.ARCHIVE)
    with pytest.raises(Unreadable, match="archive tier"):
        chosen(uri)


@pytest.mark.parametrize("suffix", ["ckpt", "zip"])
def test_an_archived_run_of_a_layout_that_reads_files_says_so(azure: Azure, suffix: str) -> None:
    uri = azure.seed({f"model_{step}.{suffix}": b"x" * 99 for step in (1, 2)}, "runs/hf")
    for step in (1, 2):
        blob(azure, f"model_{step}.{suffix}").set_standard_blob_tier(StandardBlobTier.ARCHIVE)
    with pytest.raises(Unreadable, match="archive tier"):
        chosen(uri)


def test_rehydration_is_waited_for(azure: Azure, uri: str) -> None:
    refusal(azure, 409, "BlobBeingRehydrated")
    with pytest.raises(UnreadableForNow, match="rehydrated") as caught:
        chosen(uri)
    assert caught.value.exit_code == 75


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (409, "BlobUsesCustomerSpecifiedEncryption", "key that its writer provided"),
        (409, "BlobArchived", "archive tier"),
        (409, "BlobImmutableDueToSomething", "cannot be read"),
        (412, "ConditionNotMet", "changed while it was read"),
        (404, "BlobNotFound", "was deleted"),
    ],
)
def test_what_the_service_does_not_give_is_the_reason(
    azure: Azure, uri: str, status: int, code: str, words: str
) -> None:
    refusal(azure, status, code)
    with pytest.raises(Unreadable, match=words) as caught:
        chosen(uri)
    assert "another program" not in caught.value.message
    assert caught.value.exit_code == 65


def test_what_a_layout_could_not_look_into_is_not_taken_for_absent(azure: Azure, tmp_path: Path) -> None:
    """Lightning's files are recognised by their content, so an unreadable one looks like no checkpoint."""
    for step in (10, 20):
        saved = {"epoch": 1, "global_step": step, "pytorch-lightning_version": "2.6.6", "state_dict": {}}
        torch_zip.save(tmp_path / "run" / "checkpoints" / f"epoch=1-step={step}.ckpt", saved)
    uri = azure.seed(tmp_path / "run", "runs/hf")
    assert chosen(uri).checkpoint.path.endswith("step=20.ckpt")
    blob(azure, "checkpoints/epoch=1-step=20.ckpt").set_standard_blob_tier(StandardBlobTier.ARCHIVE)
    with pytest.raises(Unreadable, match="step=20"):
        chosen(uri)


def test_an_upload_that_was_never_committed_is_named(azure: Azure, uri: str) -> None:
    for name in ("trainer_state.json", "config.json"):
        blob(azure, f"checkpoint-30/{name}").upload_blob(b"{}")
    blob(azure, "checkpoint-30/model.safetensors").stage_block("MDAwMDAwMDA=", b"x" * 1000)
    found = chosen(uri)
    assert found.checkpoint.path == "checkpoint-20"
    ((path, why),) = found.passed_over
    assert path == "checkpoint-30" and "never committed" in why
    with pytest.raises(DataError, match="never committed"):
        chosen(uri, strict=True)


# --- blobs that are read as usual -----------------------------------------------------------------------


def appended(azure: Azure) -> None:
    data = azure.read(f"runs/hf/{NEWEST}")
    blob(azure, NEWEST).delete_blob()
    blob(azure, NEWEST).create_append_blob()
    blob(azure, NEWEST).append_block(data[:100])
    blob(azure, NEWEST).append_block(data[100:])


def leased(azure: Azure) -> None:
    BlobLeaseClient(blob(azure, NEWEST)).acquire(-1)


def with_snapshots(azure: Azure) -> None:
    for name in (NEWEST, "checkpoint-10/model.safetensors"):
        blob(azure, name).create_snapshot()


def cool(azure: Azure) -> None:
    blob(azure, NEWEST).set_standard_blob_tier(StandardBlobTier.COOL)


def deleted_newer(azure: Azure) -> None:
    blob(azure, "checkpoint-30/model.safetensors").upload_blob(b"x")
    blob(azure, "checkpoint-30/model.safetensors").delete_blob()


@pytest.mark.parametrize("make", [appended, leased, with_snapshots, cool, deleted_newer])
def test_other_properties_change_nothing(azure: Azure, uri: str, make: Callable[[Azure], None]) -> None:
    before = sorted(BlobSource(uri).scan().files)
    make(azure)
    assert sorted(BlobSource(uri).scan().files) == before
    found = chosen(uri)
    assert (found.checkpoint.path, found.passed_over) == ("checkpoint-20", ())


def test_an_error_of_the_service_is_not_taken_for_a_property(azure: Azure, uri: str) -> None:
    refusal(azure, 403, "AuthorizationPermissionMismatch")
    with pytest.raises(MirrorError) as caught:
        chosen(uri)
    assert caught.value.exit_code == 77
