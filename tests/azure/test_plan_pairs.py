"""`plan` and `mirror` compute the same manifest and identity, for every pair of source and registry."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from azure_emulator.client import Azure
from builders.runs import huggingface_run
from mirroring import Mirroring, complete_versions


@pytest.mark.parametrize("options", [(), ("--hash",)])
@pytest.mark.parametrize("registry", ["azureml", "mlflow"])
@pytest.mark.parametrize("source", ["folder", "blobs"])
def test_plan_says_what_mirror_does(
    azure: Azure,
    mirroring: Mirroring,
    tmp_path: Path,
    empty_database: Path,
    source: str,
    registry: str,
    options: tuple[str, ...],
) -> None:
    run = huggingface_run(tmp_path / "run-b", points=3)
    place = azure.seed(run, "runs/run-b") if source == "blobs" else str(run)
    database = f"sqlite:///{tmp_path}/mlflow.db"
    target = ("--tracking-uri", database) if registry == "mlflow" else ()
    arguments = ("--source", place, "--model-name", "pair", *target, *options, "--json")
    plan = mirroring("plan", *arguments).json
    assert not azure.models() and not (tmp_path / "mlflow.db").exists()
    if registry == "mlflow":
        shutil.copy(empty_database, tmp_path / "mlflow.db")
    receipt = mirroring("mirror", *arguments).json
    assert receipt["outcome"] == "mirrored"
    if registry == "mlflow":
        tags = MlflowClient(database, database).get_model_version("pair", "1").tags
    else:
        (version,) = complete_versions(azure, "pair").values()
        tags = version["properties"]
    assert plan["manifest_sha256"] == receipt["manifest_sha256"] == tags["manifest_sha256"]
    assert plan["identity"] == tags["identity"]
    copied = (source, registry, options) == ("blobs", "azureml", ())
    assert receipt["integrity"] == plan["integrity"] == ("copied" if copied else "sha256")
    assert ("from ETags" in mirroring("plan", *arguments[:-1]).out) == copied
    again = mirroring("mirror", *arguments).json
    assert (again["outcome"], again["manifest_sha256"]) == ("already-mirrored", plan["manifest_sha256"])
