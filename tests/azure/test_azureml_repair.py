"""Blobs, manifests and a version's own files that somebody changes: detected, never inherited, and
repaired.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from azure_emulator.client import Azure
from builders.runs import huggingface_run, write_weights
from mirroring import Mirroring, assert_exactly_once, complete_versions, files_of, wait_until_asked
from test_azureml_verify import blob, prefix_of

POINTS = 5


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return huggingface_run(tmp_path / "run-7", steps=(20,), points=POINTS)


def tamper(azure: Azure, name: str, kind: str = "changed") -> None:
    """Change a blob as anybody with write access to the storage can: size, metadata and block ids stay."""
    one = blob(azure, name)
    if kind == "deleted":
        one.delete_blob()
        return
    data, kept = one.download_blob().readall(), one.get_blob_properties().metadata
    if kind == "changed":
        at = len(data) // 2
        data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    if kind == "shorter":
        data = data[:-1]
    one.upload_blob(data, overwrite=True, metadata=kept)


def own(azure: Azure, model: str = "reach") -> str:
    """The folder of a version's own files."""
    return prefix_of(azure, model).removesuffix("model/") + f"mirror/{model}/"


@pytest.mark.parametrize("kind", ["changed", "shorter", "deleted"])
def test_a_changed_blob_is_found_and_repaired(
    azure: Azure, mirroring: Mirroring, run: Path, kind: str
) -> None:
    mirroring.mirror(run, "reach")
    tamper(azure, prefix_of(azure) + "model.safetensors", kind)
    blob(azure, prefix_of(azure) + "extra.bin").upload_blob(b"x")
    found = mirroring("verify", "reach:1", "--json", code=65).json
    assert found["repair"] == "aml-mirror repair reach:1"
    assert "aml-mirror repair reach:1" in mirroring("verify", "reach:1", code=65).out
    hashed = mirroring.mirror(run, "reach", "--hash", code=65).json
    assert "model.safetensors" in hashed["error"]
    assert hashed["hint"] == "restore it with: aml-mirror repair reach:1"
    azure.forget_requests()
    done = mirroring("repair", "reach:1", "--json").json
    assert (done["outcome"], done["written"]) == ("repaired", ["model.safetensors"])
    # The correct file is read, not written.
    assert {one["method"] for one in azure.requests("/model/config.json")} == {"GET"}
    assert mirroring("verify", "reach:1", "--json").json["outcome"] == "verified"
    assert mirroring.mirror(run, "reach", "--hash").json["outcome"] == "already-mirrored"
    assert mirroring("repair", "reach:1", "--json").json["outcome"] == "verified"
    assert_exactly_once(azure, "reach", run, POINTS)


def test_bad_bytes_are_inherited_by_no_version(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    """Neither by the same run after its version was deleted, nor by another model of the run."""
    mirroring.mirror(run, "reach")
    weights = prefix_of(azure) + "model.safetensors"
    tamper(azure, weights)
    azure.call("DELETE", "models/reach/1")
    again = mirroring.mirror(run, "reach").json
    assert (again["outcome"], again["model_version"], again["integrity"]) == ("mirrored", "2", "sha256")
    assert (
        blob(azure, weights).download_blob().readall()
        == (run / "checkpoint-20" / "model.safetensors").read_bytes()
    )
    tamper(azure, weights)
    mirroring.mirror(run, "grasp", "--experiment", "reach")
    for name in ("reach:2", "grasp:1"):
        assert mirroring("verify", name, "--json").json["outcome"] == "verified"


def test_a_source_that_no_longer_has_the_bytes(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    mirroring.mirror(run, "reach")
    kept = run.parent / "kept"
    shutil.copytree(run, kept)
    tamper(azure, prefix_of(azure) + "model.safetensors")
    write_weights(run / "checkpoint-20" / "model.safetensors", seed=99)
    azure.forget_requests()
    refused = mirroring("repair", "reach:1", code=65)
    assert "no longer has the bytes of version 1 of reach: model.safetensors" in refused.err
    assert not [one for one in azure.requests("/model/") if one["method"] == "PUT"]
    assert mirroring("repair", "reach:1", "--source", kept, "--json").json["outcome"] == "repaired"
    assert mirroring("verify", "reach:1", "--json").json["outcome"] == "verified"


@pytest.mark.parametrize("kind", ["changed", "deleted"])
def test_a_manifest_that_was_lost_is_made_again(
    azure: Azure, mirroring: Mirroring, run: Path, kind: str
) -> None:
    azure.set_workspace(artifact_references="404")  # the run has its own copy
    receipt = mirroring.mirror(run, "reach").json
    tamper(azure, own(azure) + "manifest.json", kind)
    (copy,) = [name for name in azure.blobs(container="azureml") if name.endswith("/manifest.json")]
    blob(azure, copy, "azureml").upload_blob(b"{}", overwrite=True)
    assert "aml-mirror repair reach:1" in mirroring("verify", "reach:1", code=65).err
    assert mirroring("repair", "reach:1", "--json").json["outcome"] == "repaired"
    done = mirroring("verify", "reach:1", "--json").json
    assert (done["outcome"], done["manifest_sha256"]) == ("verified", receipt["manifest_sha256"])


@pytest.mark.parametrize("name", ["provenance.intoto.json", "safety.json", "MODEL_CARD.md"])
def test_own_files_are_verified_and_repaired(
    azure: Azure, mirroring: Mirroring, run: Path, name: str
) -> None:
    mirroring.mirror(run, "reach")
    tamper(azure, own(azure) + name)
    found = mirroring("verify", "reach:1", "--json", code=65).json
    assert [item["path"] for item in found["wrong"]] == [f"mirror/{name}"]
    assert mirroring("repair", "reach:1", "--json").json["outcome"] == "repaired"
    assert mirroring("verify", "reach:1", "--json").json["outcome"] == "verified"


def test_another_etag_alone_is_no_damage(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    """As after a change of tier, a recovery or a migration: the bytes are read and are correct."""
    mirroring.mirror(run, "reach")
    tamper(azure, prefix_of(azure) + "model.safetensors", "rewritten")
    assert mirroring.mirror(run, "reach", "--hash").json["outcome"] == "already-mirrored"
    assert mirroring("verify", "reach:1", "--json").json["outcome"] == "verified"


@pytest.mark.parametrize("match", [r"/runs/update", r"PUT https://management.*/versions/"])
def test_a_blob_that_is_overwritten_before_the_mark(
    azure: Azure, mirroring: Mirroring, run: Path, match: str
) -> None:
    """After everything was verified, and before the version is marked complete."""
    azure.fault("stall", match=match, seconds=60)
    process = mirroring.start("--source", run, "--model-name", "reach")
    wait_until_asked(azure, process, "/runs/update" if "update" in match else "/models/reach/versions/1?")
    prefix = next(name for name in azure.blobs("aml-mirror/") if name.endswith("/model/model.safetensors"))
    tamper(azure, prefix)
    azure.clear_faults()
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert json.loads(out)["outcome"] == "mirrored"
    assert_exactly_once(azure, "reach", run, POINTS)
    assert mirroring("verify", "reach:1", "--json").json["outcome"] == "verified"


def test_only_the_mark_is_missing_and_a_blob_was_changed(
    azure: Azure, mirroring: Mirroring, run: Path
) -> None:
    azure.fault("kill", match=r"PUT https://management.*/versions/", nth=2)
    mirroring.mirror(run, "reach", code=None)
    azure.clear_faults()
    assert not complete_versions(azure, "reach")
    tamper(azure, prefix_of(azure) + "model.safetensors")
    assert mirroring.mirror(run, "reach").code == 0
    assert_exactly_once(azure, "reach", run, POINTS)
    assert mirroring("verify", "reach:1", "--json").json["outcome"] == "verified"


def test_copied_files_are_repaired_by_copying(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    source = azure.seed(run, "runs/run-7", account=azure.new_account(), container="runs")
    mirroring.mirror(source, "reach")
    before = files_of(azure, azure.models()["reach"]["1"])
    tamper(azure, prefix_of(azure) + "model.safetensors", "shorter")
    assert mirroring("repair", "reach:1", "--json").json["outcome"] == "repaired"
    assert files_of(azure, azure.models()["reach"]["1"]) == before
