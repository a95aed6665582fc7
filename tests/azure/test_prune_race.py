"""A model that begins to use a folder while prune removes it: it waits, or prune leaves the folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from aml_mirror.registries.azureml.leftovers import AzureMLLeftovers
from azure_emulator.client import Azure
from builders.forks import Forked
from builders.runs import huggingface_run
from mirroring import Mirroring
from this_process import InThisProcess

NOW = ("--older-than", "0s", "--delete", "--json")


@pytest.fixture
def run(here: Azure, mirroring: Mirroring, tmp_path: Path) -> Path:
    """A run whose files are in the datastore, and no version of the model act: a mirror was cut off."""
    run = huggingface_run(tmp_path / "run-cut", steps=(40,), points=3)
    here.fault("status", match=r"PUT .*/models/[^/]+/versions/", status=403, times=0)
    mirroring.mirror(run, "act", "--retry-for", "1s", code=None)
    here.clear_faults()
    assert here.blobs("aml-mirror/run-cut/")
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
        # It has its claim, and looks at the mark.
        while not [one for one in here.requests(".prune") if one["method"] == "HEAD"]:
            assert started[0].poll() is None and time.monotonic() < end, started[0].communicate()
            time.sleep(0.05)

    at(monkeypatch, step, begin)
    done = in_this_process("prune", *NOW)
    _, err = started[0].communicate(timeout=600)
    assert started[0].returncode == 0, err
    (folder,) = [item for item in done["items"] if item["kind"] == "folder"]
    assert "'aml-mirror prune' removes what is left of this run" in err
    assert folder["left"] == ("a mirror is at work on it" if step == "_claims" else None)
    assert mirroring("verify", "act-2:1", "--json").json["outcome"] == "verified"
    # Nothing of either is left that a later prune or mirror would wait for.
    assert not [name for name in here.blobs("aml-mirror/claims/") if name.endswith(".prune")]
    assert mirroring.mirror(run, "act").json["outcome"] == "mirrored"


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
