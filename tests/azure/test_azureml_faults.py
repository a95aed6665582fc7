"""Faults between the program and Azure that involve several requests, in addition to the two matrices.

The workspace keeps metric rows that are sent twice, so that duplicates show.
"""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from aml_mirror.registries.azureml.retry_with_read_back import PAUSES
from azure_emulator.client import Azure
from builders.runs import huggingface_run
from mirroring import Mirroring, assert_exactly_once, complete_versions, runs_of, wait_until_asked
from stages import STAGES

POINTS = 450
# The number of searches for a run before it is created again.
LOOKS = 1 + len(PAUSES)


@pytest.fixture
def mirroring(azure: Azure, tmp_path: Path) -> Mirroring:
    # The tests' own faults define how many searches are out of date.
    azure.set_workspace(metric_rows="kept", list_lag=0)
    folder = tmp_path / "cwd"
    folder.mkdir()
    return Mirroring(azure, folder)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return huggingface_run(tmp_path / "run-k", points=POINTS)


def assert_recovers(azure: Azure, mirroring: Mirroring, run: Path, *more: str) -> str:
    """Check that the mirror survives or says in one line why not, and that a rerun completes. Returns its
    stderr.
    """
    done = mirroring.mirror(run, "reach", "--retry-for", "40s", *more, code=None)
    assert done.code in (0, 75, 77), (done.code, done.err)
    assert "Traceback" not in done.err
    assert [fault for fault in azure.faults() if fault["acted"]], "the fault never acted"
    azure.clear_faults()
    if done.code:
        assert done.err.splitlines()[-1].startswith("error: ")
        assert not complete_versions(azure, "reach")
        mirroring.mirror(run, "reach")
    assert_exactly_once(azure, "reach", run, POINTS)
    return done.err


@pytest.mark.parametrize("stage", ["workspace", "run", "checkpoint", "artifact path", "version"])
@pytest.mark.parametrize("status", [403, 404, 409, 500])
def test_refused_once(azure: Azure, mirroring: Mirroring, run: Path, stage: str, status: int) -> None:
    azure.fault("status", match=STAGES[stage], status=status, body="{}")
    done = mirroring.mirror(run, "reach", "--retry-for", "20s", code=None)
    assert "Traceback" not in done.err
    assert done.code in (0, 65, 75, 77, 78), done.err
    azure.clear_faults()
    if done.code:
        assert len([line for line in done.err.splitlines() if line.startswith("error: ")]) == 1
        mirroring.mirror(run, "reach")
    (version,) = complete_versions(azure, "reach").values()
    assert version["properties"]["osmo.run_id"] == "run-k"


def test_a_sas_that_expires_between_its_making_and_its_use(
    azure: Azure, mirroring: Mirroring, run: Path
) -> None:
    azure.set_workspace(artifact_references="404")
    azure.fault("expire-sas", match=r"PUT https://[^?]*/dcid\.", times=1)
    azure.fault("status", match=r"PUT https://[^?]*/dcid\.[^?]*/manifest.json", status=403,
                headers={"x-ms-error-code": "AuthenticationFailed"})  # fmt: skip
    assert_recovers(azure, mirroring, run)


def test_every_answer_to_a_post_is_lost_once(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    for stage in ("experiments/create", "runs/create", "runs/search", "runs/log-batch", "runs/set-tag",
                  "runs/update", "artifacts/register"):  # fmt: skip
        azure.fault("drop", match=f"POST .*{stage}", when="after")
    azure.fault("drop", match="PUT .*/versions/", when="after")
    assert "error:" not in assert_recovers(azure, mirroring, run)


def test_a_run_that_was_made_twice(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    """A search does not show a run at once if the answer to its creation was lost: the second run is
    retired.
    """
    azure.fault("drop", match="runs/create", when="after")
    # The searches before the second attempt do not show the run.
    azure.fault("status", match="runs/search", nth=2, times=LOOKS, status=200, body="{}")
    assert_recovers(azure, mirroring, run)


def test_a_run_that_no_search_showed_until_the_end(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    """It is not documented how soon a search shows a new run. So the last search is just before the end."""
    azure.fault("drop", match="runs/create", when="after")
    azure.fault("status", match="runs/search", status=200, body="{}", times=1 + LOOKS + 1)
    assert_recovers(azure, mirroring, run)
    assert azure.requests("runs/delete")


def test_where_runs_cannot_be_deleted(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    azure.fault("drop", match="runs/create", when="after")
    azure.fault("status", match="runs/search", nth=2, times=LOOKS, status=200, body="{}")
    azure.fault("status", match="runs/delete", status=404, times=0)
    mirroring.mirror(run, "reach")
    azure.clear_faults()
    (found,) = runs_of(azure, "reach")
    assert found.info.status == "FINISHED"
    assert mirroring.mirror(run, "reach").json["outcome"] == "already-mirrored"
    status = mirroring("status", "--run-id", "run-k", "--model-name", "reach", "--json").json
    assert status["incomplete"] == []


@pytest.mark.parametrize("status", [400, 409])
def test_where_a_closed_run_cannot_be_opened_again(
    azure: Azure, mirroring: Mirroring, run: Path, status: int
) -> None:
    process = mirroring.start("--source", run, "--model-name", "reach")
    wait_until_asked(azure, process, "/model.safetensors")
    process.send_signal(signal.SIGTERM)
    assert process.wait(600) == 143
    assert [item.info.status for item in runs_of(azure, "reach")] == ["KILLED"]
    azure.fault("status", match="runs/update", status=status, body='{"message": "the run is closed"}')
    mirroring.mirror(run, "reach")
    assert_exactly_once(azure, "reach", run, POINTS)


@pytest.mark.parametrize("how", ["the run was deleted", "the run cannot be opened again"])
def test_a_version_that_was_begun_is_completed_by_another_run(
    azure: Azure, mirroring: Mirroring, run: Path, how: str
) -> None:
    azure.fault("kill", match="PUT .*/versions/", when="after")
    assert mirroring.mirror(run, "reach", code=None).code == -signal.SIGKILL
    azure.clear_faults()
    (first,) = runs_of(azure, "reach")
    if how == "the run was deleted":
        azure.mlflow.delete_run(first.info.run_id)
    else:
        azure.mlflow.set_terminated(first.info.run_id, "FAILED")
        azure.fault("status", match="runs/update", status=400, body='{"message": "the run is closed"}')
    receipt = mirroring.mirror(run, "reach").json
    assert (receipt["outcome"], receipt["model_version"]) == ("mirrored", "1")
    assert list(azure.models()["reach"]) == ["1"]
    again = mirroring.mirror(run, "reach").json
    assert again["outcome"] == "already-mirrored"
    assert again["mlflow_run_id"] == receipt["mlflow_run_id"] != first.info.run_id


def test_what_is_there_is_not_sent_again(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    azure.fault("kill", match="PUT .*/versions/")
    assert mirroring.mirror(run, "reach", code=None).code == -signal.SIGKILL
    azure.clear_faults()
    azure.forget_requests()
    receipt = mirroring.mirror(run, "reach").json
    assert receipt["bytes_sent"] == 0
    sent = [f"{one['method']} {one['path']}" for one in azure.requests()]
    assert not [line for line in sent if re.match(r"PUT .*safetensors|PUT .*tfevents", line)]
    assert not [line for line in sent if "log-batch" in line and "metrics" in line]


def test_killed_between_the_run_s_end_and_the_version_s_mark(
    azure: Azure, mirroring: Mirroring, run: Path
) -> None:
    azure.fault("kill", match="PUT .*/versions/", nth=2)
    assert mirroring.mirror(run, "reach", code=None).code == -signal.SIGKILL
    azure.clear_faults()
    azure.forget_requests()
    assert mirroring.mirror(run, "reach").json["outcome"] == "already-mirrored"
    assert_exactly_once(azure, "reach", run, POINTS)
    assert not azure.requests("log-batch")


def test_a_lost_claim_stops_the_writer(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    """Another mirror breaks and takes the claim: the previous holder writes nothing more."""
    azure.fault("stall", match="runs/log-batch", seconds=14, nth=2)
    process = mirroring.start("--source", run, "--model-name", "reach")
    wait_until_asked(azure, process, "log-batch")
    service = azure.blob_service()
    (name,) = azure.blobs("aml-mirror/claims/")
    blob = service.get_blob_client(azure.container, name)
    from azure.storage.blob import BlobLeaseClient

    BlobLeaseClient(blob).break_lease(0)
    blob.acquire_lease(-1)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 75
    assert "another mirror took over" in json.loads(out)["error"]
    assert not azure.models()
    assert not azure.requests("/model.safetensors")
