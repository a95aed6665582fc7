"""A run of every layout is planned and mirrored into a real MLflow server. Bytes and points are compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from aml_mirror.layouts import layout_names
from builders.program import Call

RUNS = sorted(path for path in (Path(__file__).parents[1] / "data" / "runs").iterdir() if path.is_dir())


@pytest.mark.parametrize("run", RUNS, ids=lambda path: path.name)
def test_planned_and_mirrored(
    run: Path, aml_mirror: Call, mlflow_url: str, client: MlflowClient, model_name: str, tmp_path: Path
) -> None:
    plan = aml_mirror("plan", "--source", run, "--json").json
    receipt = aml_mirror("--source", run, "--model-name", model_name, "--tracking-uri", mlflow_url).json

    # The mirror did what the plan said.
    assert receipt["outcome"] == "mirrored"
    for key in ("framework", "run_id", "source", "manifest_sha256"):
        assert receipt[key] == plan[key], key
    assert (receipt["checkpoint"], receipt["step"]) == (
        plan["checkpoint"]["path"],
        plan["checkpoint"]["step"],
    )
    assert receipt["files"] == len(plan["files"])
    assert receipt["bytes"] == sum(item["bytes"] for item in plan["files"])
    assert (receipt["series"], receipt["points"]) == (plan["metrics"]["series"], plan["metrics"]["points"])

    # The server has the bytes of the run, each file once.
    held = Path(client.download_artifacts(receipt["mlflow_run_id"], "model", str(tmp_path)))
    root = run / plan["run_root"]
    wanted = sorted((root / item["path"]).read_bytes() for item in plan["files"])
    assert sorted(path.read_bytes() for path in held.rglob("*") if path.is_file()) == wanted
    manifest = json.loads(
        Path(client.download_artifacts(receipt["mlflow_run_id"], "manifest.json", str(tmp_path))).read_text()
    )
    assert {entry["path"] for entry in manifest["files"]} == {
        path.relative_to(held).as_posix() for path in held.rglob("*") if path.is_file()
    }

    # And every point, once.
    found = client.get_run(receipt["mlflow_run_id"])
    assert len(found.data.metrics) == plan["metrics"]["series"]
    points = sum(len(client.get_metric_history(found.info.run_id, name)) for name in found.data.metrics)
    assert points == plan["metrics"]["points"]
    assert set(plan["params"]) == set(found.data.params)


def test_every_layout_is_there(aml_mirror: Call) -> None:
    found = {aml_mirror("plan", "--source", run, "--json").json["framework"] for run in RUNS}
    assert found == set(layout_names()) - {"generic"}
