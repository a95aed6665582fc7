"""Versions in Azure ML whose blobs, manifest or run somebody changes, and which files a version may
contain.
"""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from azure_emulator.client import Azure
from builders import torch_zip
from builders.runs import huggingface_run
from mirroring import Mirroring, artifacts_of, complete_versions, runs_of


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return huggingface_run(tmp_path / "run-7", steps=(20,), points=5)


def prefix_of(azure: Azure, model: str = "reach", number: str = "1") -> str:
    """The path of a version's files in its container."""
    return str(azure.models()[model][number]["modelUri"]).partition("/paths/")[2]


def blob(azure: Azure, name: str, container: str = "") -> Any:
    """A blob of the workspace's account, without any of the emulated refusals."""
    return azure.blob_service().get_blob_client(container or azure.container, name)


def test_each_change_is_found_and_named(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    mirroring.mirror(run, "reach")
    done = mirroring("verify", "reach:1", "--json").json
    assert done["outcome"] == "verified"
    assert done["checked_by"] == {"sha256": 2, "md5": 0, "size": 0}
    assert done["pinned_by"] == "a property of the version, documented as immutable"
    prefix = prefix_of(azure)
    weights = blob(azure, prefix + "model.safetensors")
    whole = weights.download_blob().readall()
    at = len(whole) // 2
    kept = weights.get_blob_properties().metadata
    # The metadata still has the right SHA-256, but the bytes count.
    weights.upload_blob(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], overwrite=True, metadata=kept)
    blob(azure, prefix + "deep/extra.bin").upload_blob(b"x")
    blob(azure, prefix + "config.json").delete_blob()
    done = mirroring("verify", "models:/reach/1", "--json", code=65).json
    assert (done["outcome"], done["exit_code"]) == ("differs", 65)
    assert [entry["path"] for entry in done["wrong"]] == ["model.safetensors"]
    assert "SHA-256" in done["wrong"][0]["reason"]
    assert done["missing"] == ["config.json"]
    assert done["extra"] == ["deep/extra.bin"]
    mirroring("verify", "reach:2", code=66)
    mirroring("verify", "elsewhere:1", code=66)


def test_a_manifest_that_was_changed(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    azure.set_workspace(artifact_references="404")  # the run has its own copy
    run_id = mirroring.mirror(run, "reach").json["mlflow_run_id"]
    manifest = json.loads(azure.artifact(run_id, "manifest.json"))
    manifest["files"][0]["sha256"] = "0" * 64
    (name,) = [
        name for name in azure.blobs(container="azureml") if run_id in name and name.endswith("manifest.json")
    ]
    blob(azure, name, "azureml").upload_blob(json.dumps(manifest).encode(), overwrite=True)
    done = mirroring("verify", "reach:1", code=65)
    assert "was changed: it is not the one with the digest" in done.err


def test_artifacts_that_went_to_the_datastore(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    # An account that refuses every SAS of its key.
    azure.set_workspace(artifact_sas="key", artifact_references="404")
    mirroring.mirror(run, "reach")
    assert mirroring("verify", "reach:1", "--json").json["outcome"] == "verified"


def test_files_that_the_service_copied(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    source = azure.seed(run, "runs/run-7", account=azure.new_account(), container="runs")
    receipt = mirroring.mirror(source, "reach").json
    assert receipt["integrity"] == "copied"
    done = mirroring("verify", "reach:1", "--json").json
    assert (done["outcome"], done["integrity"]) == ("verified", "copied")
    assert done["checked_by"]["sha256"] == 0
    by_md5 = done["checked_by"]["md5"]
    assert (by_md5, done["checked_by"]["size"]) == (2, 0)
    weights = blob(azure, prefix_of(azure) + "model.safetensors")
    whole = weights.download_blob().readall()
    # One changed bit with the same size: the MD5 shows it.
    weights.upload_blob(whole[:-1] + bytes([whole[-1] ^ 1]), overwrite=True)
    done = mirroring("verify", "reach:1", "--json", code=65).json
    assert [entry["path"] for entry in done["wrong"]] == ["model.safetensors"]
    assert "MD5" in done["wrong"][0]["reason"]
    weights.upload_blob(whole[:-1], overwrite=True)
    done = mirroring("verify", "reach:1", "--json", code=65).json
    assert [entry["path"] for entry in done["wrong"]] == ["model.safetensors"]


class Payload:
    """Pickles as a call of ``os.system``."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("true",)


def test_a_pickle_is_told_by_a_property_and_refused(
    azure: Azure, mirroring: Mirroring, tmp_path: Path
) -> None:
    run = tmp_path / "rl"
    for step in (100, 200):
        torch_zip.save(run / f"model_{step}.pt", {"iter": step, "infos": None})
    (run / "params").mkdir()
    (run / "params" / "agent.yaml").write_text("seed: 1\n")
    receipt = mirroring.mirror(run, "clean", "--framework", "rsl_rl", "--refuse-pickle").json
    assert receipt["safety"] == "pickle-clean"
    (version,) = complete_versions(azure, "clean").values()
    assert version["properties"]["safety"] == "pickle-clean"
    found = json.loads(artifacts_of(azure, receipt["mlflow_run_id"])["safety.json"])
    assert found["files"][0]["path"] == "model_200.pt"

    evil = run / "model_100.pt"
    evil.write_bytes(pickle.dumps({"iter": 100, "x": Payload()}, 2))
    azure.forget_requests()
    # The checkpoint to be refused is examined before the other is sent.
    done = mirroring.mirror(
        run, "all", "--framework", "rsl_rl", "--checkpoint", "all", "--refuse-pickle", code=65
    )
    assert "model_100.pt is suspicious" in done.json["error"]
    assert not [one for one in azure.requests() if one["method"] in ("PUT", "PATCH")]
    assert "all" not in azure.models()
    assert not runs_of(azure, "all")

    receipt = mirroring.mirror(run, "told", "--framework", "rsl_rl", "--checkpoint", "100").json
    assert receipt["safety"] == "suspicious"
    assert any("is suspicious" in warning for warning in receipt["warnings"])
    # The next time the stored verdict counts: nothing is sent, and the version is still refused.
    again = mirroring.mirror(run, "told", "--framework", "rsl_rl", "--checkpoint", "100").json
    assert (again["outcome"], again["safety"]) == ("already-mirrored", "suspicious")
    mirroring.mirror(run, "told", "--framework", "rsl_rl", "--checkpoint", "100", "--refuse-pickle", code=65)
