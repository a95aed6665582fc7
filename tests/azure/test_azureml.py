"""Mirroring into an emulated Azure ML workspace with the real clients: what arrives, and how often."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from azure.ai.ml import MLClient
from safetensors.numpy import save_file

from azure_emulator.client import READER, Azure
from builders.runs import huggingface_run, write_events, write_weights
from mirroring import (
    ASIDE,
    Mirroring,
    artifacts_of,
    assert_exactly_once,
    assert_no_claim_is_held,
    complete_versions,
    files_of,
    points_of,
    runs_of,
    wait_until_asked,
)

POINTS = 450  # three batches
REAL = Path(__file__).parent.parent / "data" / "runs"
REAL_RUNS = sorted(path.name for path in REAL.iterdir() if path.is_dir())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return huggingface_run(tmp_path / "run-7", points=POINTS)


def sent(azure: Azure, contains: str = "") -> list[str]:
    """METHOD host/path of each request, without tokens and cloud metadata."""
    import re

    found = (f"{one['method']} {one['host']}{one['path']}" for one in azure.requests(contains))
    return [line for line in found if not re.search(ASIDE, line)]


def test_what_arrives(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    receipt = mirroring.mirror(run, "reach", "--tag", "robot=ur5e", fork=False).json

    assert receipt["outcome"] == "mirrored"
    assert (receipt["model_version"], receipt["model_uri"]) == ("1", "models:/reach/1")
    # The builder's log continues far beyond its last checkpoint.
    assert [text for text in receipt["warnings"] if "continues to step" not in text] == []
    run_id = assert_exactly_once(azure, "reach", run, POINTS)
    assert run_id == receipt["mlflow_run_id"]
    found = azure.mlflow.get_run(run_id)
    assert found.info.run_name == "run-7"
    assert found.data.tags["robot"] == "ur5e"
    assert found.data.tags["osmo.output_dir"] == str(run)
    assert found.data.params["config.model_type"] == "policy"
    history = azure.mlflow.get_metric_history(run_id, "train/loss")
    assert [(p.step, p.timestamp) for p in history] == [
        (step, 1_760_000_000_000 + 1000 * (step - 1)) for step in range(1, POINTS + 1)
    ]
    version = azure.models()["reach"]["1"]
    assert version["properties"] == {
        "osmo.run_id": "run-7",
        "osmo.output_dir": str(run),
        "source": "osmo-mirror",
        "framework": "huggingface",
        "checkpoint": "checkpoint-20",
        "step": "20",
        "role": "final",
        "files_uri": receipt["files_uri"],
        "mlflow_run_id": run_id,
        "manifest_sha256": receipt["manifest_sha256"],
        "integrity": "sha256",
        "safety": "safetensors",
        "safety.scanner": found.data.tags["safety.scanner"],
        "identity": found.data.tags["identity"],
        "stored_sha256": found.data.tags["mirror.stored"],
    }
    logs = version["tags"].pop("mirror.logs")
    assert re.fullmatch(r"[0-9a-f]{16}:[0-9a-f]{64}:[0-9a-f]{16}", logs)
    # Properties that consumers read are also tags.
    assert version["tags"] == {
        "robot": "ur5e",
        "mirror.state": "complete",
        "framework": "huggingface",
        "step": "20",
        "role": "final",
    }
    folder = version["modelUri"].partition("/paths/")[2].rstrip("/")
    assert receipt["files_uri"] == f"azure://{azure.account}/{azure.container}/{folder}"
    assert version["modelType"] == "custom_model"
    assert "/datastores/workspaceblobstore/paths/aml-mirror/run-7/checkpoint-20/" in version["modelUri"]
    card = artifacts_of(azure, run_id)["MODEL_CARD.md"].decode()
    picture = "![The main curves of the training](curves.svg)\n\n"
    # The studio cannot show artifacts in a description.
    assert picture in card and version["description"] == card.replace(picture, "")
    assert "checkpoint of one run" in (azure.model_descriptions()["reach"] or "")
    assert_no_claim_is_held(azure)


def test_the_manifest_says_what_the_blobs_hold(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    receipt = mirroring.mirror(run, "reach").json
    manifest = json.loads(azure.artifact(receipt["mlflow_run_id"], "manifest.json"))
    expected = {entry["path"]: entry["sha256"] for entry in manifest["files"]}
    assert files_of(azure, azure.models()["reach"]["1"]) == expected


def test_again_sends_nothing_and_asks_little(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    first = mirroring.mirror(run, "reach").json
    azure.forget_requests()
    again = mirroring.mirror(run, "reach").json
    assert again["outcome"] == "already-mirrored"
    for key in ("model_version", "mlflow_run_id", "manifest_sha256", "checkpoint", "step", "bytes"):
        assert again[key] == first[key], key
    # The workspace, the experiment, the run, its version; no storage at all.
    asked = sent(azure)
    assert len(asked) == 4, asked
    assert not [line for line in asked if ".blob." in line]


def test_seen_through_another_mount(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    mirroring.mirror(run, "reach")
    moved = run.parent / "elsewhere"
    shutil.copytree(run, moved)
    assert mirroring.mirror(moved, "reach", "--run-id", "run-7").json["outcome"] == "already-mirrored"
    # Now it is recognised by the new stamps: nothing is hashed.
    azure.forget_requests()
    assert mirroring.mirror(moved, "reach", "--run-id", "run-7").json["outcome"] == "already-mirrored"
    assert len(sent(azure)) == 4
    assert_exactly_once(azure, "reach", run, POINTS)


def test_a_version_whose_run_was_deleted_is_found(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    first = mirroring.mirror(run, "reach").json
    azure.mlflow.delete_run(first["mlflow_run_id"])
    azure.seed_versions("reach", 80, properties={"osmo.run_id": "other-{n}"})
    # The first time, five more requests store the quick key with the version, under the claim, because the
    # run is gone.
    for most in (12 + 5, 12):
        azure.forget_requests()
        again = mirroring.mirror(run, "reach").json
        assert (again["outcome"], again["model_version"]) == ("already-mirrored", "1")
        assert len(sent(azure)) <= most, "\n".join(sent(azure))


def test_other_bytes_are_a_new_version(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    first = mirroring.mirror(run, "reach").json
    write_weights(run / "checkpoint-20" / "model.safetensors", seed=99)
    second = mirroring.mirror(run, "reach").json
    assert (second["outcome"], second["model_version"]) == ("mirrored", "2")
    assert second["mlflow_run_id"] != first["mlflow_run_id"]
    found = complete_versions(azure, "reach")
    assert sorted(found) == ["1", "2"]
    assert files_of(azure, found["1"]) != files_of(azure, found["2"])


def test_numbers_that_others_took(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    azure.seed_versions("reach", 40, properties={"identity": "another {n}"})
    assert mirroring.mirror(run, "reach").json["model_version"] == "41"
    (version,) = complete_versions(azure, "reach").values()
    assert version["properties"]["osmo.run_id"] == "run-7"


@pytest.mark.parametrize("status", [400, 409])
def test_a_number_that_was_taken_in_between(
    azure: Azure, mirroring: Mirroring, run: Path, status: int
) -> None:
    """A mirror that is refused, because versions cannot be changed, takes the next number."""
    azure.set_workspace(immutable_status=status)
    azure.fault("stall", match=r"PUT .*/models/reach/versions/1\?", seconds=60)
    process = mirroring.start("--source", run, "--model-name", "reach")
    wait_until_asked(azure, process, "/models/reach/versions/1?")
    azure.seed_versions("reach", 1, properties={"identity": "another"})
    azure.clear_faults()
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert json.loads(out)["model_version"] == "2"
    assert azure.models()["reach"]["1"]["properties"] == {"identity": "another"}
    assert list(complete_versions(azure, "reach")) == ["2"]


def test_tags_that_people_wrote_stay_and_status_tells(
    azure: Azure, mirroring: Mirroring, ml: MLClient, run: Path
) -> None:
    receipt = mirroring.mirror(run, "reach").json
    version = ml.models.get("reach", "1")
    version.tags = {**version.tags, "reviewed": "by Kim"}
    ml.models.create_or_update(version)
    azure.mlflow.set_tag(receipt["mlflow_run_id"], "note", "keep this one")
    # New stamps make the mirror write the version's tags again.
    before = azure.models()["reach"]["1"]["tags"]
    for path in run.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    assert mirroring.mirror(run, "reach").json["outcome"] == "already-mirrored"
    tags = azure.models()["reach"]["1"]["tags"]
    assert tags["reviewed"] == "by Kim" and tags["mirror.state"] == "complete"
    assert {key for key in tags if tags[key] != before.get(key)} <= {"quick_key", "mirror.logs"}
    assert azure.mlflow.get_run(receipt["mlflow_run_id"]).data.tags["note"] == "keep this one"
    process = mirroring("status", "--run-id", "run-7", "--model-name", "reach", "--json")
    assert process.json["versions"][0]["mlflow_run_id"] == receipt["mlflow_run_id"]
    assert process.json["missing"] is None


def test_what_an_older_scanner_said_is_judged_again_and_noted_beside_the_properties(
    azure: Azure, mirroring: Mirroring, run: Path, ml: MLClient
) -> None:
    mirroring.mirror(run, "reach", "--tag", "robot=ur5e")
    before = azure.models()["reach"]["1"]
    assert before["properties"]["safety"] == "safetensors"
    older = ml.models.get("reach", "1")
    older.tags.update({"mirror.safety": "suspicious", "mirror.safety_scanner": "1"})
    ml.models.create_or_update(older)
    again = mirroring.mirror(run, "reach", "--refuse-pickle").json
    assert (again["outcome"], again["safety"]) == ("already-mirrored", "safetensors")
    after = azure.models()["reach"]["1"]
    assert after["properties"] == before["properties"]
    scanner = before["properties"]["safety.scanner"]
    now = {"mirror.safety": "safetensors", "mirror.safety_scanner": scanner}
    assert after["tags"] == {**before["tags"], **now}


def test_all_makes_one_version_a_checkpoint(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    done = mirroring.mirror(run, "reach", "--checkpoint", "all")
    receipts = [json.loads(line) for line in done.out.splitlines()]
    assert [(item["step"], item["model_version"]) for item in receipts] == [(10, "1"), (20, "2")]
    azure.forget_requests()
    again = mirroring.mirror(run, "reach", "--checkpoint", "all")
    assert [json.loads(line)["outcome"] for line in again.out.splitlines()] == ["already-mirrored"] * 2
    assert len(sent(azure)) == 5


def test_another_model_of_the_same_run(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    mirroring.mirror(run, "reach")
    azure.forget_requests()
    done = mirroring.mirror(run, "grasp", "--experiment", "reach")
    assert (done.json["outcome"], done.json["model_uri"]) == ("mirrored", "models:/grasp/1")
    # The same bytes in the same place are not sent again. Another model's record is not trusted, so they are
    # read back.
    assert {one["method"] for one in azure.requests("/model.safetensors")} == {"GET"}
    assert "reading back 2 file(s)" in done.err
    assert len(runs_of(azure, "reach")) == 2


@pytest.mark.parametrize("run_id", ["it's", 'say "run"', "a,b=c 'd\" e", "ünï/cödé", "x" * 256])
def test_awkward_run_ids(azure: Azure, mirroring: Mirroring, run: Path, run_id: str) -> None:
    given = ("reach", "--run-id", run_id)
    assert mirroring.mirror(run, *given).json["outcome"] == "mirrored"
    assert mirroring.mirror(run, *given).json["outcome"] == "already-mirrored"


def test_limits(azure: Azure, mirroring: Mirroring, tmp_path: Path) -> None:
    run = huggingface_run(tmp_path / "run-9", steps=(10,))
    rows = [(f"m{number:02}/loss", step, 1.0) for step in range(3) for number in range(80)]
    write_events(run / "runs" / "Jan02_03-04-05_host" / "events.out.tfevents.1760000000.host.1.0", rows)
    config = {f"p{number:03}": number for number in range(300)} | {"long": "x" * 3000, "model_type": "policy"}
    (run / "checkpoint-10" / "config.json").write_text(json.dumps(config))
    tags = [part for number in range(60) for part in ("--tag", f"t{number:02}=v")]
    receipt = mirroring.mirror(run, "reach", *tags, "--tag", f"long={'y' * 1500}").json

    assert receipt["outcome"] == "mirrored"
    (found,) = runs_of(azure, "reach")
    assert len(found.data.metrics) == 50
    assert len(found.data.params) == 200
    assert len(found.data.tags) <= 50
    assert found.data.tags["mirror.state"] == "complete"
    kept = json.loads(azure.artifact(found.info.run_id, "receipt.json"))
    left_out = kept["left_out"]
    assert len([item for item in left_out if "metric" in item]) == 30
    assert len([item for item in left_out if "param" in item]) >= 100
    assert any("the tag t59 was left out" in warning for warning in kept["warnings"])
    events = next((run / "runs").rglob("events*"))
    assert azure.artifact(found.info.run_id, f"tensorboard/{events.relative_to(run)}") == events.read_bytes()


def test_long_parameters_are_cut(azure: Azure, mirroring: Mirroring, tmp_path: Path) -> None:
    run = huggingface_run(tmp_path / "run-9", steps=(10,))
    (run / "checkpoint-10" / "config.json").write_text(
        json.dumps({"model_type": "policy", "long": "x" * 3000})
    )
    receipt = mirroring.mirror(run, "reach").json
    (found,) = runs_of(azure, "reach")
    value = found.data.params["config.long"]
    assert len(value) == 1000
    assert value.endswith("(cut: 3000 characters)")
    assert {"param": "config.long", "reason": "cut from 3000 to 1000 characters"} in receipt["left_out"]


def test_parameters_that_the_service_finds_too_long_are_cut_further(
    azure: Azure, mirroring: Mirroring, tmp_path: Path
) -> None:
    """The maximum length of a value is not documented."""
    run = huggingface_run(tmp_path / "run-9", steps=(10,))
    (run / "checkpoint-10" / "config.json").write_text(
        json.dumps({"model_type": "policy", "long": "x" * 3000})
    )
    body = {
        "error_code": "INVALID_PARAMETER_VALUE",
        "message": "Param value 'xxx' had length 1000, which exceeded length limit of 500",
    }
    azure.fault("status", match="runs/log-batch", status=400, body=json.dumps(body))
    receipt = mirroring.mirror(run, "reach").json
    (found,) = runs_of(azure, "reach")
    assert len(found.data.params["config.long"]) == 250
    assert found.data.params["config.model_type"] == "policy"
    assert any("parameters were cut to 250 characters" in warning for warning in receipt["warnings"])


def test_2000_files_are_refused_before_anything_is_sent(
    azure: Azure, mirroring: Mirroring, tmp_path: Path
) -> None:
    run = huggingface_run(tmp_path / "run-9", steps=(10,))
    for number in range(2000):
        (run / "checkpoint-10" / f"part-{number}.json").write_text("{}")
    receipt = mirroring.mirror(run, "reach", code=65).json
    assert "1500" in receipt["error"] or "1,500" in receipt["error"]
    assert "--exclude" in receipt["hint"]
    assert {one["method"] for one in azure.requests("azureml.azure.test")} <= {"GET", "POST"}
    assert not sent(azure, ".blob.")
    assert not sent(azure, "create")
    mirroring.mirror(run, "reach", "--exclude", "part-1*.json")


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        (("a b",), "1 to 255 letters, digits"),
        (("_a",), "beginning with a letter or digit"),
        (("ok", "--experiment", "not ok"), "1 to 256 letters, digits"),
        (("a.b",), "--experiment"),
    ],
)
def test_names_that_azure_refuses_are_refused_before_anything_is_sent(
    azure: Azure, mirroring: Mirroring, run: Path, given: tuple[str, ...], rule: str
) -> None:
    receipt = mirroring.mirror(run, *given, code=64).json
    assert rule in receipt["error"] + receipt["hint"]
    assert sent(azure) == []


@pytest.mark.parametrize(
    "missing", ["AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP", "AZUREML_WORKSPACE_NAME"]
)
def test_missing_variables_are_named(azure: Azure, mirroring: Mirroring, run: Path, missing: str) -> None:
    receipt = mirroring.mirror(run, "reach", code=78, **{missing: ""}).json
    assert f"{missing} not set" in receipt["error"]
    assert sent(azure) == []


@pytest.mark.parametrize("kind", ["AzureFile", "AzureDataLakeGen2"])
def test_a_default_datastore_that_is_not_blob_storage(
    azure: Azure, mirroring: Mirroring, run: Path, kind: str
) -> None:
    azure.set_datastore(kind=kind)
    receipt = mirroring.mirror(run, "reach", code=78).json
    assert "not blob storage" in receipt["error"]
    assert "Set as default datastore" in receipt["hint"]
    assert not runs_of(azure, "reach")


@pytest.mark.parametrize("role", [None, READER])
def test_without_the_data_role(azure: Azure, mirroring: Mirroring, run: Path, role: str | None) -> None:
    azure.set_role(role, account=azure.account)
    receipt = mirroring.mirror(run, "reach", code=77).json
    assert "no data role" in receipt["error"]
    assert "Storage Blob Data Contributor" in receipt["hint"]
    assert not azure.models()
    azure.set_role("Storage Blob Data Contributor", account=azure.account)
    mirroring.mirror(run, "reach")
    assert_exactly_once(azure, "reach", run, POINTS)


@pytest.mark.parametrize("role", [None, "Reader"])
def test_without_the_workspace_role(azure: Azure, mirroring: Mirroring, run: Path, role: str | None) -> None:
    azure.set_role(role)
    receipt = mirroring.mirror(run, "reach", code=77).json
    assert "AuthorizationFailed" in receipt["error"]
    assert "AzureML Data Scientist" in receipt["hint"]


def test_where_the_artifact_service_signs_with_a_key_that_the_account_refuses(
    azure: Azure, mirroring: Mirroring, run: Path
) -> None:
    azure.set_workspace(artifact_sas="key", artifact_references="404")
    done = mirroring.mirror(run, "reach")
    assert "warning: the run's artifacts are in the datastore" in done.err
    (found,) = runs_of(azure, "reach")
    place = found.data.tags["mirror.artifacts"].partition("/paths/")[2]
    beside = {name.removeprefix(place) for name in azure.blobs(place)}
    events = next((run / "runs").rglob("events*")).relative_to(run)
    assert beside == {f"tensorboard/{events}", "manifest.json", "MODEL_CARD.md", "receipt.json"} | {
        "provenance.intoto.json",
        "safety.json",
        "model.cdx.json",
        "curves.svg",
    }
    (version,) = complete_versions(azure, "reach").values()
    assert set(files_of(azure, version)) == {"model.safetensors", "config.json"}
    assert json.loads(azure.read(f"{place}receipt.json"))["model_version"] == "1"
    assert mirroring.mirror(run, "reach").json["outcome"] == "already-mirrored"


def test_a_loser_in_another_experiment_finds_the_version(
    azure: Azure, mirroring: Mirroring, run: Path
) -> None:
    given = ("--source", run, "--model-name", "reach")
    azure.fault("stall", match=r"PUT .*/model.safetensors", seconds=4)
    first = mirroring.start(*given)
    wait_until_asked(azure, first, "/model.safetensors")
    second = mirroring(*given, "--experiment", "elsewhere")
    assert first.wait(600) == 0
    assert second.json["outcome"] == "already-mirrored"
    assert list(azure.models()["reach"]) == ["1"]


def test_from_blob_storage_no_checkpoint_byte_travels(
    azure: Azure, mirroring: Mirroring, tmp_path: Path
) -> None:
    run = huggingface_run(tmp_path / "run-b", points=30, size=1000)
    source = azure.seed(run, "runs/run-b")
    receipt = mirroring.mirror(source, "reach").json
    assert receipt["outcome"] == "mirrored"
    assert receipt["bytes_copied"] == receipt["bytes"]
    assert receipt["integrity"] == "copied"
    (version,) = complete_versions(azure, "reach").values()
    weights = (run / "checkpoint-20" / "model.safetensors").read_bytes()
    assert files_of(azure, version)["model.safetensors"] == hashlib.sha256(weights).hexdigest()
    azure.forget_requests()
    again = mirroring.mirror(source, "reach").json
    assert again["outcome"] == "already-mirrored"
    assert len(sent(azure)) <= 12
    assert not [line for line in sent(azure) if "model.safetensors" in line]


@pytest.mark.parametrize("given", [("--hash",), ()])
def test_a_copied_run_that_is_seen_on_a_volume(
    azure: Azure, mirroring: Mirroring, tmp_path: Path, given: tuple[str, ...]
) -> None:
    """The run is recognised by hashes from its copy, or by the service's MD5s."""
    run = huggingface_run(tmp_path / "run-b", points=30)
    first = mirroring.mirror(azure.seed(run, "runs/run-b"), "reach", *given).json
    assert first["bytes_copied"] == first["bytes"]
    second = mirroring.mirror(run, "reach").json
    assert (second["outcome"], second["model_version"]) == ("already-mirrored", "1")
    assert len(complete_versions(azure, "reach")) == 1


def test_files_are_looked_at_again_in_few_requests(
    azure: Azure, mirroring: Mirroring, tmp_path: Path
) -> None:
    """One listing, not one request per file, checks that no file changed during the copy."""
    run = huggingface_run(tmp_path / "run-b", points=30, steps=(20,))
    for number in range(40):
        (run / "checkpoint-20" / f"part-{number}.json").write_text("{}")
    source = azure.seed(run, "runs/run-b", container="runs")
    azure.forget_requests()
    assert mirroring.mirror(source, "reach").json["bytes_copied"] > 0
    requests = azure.requests("/runs/")
    asked = [one for one in requests if one["method"] == "HEAD" and "/checkpoint-20/" in one["path"]]
    assert len(asked) <= 2, asked
    # The folder was listed after the last copy, so the check did take place.
    sent = [one["number"] for one in azure.requests("part-") if one["method"] == "PUT"]
    lists = [one["number"] for one in azure.requests("comp=list") if "prefix=runs%2Frun-b" in one["path"]]
    assert len(sent) >= 40 and max(lists) > max(sent)


def assert_bytes_of(azure: Azure, receipt: dict[str, Any], run: Path) -> None:
    """Each blob of the only version is a file of the run with the same name and bytes, and is in the
    manifest.
    """
    (version,) = complete_versions(azure, "reach").values()
    found = files_of(azure, version)
    manifest = json.loads(azure.artifact(receipt["mlflow_run_id"], "manifest.json"))
    assert {entry["path"] for entry in manifest["files"]} == set(found)
    assert len(found) == receipt["files"] > 0
    names: dict[str, set[str]] = {}
    for path in run.rglob("*"):
        if path.is_file():
            names.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), set()).add(path.name)
    for path, digest in found.items():
        assert path.rpartition("/")[2] in names[digest], path
    for entry in manifest["files"]:
        assert entry["sha256"] in (None, found[entry["path"]])


# tests/layouts mirrors each of them to MLflow. `make test-faults` mirrors all of them to Azure ML.
@pytest.mark.parametrize("name", REAL_RUNS if os.environ.get("FAULTS") == "all" else REAL_RUNS[::4])
def test_runs_that_real_frameworks_wrote(azure: Azure, mirroring: Mirroring, name: str) -> None:
    receipt = mirroring.mirror(REAL / name, "reach").json
    assert (receipt["outcome"], receipt["integrity"]) == ("mirrored", "sha256"), receipt
    assert_bytes_of(azure, receipt, REAL / name)


@pytest.mark.parametrize("name", ["huggingface_peft", "lerobot_act", "openpi_jax", "stable_baselines3"])
def test_runs_that_real_frameworks_wrote_from_blob_storage(
    azure: Azure, mirroring: Mirroring, name: str
) -> None:
    """As OSMO uploads them. The upload loses links to folders, such as LeRobot's ``last``."""
    account = azure.new_account(containers=["runs"], hns=name == "lerobot_act")
    files = {
        path.relative_to(REAL / name).as_posix(): path.read_bytes()
        for path in (REAL / name).rglob("*")
        if path.is_file() and not path.parent.is_symlink()
    }
    receipt = mirroring.mirror(azure.seed(files, name, account=account, container="runs"), "reach").json
    assert (receipt["outcome"], receipt["integrity"]) == ("mirrored", "copied"), receipt
    assert receipt["bytes_copied"] == receipt["bytes"]
    assert_bytes_of(azure, receipt, REAL / name)


def test_a_large_file_goes_in_blocks(azure: Azure, mirroring: Mirroring, tmp_path: Path) -> None:
    run = huggingface_run(tmp_path / "run-l", steps=(20,))
    weights = run / "checkpoint-20" / "model.safetensors"
    save_file({"w": np.arange(6 << 20, dtype=np.float32)}, weights)
    receipt = mirroring.mirror(run, "reach").json
    assert receipt["bytes_sent"] >= os.path.getsize(weights)
    (version,) = complete_versions(azure, "reach").values()
    assert files_of(azure, version)["model.safetensors"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert [line for line in sent(azure, ".blob.") if "comp=blocklist" in line]


@pytest.mark.parametrize("taken", [True, False])
def test_values_that_are_not_finite(azure: Azure, mirroring: Mirroring, tmp_path: Path, taken: bool) -> None:
    run = huggingface_run(tmp_path / "run-n", steps=(20,))
    rows = [("train/loss", 1, 1.0), ("train/loss", 2, float("nan")), ("train/loss", 3, float("inf"))]
    rows += [("train/loss", step, 1.0) for step in range(4, 300)]
    rows += [("train/loss", 300, float("-inf"))]
    events = run / "runs" / "Jan02_03-04-05_host" / "events.out.tfevents.1760000000.host.1.0"
    write_events(events, rows)
    azure.set_workspace(accepts_nan=taken)
    receipt = mirroring.mirror(run, "reach").json
    steps = points_of(azure, receipt["mlflow_run_id"], "train/loss")
    told = [warning for warning in receipt["warnings"] if "not finite were left out" in warning]
    if taken:
        assert (steps, told) == (list(range(1, 301)), [])
    else:
        assert steps == [1, *range(4, 300)]
        assert len(told) == 1
    path = f"tensorboard/{events.relative_to(run)}"
    assert azure.artifact(receipt["mlflow_run_id"], path) == events.read_bytes()


def test_a_number_that_was_deleted_is_not_used_again(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    """A deleted version "cannot be recreated": the next number is taken."""
    mirroring.mirror(run, "reach")
    azure.call("DELETE", "models/reach/1")
    receipt = mirroring.mirror(run, "reach").json
    assert (receipt["outcome"], receipt["model_version"]) == ("mirrored", "2")
    assert list(azure.models()["reach"]) == ["2"]
    assert mirroring.mirror(run, "reach").json["outcome"] == "already-mirrored"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_copy_that_a_killed_try_left_under_way(
    azure: Azure, mirroring: Mirroring, tmp_path: Path, when: str
) -> None:
    """A pending copy already has size and metadata. The mirror waits for it and does not trust it."""
    run = huggingface_run(tmp_path / "run-b", points=30)
    source = azure.seed(run, "runs/run-b")
    azure.set_account(copy_pending_polls=3)
    azure.fault("kill", match=r"PUT https://[^?]*/aml-mirror/[^?]*/model\.safetensors", when=when)
    assert mirroring.mirror(source, "reach", code=None).code == -signal.SIGKILL
    azure.clear_faults()
    azure.forget_requests()
    receipt = mirroring.mirror(source, "reach").json
    assert (receipt["outcome"], receipt["integrity"]) == ("mirrored", "copied")
    polls = [one for one in azure.requests("/model.safetensors") if one["method"] == "HEAD"]
    assert len([one for one in polls if "/aml-mirror/" in one["path"]]) >= 3
    assert_exactly_once(azure, "reach", run, 30)


def test_no_telemetry(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    mirroring.mirror(run, "reach", fork=False)
    hosts = {one["host"].partition(":")[0] for one in azure.requests()}
    known = ("login.azure.test", "management.azure.test", "eastus.api.azureml.azure.test")
    assert all(host in known or host.endswith(".blob.core.azure.test") for host in hosts), hosts
