"""Names that object storage accepts and some or all file systems do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from aml_mirror.core.errors import DataError
from aml_mirror.pipeline.model_paths import model_paths
from aml_mirror.pipeline.select import SelectedCheckpoint
from aml_mirror.sources.azure_blob import BlobSource
from azure_emulator.client import Azure
from builders.saved import safetensors
from test_azureml_backfill import Filling
from test_blob_properties import chosen, hf_run
from this_process import here  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("here")


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture
def run(tmp_path: Path) -> dict[str, bytes]:
    return files_of(hf_run(tmp_path / "run"))


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("checkpoint-20/config.json/part", "is a file, and a folder"),
        ("checkpoint-20//tokenizer.json", "checkpoint-20//tokenizer.json"),
        ("checkpoint-30//model.safetensors", "checkpoint-30//model.safetensors"),
        ("checkpoint-20/" + "n" * 300 + ".json", "300 bytes|305 bytes"),
    ],
)
def test_what_cannot_be_mirrored_is_the_runs_failure(
    azure: Azure, run: dict[str, bytes], name: str, error: str
) -> None:
    uri = azure.seed({**run, name: b"{}"}, "runs/hf")
    with pytest.raises(DataError, match=error) as caught:
        planned(uri)
    assert caught.value.exit_code == 65


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint-20/a\tb.json", "checkpoint-20/a\nb.json", "checkpoint-20/notes.", "checkpoint-20/NOTES.",
        "checkpoint-20/Config.json", "notes//a.txt", "/lead.txt",
    ],
)  # fmt: skip
def test_what_can_be_mirrored_is(azure: Azure, run: dict[str, bytes], name: str) -> None:
    uri = azure.seed({**run, name: b"{}"}, "runs/hf")
    assert planned(uri).checkpoint.path == "checkpoint-20"


@pytest.mark.parametrize("marker", ["checkpoint-20", "checkpoint-20/", "logs"])
def test_blobs_that_stand_for_folders_are_none(azure: Azure, run: dict[str, bytes], marker: str) -> None:
    uri = azure.seed({**run, "logs/a.txt": b"1", marker: b""}, "runs/hf")
    assert sorted(BlobSource(uri).scan().files) == sorted([*run, "logs/a.txt"])


def planned(uri: str) -> SelectedCheckpoint:
    found = chosen(uri)
    model_paths(found.checkpoint)
    return found


def test_one_bad_name_does_not_end_a_backfill(azure: Azure, tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    fill = Filling(azure, tmp_path / "cwd")
    blobs: dict[str, bytes] = {}
    for seed, name in enumerate(("a-both", "b\nnewline", "/leading", "good", "Good", "last.")):
        folder = tmp_path / "made" / str(seed)
        safetensors(folder / "checkpoint-1" / "model.safetensors", seed=seed)
        blobs |= {f"{name}/{path}": data for path, data in files_of(folder).items()}
        blobs[f"{name}/checkpoint-1/trainer_state.json"] = b'{"global_step": 1, "log_history": []}'
    blobs["a-both/checkpoint-1/model.safetensors/x.json"] = b"{}"
    account = azure.new_account(containers=["outputs"], role="Storage Blob Data Reader")
    uri = azure.seed(blobs, "names", account=account, container="outputs")
    found, last = fill(uri, code=65)
    outcomes = {run_id: line["outcome"] for run_id, line in found.items()}
    assert outcomes == {
        "//": "failed", "Good": "mirrored", "a-both": "failed", "b\nnewline": "failed", "good": "mirrored",
        "last.": "mirrored",
    }  # fmt: skip
    assert "model.safetensors" in found["a-both"]["error"]
    assert {line["exit_code"] for line in found.values()} == {0, 65}
    assert last["outcome"] == "done"
    again, _ = fill(uri, code=65)
    assert {line["outcome"] for line in again.values()} == {"failed", "already-mirrored"}
