"""Leftovers of interrupted mirrors are listed and removed. What a version needs, or a running mirror writes,
stays.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError

from azure_emulator.client import Azure
from builders import matrix
from builders.runs import huggingface_run
from mirroring import Mirroring, files_of, runs_of

NOW = ("--older-than", "0s")


def failed_run(mirroring: Mirroring, tmp_path: Path, name: str, model: str = "act") -> Path:
    """Mirror a run with an interruption that leaves bytes, a claim and a FAILED run, but no version."""
    run = huggingface_run(tmp_path / name, steps=(40,), points=3)
    mirroring.azure.fault("status", match=r"PUT .*/models/[^/]+/versions/", status=403, times=0)
    mirroring.mirror(run, model, "--retry-for", "1s", code=None)
    mirroring.azure.clear_faults()
    return run


def everything(azure: Azure) -> dict[str, int]:
    found: dict[str, int] = azure.blobs("aml-mirror/")
    return found


def test_only_what_no_version_needs_is_removed(azure: Azure, mirroring: Mirroring, tmp_path: Path) -> None:
    for step in (20, 30):
        mirroring.mirror(huggingface_run(tmp_path / f"run-{step}", steps=(step,), points=3), "act")
    # An archived version needs its files, too.
    service = mirroring.azure
    needed = {name: files_of(azure, version) for name, version in azure.models()["act"].items()}
    before = everything(azure)
    empty = mirroring("prune", *NOW, "--json").json
    assert (empty["outcome"], [item for item in empty["items"] if item["kind"] != "claim"]) == ("listed", [])
    failed_run(mirroring, tmp_path, "run-cut")
    cut = [name for name in everything(service) if "/run-cut/" in name]
    assert cut
    left = runs_of(azure, "act")
    listed = mirroring("prune", *NOW, "--json").json
    kinds = {item["kind"] for item in listed["items"]}
    assert {"folder", "claim", "run"} <= kinds and listed["bytes"] >= sum(
        azure.blobs("aml-mirror/run-cut/").values()
    )
    # A dry run removes nothing, nor does a prune of older leftovers only.
    assert everything(azure).keys() >= set(cut) and len(runs_of(azure, "act")) == len(left)
    assert mirroring("prune", "--delete", "--json").json["count"] == 0
    shown = mirroring("prune", *NOW).out
    assert "could be removed" in shown and "pass --delete" in shown
    done = mirroring("prune", *NOW, "--delete", "--json").json
    assert done["outcome"] == "removed"
    assert [item for item in done["items"] if item["left"]] == []
    after = everything(azure)
    assert not [name for name in after if "/run-cut/" in name]
    assert {name: files_of(azure, version) for name, version in azure.models()["act"].items()} == needed
    assert after.keys() >= {name for name in before if "/claims/" not in name and "/numbers/" not in name}
    for number in azure.models()["act"]:
        assert mirroring("verify", f"act:{number}", "--json").json["outcome"] == "verified"
    assert mirroring("prune", *NOW, "--json").json["count"] == 0
    # The run can be mirrored again from the start.
    run = tmp_path / "run-cut"
    assert mirroring.mirror(run, "act").json["outcome"] == "mirrored"


def test_an_attempt_in_progress_and_an_archived_version_stay(
    azure: Azure, mirroring: Mirroring, tmp_path: Path, ml: Any
) -> None:
    mirroring.mirror(huggingface_run(tmp_path / "run-1", points=3), "act")
    ml.models.archive("act", "1")
    run = failed_run(mirroring, tmp_path, "run-2")
    # The next attempt is running: it holds the claim while it waits for an answer.
    azure.forget_requests()
    azure.fault("stall", match=r"PUT .*/models/act/versions/2", seconds=60)
    working = mirroring.start("mirror", run, "--model-name", "act")
    while not azure.requests("/models/act/versions/2"):
        assert working.poll() is None
    done = mirroring("prune", *NOW, "--delete", "--json").json
    assert not [item for item in done["items"] if item["kind"] in ("folder", "run")]
    azure.clear_faults()
    _, err = working.communicate(timeout=600)
    assert working.returncode == 0, err
    for number in ("1", "2"):
        assert mirroring("verify", f"act:{number}", "--json").json["outcome"] == "verified"


class Leftovers:
    """The leftovers of an interrupted mirror, which can be restored: its blobs, and its run."""

    def __init__(self, azure: Azure, run_id: str) -> None:
        self._azure = azure
        (self._run,) = [one for one in runs_of(azure, "act") if one.data.tags["osmo.run_id"] == run_id]
        names = [*azure.blobs(f"aml-mirror/{run_id}/"), *azure.blobs("aml-mirror/claims/")]
        self._blobs = {name: (azure.read(name), azure.metadata(name)) for name in names}

    def put(self) -> None:
        service = self._azure.blob_service()
        for name, (data, kept) in self._blobs.items():
            blob = service.get_blob_client(self._azure.container, name)
            # The claim of a killed prune exists.
            with suppress(HttpResponseError):
                blob.upload_blob(data, metadata=kept, overwrite=True)
        client, info = self._azure.mlflow, self._run.info
        made = client.create_run(info.experiment_id, tags=self._run.data.tags)
        client.set_terminated(made.info.run_id, info.status)


@pytest.mark.parametrize("part", matrix.PARTS)
def test_killed_at_any_request(
    azure: Azure, mirroring: Mirroring, tmp_path: Path, request: pytest.FixtureRequest, part: int
) -> None:
    mirroring.mirror(huggingface_run(tmp_path / "run-1", points=3), "act")
    needed = files_of(azure, azure.models()["act"]["1"])
    run = failed_run(mirroring, tmp_path, "run-cut")
    leftovers = Leftovers(azure, "run-cut")
    azure.forget_requests()
    mirroring("prune", *NOW, "--delete")
    total = len(azure.requests())
    for at in matrix.sample(total, 4, part):
        leftovers.put()
        azure.forget_requests()
        azure.fault("kill", nth=at.number, when=at.moment)
        first = mirroring("prune", *NOW, "--delete", code=None)
        azure.clear_faults()
        struck = [one for one in azure.requests() if "closed" in one["faults"]]
        assert first.code == (-signal.SIGKILL if struck else 0), first.err
        assert files_of(azure, azure.models()["act"]["1"]) == needed
        assert mirroring("prune", *NOW, "--delete", "--json").code == 0
        assert files_of(azure, azure.models()["act"]["1"]) == needed
        # The claim of a killed prune expires by itself. Everything else is gone.
        left = [name for name in everything(azure) if "/run-cut/" in name]
        held = list(azure.blobs("aml-mirror/claims/"))
        assert not left or held, left
        stage = struck[0]["method"] if struck else "none"
        matrix.note(request, "killed, prune", stage, at.moment, "left" if left else "pruned")
    assert mirroring("verify", "act:1", "--json").json["outcome"] == "verified"
    assert mirroring.mirror(run, "act").json["outcome"] == "mirrored"
