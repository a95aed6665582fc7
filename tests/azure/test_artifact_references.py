"""The run shows the version's files: by reference, if the service supports that."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from azure_emulator.client import Azure
from builders.runs import huggingface_run
from mirroring import Mirroring, artifacts_of, assert_exactly_once, complete_versions, runs_of

POINTS = 5


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return huggingface_run(tmp_path / "run-7", steps=(20,), points=POINTS)


def places(azure: Azure, model: str) -> dict[str, str]:
    """Path of each artifact of a model's run -> the blob that it refers to."""
    (found,) = runs_of(azure, model)
    return {path: place["name"] for path, place in azure.artifact_places(found.info.run_id).items()}


def verified(mirroring: Mirroring, *names: str) -> None:
    for name in names:
        assert mirroring("verify", name, "--json").json["outcome"] == "verified"


def test_no_byte_goes_through_the_artifact_service(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    """Also in an account that refuses every SAS: the Studio still shows the files."""
    azure.set_workspace(artifact_sas="key")
    done = mirroring.mirror(run, "reach")
    assert "artifacts are in the datastore" not in done.err
    assert not azure.requests("/batch/metadata")
    shown = places(azure, "reach")
    assert {path.partition("/")[0] for path in shown} == {
        "MODEL_CARD.md", "manifest.json", "model.cdx.json", "provenance.intoto.json", "receipt.json",
        "safety.json", "tensorboard", "curves.svg",
    }  # fmt: skip
    for path, name in shown.items():
        # Text files have a separate copy, because an earlier release overwrites the blob that an artifact
        # refers to.
        folder = "" if path.startswith("tensorboard/") else "artifacts/"
        assert name.endswith(f"/mirror/reach/{folder}{path}"), name
    assert_exactly_once(azure, "reach", run, POINTS)
    verified(mirroring, "reach:1")


@pytest.mark.parametrize("taken", ["taken", "400"])
def test_two_models_of_one_run_and_another_default_datastore(
    azure: Azure, mirroring: Mirroring, run: Path, taken: str
) -> None:
    azure.set_workspace(artifact_references=taken)
    mirroring.mirror(run, "reach")
    mirroring.mirror(run, "grasp")
    azure.set_datastore(
        "second", account=azure.new_account(containers=["two"]), container="two", is_default=True
    )
    mirroring.mirror(run, "lift")
    verified(mirroring, "reach:1", "grasp:1", "lift:1")
    if taken == "taken":
        own = {model: set(places(azure, model).values()) for model in ("reach", "grasp", "lift")}
        assert not own["reach"] & own["grasp"]
    (version,) = complete_versions(azure, "lift").values()
    assert "/datastores/second/" in version["modelUri"]
    assert mirroring.mirror(run, "reach").json["outcome"] == "already-mirrored"


@pytest.mark.parametrize("match", [r"PUT https://[^?]*MODEL_CARD.md", r"PUT https://management.*/versions/"])
def test_killed_before_the_default_datastore_changed(
    azure: Azure, mirroring: Mirroring, run: Path, match: str
) -> None:
    azure.fault("kill", match=match, nth=1)
    assert mirroring.mirror(run, "reach", code=None).code == -signal.SIGKILL
    azure.clear_faults()
    account = azure.new_account(containers=["two"])
    azure.set_datastore("second", account=account, container="two", is_default=True)
    done = mirroring.mirror(run, "reach")
    (version,) = complete_versions(azure, "reach").values()
    assert "/datastores/second/" in version["modelUri"]
    verified(mirroring, "reach:1")
    # The killed attempt's artifact cannot be changed, so the next name refers to this version's file.
    (found,) = runs_of(azure, "reach")
    there = azure.artifact_places(found.info.run_id)
    assert there["manifest~2.json"]["account"] == account
    assert "the artifact of this one is manifest~2.json" in done.err
    assert artifacts_of(azure, found.info.run_id)["manifest~2.json"] == azure.read(**there["manifest~2.json"])


def test_a_log_that_grew_is_shown_in_its_place(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    mirroring.mirror(run, "reach")
    before = places(azure, "reach")
    events = next((run / "runs").rglob("events*"))
    longer = huggingface_run(run.parent / "longer", steps=(20,), points=POINTS + 3)
    data = next((longer / "runs").rglob("events*")).read_bytes()
    assert data.startswith(events.read_bytes())
    events.write_bytes(data)
    assert mirroring.mirror(run, "reach").json["outcome"] == "updated"
    assert places(azure, "reach") == before
    (found,) = runs_of(azure, "reach")
    path = f"tensorboard/{events.relative_to(run)}"
    assert artifacts_of(azure, found.info.run_id)[path] == data
    verified(mirroring, "reach:1")
