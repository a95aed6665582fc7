"""A model starts to use a folder while prune removes it: the model waits, or prune leaves the folder."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobLeaseClient

from aml_mirror.registries.azureml.blob_lease import LEASE_SECONDS, BlobLease
from aml_mirror.registries.azureml.leftovers import AzureMLLeftovers
from azure_emulator.client import Azure
from builders.forks import Forked
from builders.runs import huggingface_run
from mirroring import Mirroring
from this_process import InThisProcess

NOW = ("--older-than", "0s", "--delete", "--json")


@pytest.fixture
def run(here: Azure, mirroring: Mirroring, tmp_path: Path) -> Path:
    """A run whose files are in the datastore, but without a version of the model act: a mirror was
    interrupted.
    """
    run = huggingface_run(tmp_path / "run-cut", steps=(40,), points=3)
    here.fault("status", match=r"PUT .*/models/[^/]+/versions/", status=403, times=0)
    mirroring.mirror(run, "act", "--retry-for", "1s", code=None)
    here.clear_faults()
    assert here.blobs("aml-mirror/run-cut/")
    here.settle()
    # From now on the lists do not show one process what the other writes.
    mirroring.settles = False
    return run


def at(monkeypatch: pytest.MonkeyPatch, method: str, act: Any) -> None:
    """Act once, directly before a step of prune's."""
    real, done = getattr(AzureMLLeftovers, method), []

    def call(leftovers: AzureMLLeftovers, *given: Any) -> Any:
        if not done:
            done.append(True)
            act()
        return real(leftovers, *given)

    monkeypatch.setattr(AzureMLLeftovers, method, call)


def test_a_version_that_another_model_got_since_the_survey(
    here: Azure,
    in_this_process: InThisProcess,
    mirroring: Mirroring,
    monkeypatch: pytest.MonkeyPatch,
    run: Path,
) -> None:
    at(monkeypatch, "_remove_folder", lambda: mirroring.mirror(run, "act-2"))
    done = in_this_process("prune", *NOW)
    left = [item["left"] for item in done["items"] if item["kind"] == "folder"]
    assert left == ["a version has it now"]
    assert mirroring("verify", "act-2:1", "--json").json["outcome"] == "verified"


@pytest.mark.parametrize("step", ["_claims", "_versions_of", "_delete"])
def test_a_model_that_begins_while_the_folder_is_removed(
    here: Azure,
    in_this_process: InThisProcess,
    mirroring: Mirroring,
    monkeypatch: pytest.MonkeyPatch,
    run: Path,
    step: str,
) -> None:
    started: list[Forked] = []

    def begin() -> None:
        here.forget_requests()
        started.append(mirroring.start("--source", run, "--model-name", "act-2"))
        end = time.monotonic() + 600
        # It has its claim, and checks the mark.
        while not [one for one in here.requests(".prune") if one["method"] == "HEAD"]:
            assert started[0].poll() is None and time.monotonic() < end, started[0].communicate()
            time.sleep(0.05)

    at(monkeypatch, step, begin)
    done = in_this_process("prune", *NOW)
    _, err = started[0].communicate(timeout=600)
    assert started[0].returncode == 0, err
    (folder,) = [item for item in done["items"] if item["kind"] == "folder"]
    assert "'aml-mirror prune' removes what is left of this run" in err
    assert folder["left"] == ("a mirror is working on it" if step == "_claims" else None)
    assert mirroring("verify", "act-2:1", "--json").json["outcome"] == "verified"
    # Neither leaves anything that a later prune or mirror would wait for.
    assert not [name for name in here.blobs("aml-mirror/claims/") if name.endswith(".prune")]
    assert mirroring.mirror(run, "act").json["outcome"] == "mirrored"


def test_a_delete_that_arrives_after_the_mark_ran_out(here: Azure, mirroring: Mirroring, run: Path) -> None:
    """The delete is bound to a lease on the blob, which has ended: the model that now uses the folder keeps
    it.
    """
    (name,) = [name for name in here.blobs("aml-mirror/run-cut/") if name.endswith("/model/config.json")]
    here.fault("stall", match=r"DELETE .*/model/config\.json", seconds=600)
    prune = mirroring.start("prune", *NOW)
    while not here.faults()[0]["acted"]:
        assert prune.poll() is None, prune.communicate()
        time.sleep(0.05)
    # As after half a minute without renewals: the blob's lease is shorter than the mark's.
    service = here.blob_service()
    for one in (name, *here.blobs("aml-mirror/claims/")):
        blob = service.get_blob_client(here.container, one)
        if blob.get_blob_properties().lease.state == "leased":
            BlobLeaseClient(blob).break_lease(0)
    mirroring.mirror(run, "act-2")
    here.clear_faults()
    out, err = prune.communicate(timeout=600)
    assert prune.returncode == 0, err
    (folder,) = [item for item in json.loads(out.splitlines()[-1])["items"] if item["kind"] == "folder"]
    assert folder["left"] == "a mirror is working on it"
    assert name in here.blobs("aml-mirror/run-cut/")
    assert mirroring("verify", "act-2:1", "--json").json["outcome"] == "verified"


@pytest.mark.parametrize("is_listed", [False, True])
def test_a_version_that_no_list_shows_yet(
    here: Azure, mirroring: Mirroring, run: Path, is_listed: bool
) -> None:
    """The claims remember its run, which names it."""
    mirroring.mirror(run, "act-2")
    if is_listed:
        here.settle()
    done = mirroring("prune", *NOW).json
    left = [item["left"] for item in done["items"] if item["kind"] == "folder"]
    assert left == ([] if is_listed else ["a version has it now"])
    assert mirroring("verify", "act-2:1", "--json").json["outcome"] == "verified"


def test_a_delete_is_sent_only_while_the_mark_outlasts_it() -> None:
    lease = BlobLease(None, lambda call: call(), lambda text: None)  # type: ignore[arg-type]
    renewed: list[float] = []

    def renew() -> None:
        renewed.append(time.monotonic())
        lease._renewed = renewed[-1]

    lease._renew = renew  # type: ignore[method-assign]
    lease._renewed = time.monotonic() - LEASE_SECONDS + 10
    assert lease.outlasts(5) and not renewed
    assert lease.outlasts(16) and len(renewed) == 1
    lease._renew = lambda: setattr(lease, "_taken", True)  # type: ignore[method-assign]
    assert not lease.outlasts(LEASE_SECONDS + 1)


def test_the_mark_of_a_prune_that_was_killed_is_removed_by_the_next(
    here: Azure,
    mirroring: Mirroring,
    run: Path,
) -> None:
    mark = f"aml-mirror/claims/{'a' * 64}.prune"
    here.seed({mark: b""})
    done = mirroring("prune", *NOW).json
    assert mark in [item["name"] for item in done["items"]]
    assert mark not in here.blobs("aml-mirror/claims/")
