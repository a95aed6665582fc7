"""A local MLflow database: several mirrors create it only once, and a run that somebody deleted is
restored.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from mlflow import MlflowClient

from builders.forks import MLFLOW, forks
from builders.mlflow_servers import NEWEST
from builders.program import Call, clean_environment
from builders.runs import huggingface_run


def test_a_new_database_with_several_mirrors_at_once(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    started = []
    for number in range(3):
        run = huggingface_run(tmp_path / f"run-{number}", points=1)
        words = ["mirror", str(run), "--model-name", "m", "--tracking-uri", uri]
        started.append(forks(MLFLOW, clean_environment).start(words, tmp_path, clean_environment()))
    done = [process.communicate(timeout=600) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], done
    assert len(MlflowClient(uri, uri).search_model_versions("name = 'm'")) == 3
    assert [item.name for item in (tmp_path / "new").iterdir() if "making" in item.name] == []


def test_a_deleted_run_is_restored(database: str, aml_mirror: Call, tmp_path: Path) -> None:
    run = huggingface_run(tmp_path / "run-d", points=2)
    target = ("--model-name", "m", "--tracking-uri", database, "--json")
    run_id = aml_mirror("mirror", run, *target).json["mlflow_run_id"]
    client = MlflowClient(database, database)
    client.delete_run(run_id)
    refused = aml_mirror("verify", "m:1", "--tracking-uri", database, code=65)
    assert "is deleted" in refused.err
    again = aml_mirror("mirror", run, *target).json
    assert (again["model_version"], again["mlflow_run_id"]) == ("1", run_id)
    assert client.get_run(run_id).info.lifecycle_stage == "active"
    aml_mirror("verify", "m:1", "--tracking-uri", database)


def test_a_run_that_is_gone_is_mirrored_again(database: str, aml_mirror: Call, tmp_path: Path) -> None:
    run = huggingface_run(tmp_path / "run-g", points=2)
    target = ("--model-name", "m", "--tracking-uri", database, "--json")
    run_id = aml_mirror("mirror", run, *target).json["mlflow_run_id"]
    client = MlflowClient(database, database)
    client.delete_run(run_id)
    collect = [str(NEWEST), "gc", "--backend-store-uri", database, "--run-ids", run_id]
    environment = clean_environment(MLFLOW_TRACKING_URI=database)
    subprocess.run(collect, env=environment, check=True, capture_output=True, cwd=tmp_path)
    refused = aml_mirror("verify", "m:1", "--tracking-uri", database, code=65)
    assert "is gone" in refused.err
    again = aml_mirror("mirror", run, *target).json
    assert (again["outcome"], again["model_version"]) == ("mirrored", "2")
    aml_mirror("verify", "m:2", "--tracking-uri", database)
    aml_mirror("verify", "m:1", "--tracking-uri", database, code=65)
    assert aml_mirror("mirror", run, *target).json["outcome"] == "already-mirrored"
