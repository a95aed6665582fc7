"""A backfill from blob storage into an emulated Azure ML workspace, with the real clients."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from azure_emulator.client import READER, Azure
from builders.saved import safetensors, write_json
from mirroring import ASIDE, Mirroring, complete_versions, runs_of
from this_process import here  # noqa: F401

RUNS = ("one", "sweep/seed0", "sweep/seed1", "two")


def small_run(root: Path, seed: int) -> Path:
    safetensors(root / "checkpoint-1" / "model.safetensors", seed=seed)
    write_json(root / "checkpoint-1" / "trainer_state.json", {"global_step": 1, "log_history": []})
    return root


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for seed, path in enumerate(RUNS):
        small_run(tmp_path / "base" / path, seed)
    write_json(tmp_path / "base" / "notes" / "a.json", {})
    return tmp_path / "base"


@pytest.fixture
def prefix(azure: Azure, base: Path) -> str:
    """The runs on an account with a hierarchical namespace, which also lists folders."""
    account = azure.new_account(containers=["outputs"], role=READER, hns=True)
    return azure.seed(base, "team/runs", account=account, container="outputs")


class Filling:
    """Calls of a backfill into one model."""

    def __init__(self, azure: Azure, folder: Path) -> None:
        self.mirroring = Mirroring(azure, folder)

    def __call__(
        self, source: str | Path, *more: str, code: int = 0, model: str = "reach"
    ) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
        """The line of each run, and the line of the summary."""
        done = self.mirroring("backfill", "--source", source, "--model-name", model, *more, code=code)
        *lines, last = map(json.loads, done.out.splitlines())
        found = {line["run_id"]: line for line in lines}
        assert len(found) == len(lines)
        return found, last


@pytest.fixture
def fill(azure: Azure, tmp_path: Path) -> Filling:
    (tmp_path / "cwd").mkdir()
    return Filling(azure, tmp_path / "cwd")


def outcomes(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {run_id: line["outcome"] for run_id, line in found.items()}


def asked(azure: Azure) -> list[str]:
    """METHOD host/path?query of each request, without tokens and metadata of the cloud."""
    found = (f"{one['method']} {one['host']}{one['path']}" for one in azure.requests())
    return [line for line in found if not re.search(ASIDE, line)]


def test_again_asks_for_pages_not_for_runs(azure: Azure, prefix: str, fill: Filling) -> None:
    first, last = fill(prefix)
    assert outcomes(first) == dict.fromkeys(RUNS, "mirrored")
    assert last["folders_without_a_run"] == 1
    found = complete_versions(azure, "reach")
    assert sorted(item["properties"]["osmo.run_id"] for item in found.values()) == sorted(RUNS)
    assert len(runs_of(azure, "reach")) == len(RUNS)
    # The checkpoints were copied between the stores, each from an address in its own folder.
    assert last["bytes_copied"] == last["bytes"] > 0
    assert first["sweep/seed1"]["source"] == f"{prefix}/sweep/seed1"

    azure.forget_requests()
    azure.set_workspace(page_size=3)
    again, _ = fill(prefix)
    assert outcomes(again) == dict.fromkeys(RUNS, "already-mirrored")
    keys = ("model_version", "mlflow_run_id", "manifest_sha256", "integrity", "step", "files", "bytes")
    for name in RUNS:
        assert [again[name][key] for key in keys] == [first[name][key] for key in keys]
    lines = asked(azure)
    # The workspace, the experiment, one page of runs, two of versions; no datastore.
    ours = [line for line in lines if ".blob." not in line]
    assert len(ours) == 5, ours
    assert not [line for line in lines if azure.account in line]
    # Storage: everything is listed once.
    listings = [line for line in lines if "comp=list" in line]
    assert len(listings) == 1, listings


def test_what_single_mirrors_did_is_recognised(azure: Azure, prefix: str, fill: Filling) -> None:
    fill.mirroring.mirror(f"{prefix}/two", "reach")
    fill.mirroring.mirror(f"{prefix}/sweep/seed0", "reach")
    found, _ = fill(prefix, "--limit", "1")
    assert outcomes(found) == {
        "one": "mirrored", "seed0": "already-mirrored", "sweep/seed1": "skipped", "two": "already-mirrored",
    }  # fmt: skip
    status = fill.mirroring("status", "--source", prefix, "--model-name", "reach", "--json", code=65)
    lines = {line["run_id"]: line for line in map(json.loads, status.out.splitlines())}
    assert {run_id: bool(line["versions"]) for run_id, line in lines.items()} == {
        "one": True, "sweep/seed0": True, "sweep/seed1": False, "two": True,
    }  # fmt: skip


def test_a_version_whose_run_is_gone_is_recognised(azure: Azure, prefix: str, fill: Filling) -> None:
    first = fill(prefix, "--match", "one")[0]["one"]
    azure.mlflow.delete_run(first["mlflow_run_id"])
    azure.seed_versions("reach", 40, properties={"osmo.run_id": "other-{n}"})
    for _ in range(2):
        again = fill(prefix, "--match", "one")[0]["one"]
        assert (again["outcome"], again["model_version"]) == ("already-mirrored", first["model_version"])


def test_a_name_that_azure_refuses_is_that_runs_failure(azure: Azure, base: Path, fill: Filling) -> None:
    small_run(base / "über", 9)
    found, last = fill(base, model="reach-{run_id}", code=65)
    assert outcomes(found) == {**dict.fromkeys(RUNS, "mirrored"), "über": "failed"}
    assert found["über"]["exit_code"] == 64
    assert "über" in last["failures"][0]["run_id"]
    assert sorted(azure.models()) == [f"reach-{name.replace('/', '-')}" for name in RUNS]


def test_no_role_ends_the_work_at_the_first_run(azure: Azure, base: Path, fill: Filling) -> None:
    azure.set_role(None)
    found, last = fill(base, "--retry-for", "0s", code=77)
    assert outcomes(found) == {"one": "failed"}
    assert last["outcome"] == "stopped"
    assert found["one"]["hint"]


@pytest.mark.parametrize(("below", "code"), [("/nowhere", 66), ("/notes", 65), ("/one", 64)])
def test_a_prefix_without_runs(prefix: str, fill: Filling, below: str, code: int) -> None:
    found, last = fill(prefix + below, code=code)
    assert not found
    assert last["outcome"] == "stopped"
    assert last["error"]


def test_a_prefix_that_may_not_be_read(azure: Azure, prefix: str, fill: Filling) -> None:
    azure.set_role(None, account=prefix.split("/")[2])
    found, last = fill(prefix, code=77)
    assert not found
    assert "Storage Blob Data Reader" in last["hint"]


def test_a_listing_is_read_page_by_page(
    here: Azure,  # noqa: F811
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pages end in the middle of a folder, and one page fails once."""
    from aml_mirror.sources.azure_blob import BlobSource

    source = BlobSource(prefix, retry_seconds=5)
    real = source.container.list_blobs
    monkeypatch.setattr(source.container, "list_blobs", lambda **given: real(**given, results_per_page=2))
    here.fault("status", match="comp=list.*marker", status=503, nth=2)
    found = {name: sorted(getattr(listing, "files", {})) for name, listing in source.listings(100)}
    assert [one["status"] for one in here.requests("marker") if one["status"] == 503] == [503]
    state, weights = "checkpoint-1/trainer_state.json", "checkpoint-1/model.safetensors"
    assert found == {
        "notes": ["a.json"],
        "one": [weights, state],
        "sweep": [f"{seed}/{path}" for seed in ("seed0", "seed1") for path in (weights, state)],
        "two": [weights, state],
    }
    small = {name: type(listing).__name__ for name, listing in source.listings(2)}
    assert small == {"notes": "Listing", "one": "Listing", "sweep": "TooManyFiles", "two": "Listing"}
