"""What ``integrity`` says, and how a run is recognised if its version lacks SHA-256 digests of some files."""

from __future__ import annotations

from pathlib import Path

import pytest

from azure_emulator.client import Azure
from builders.runs import huggingface_run, write_weights
from mirroring import Mirroring, complete_versions
from test_azureml_repair import tamper
from test_azureml_verify import prefix_of


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return huggingface_run(tmp_path / "run-7", steps=(20,), points=5)


def test_a_refused_copy_is_hashed_as_it_is_sent(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    source = azure.seed(run, "runs/run-7", account=azure.new_account(), container="runs")
    azure.set_account(copy_scope="PrivateLink")
    receipt = mirroring.mirror(source, "reach").json
    assert receipt["integrity"] == "sha256"
    assert any("were sent through this program" in warning for warning in receipt["warnings"])
    (version,) = complete_versions(azure, "reach").values()
    assert version["properties"]["integrity"] == "sha256"
    done = mirroring("verify", "reach:1", "--json").json
    assert (done["outcome"], done["checked_by"]) == ("verified", {"sha256": 2, "md5": 0, "size": 0})
    tamper(azure, prefix_of(azure) + "model.safetensors")
    found = mirroring("verify", "reach:1", "--json", code=65).json
    assert "SHA-256" in found["wrong"][0]["reason"]
    assert mirroring("repair", "reach:1", "--json").json["outcome"] == "repaired"
    # The same run on a volume: its bytes are recognised by their SHA-256.
    again = mirroring.mirror(run, "reach").json
    assert (again["outcome"], again["model_version"]) == ("already-mirrored", "1")


def test_a_run_that_was_copied_and_is_on_a_volume_later(
    azure: Azure, mirroring: Mirroring, run: Path
) -> None:
    source = azure.seed(run, "runs/run-7", account=azure.new_account(), container="runs")
    assert mirroring.mirror(source, "reach").json["integrity"] == "copied"
    azure.forget_requests()
    for _ in range(2):
        done = mirroring.mirror(run, "reach").json
        assert (done["outcome"], done["model_version"]) == ("already-mirrored", "1")
    assert not [one for one in azure.requests("/model/") if one["method"] == "PUT"]
    write_weights(run / "checkpoint-20" / "model.safetensors", seed=9)
    assert mirroring.mirror(run, "reach").json["model_version"] == "2"
