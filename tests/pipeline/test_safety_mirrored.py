"""What a version says about its safety, with a real MLflow server: verdicts, reasons, and their age."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts, list_artifacts

from builders.program import Call, Done
from builders.runs import huggingface_run, write_events


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return huggingface_run(tmp_path / "run-7")


@pytest.fixture
def mirror(aml_mirror: Call, mlflow_url: str, model_name: str) -> Call:
    def call(source: Path, *arguments: str, code: int | None = 0) -> Done:
        given = ("--source", source, "--model-name", model_name, "--tracking-uri", mlflow_url, "--json")
        return aml_mirror(*given, *arguments, code=code)

    return call


def checkpoint_of(run: Path) -> Path:
    return max(run.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))


def version_of(client: MlflowClient, model: str):
    (version,) = client.search_model_versions(f"name = '{model}'")
    return version


def test_code_is_refused_unless_the_file_is_accepted_with_a_reason(
    run: Path, mirror: Call, client: MlflowClient, model_name: str
) -> None:
    (checkpoint_of(run) / "modeling_walker.py").write_text("class Walker: ...\n")
    refused = mirror(run, "--refuse-pickle", code=65).json
    assert "modeling_walker.py: it is a file of Python" in refused["error"]
    assert "is code" in refused["error"]
    assert not client.search_model_versions(f"name = '{model_name}'")

    done = mirror(run, "--refuse-pickle", "--allow", "*.py=reviewed by Ada").json
    assert done["safety"] == "code"
    (accepted,) = done["allowed"]
    assert accepted["path"].endswith("modeling_walker.py")
    assert (accepted["safety"], accepted["reason"]) == ("code", "reviewed by Ada")
    assert version_of(client, model_name).tags["safety"] == "code"
    assert version_of(client, model_name).tags["safety.scanner"]


def test_a_runs_own_mlmodel_is_not_what_the_registrys_loader_reads(
    run: Path, mirror: Call, client: MlflowClient, model_name: str, mlflow_url: str, tmp_path: Path
) -> None:
    (checkpoint_of(run) / "MLmodel").write_text(
        "flavors:\n  python_function:\n    loader_module: evil_loader\n    code: code\n"
    )
    done = mirror(run).json
    assert done["safety"] == "code"
    mlflow.set_tracking_uri(mlflow_url)
    (there := tmp_path / "there").mkdir()
    uri = f"models:/{model_name}/1"
    local = Path(download_artifacts(uri, dst_path=str(there), tracking_uri=mlflow_url))
    assert not [path for path in local.rglob("*") if path.name.lower() == "mlmodel"]
    assert list(local.rglob("MLmodel_"))
    with pytest.raises(mlflow.MlflowException, match="MLmodel"):
        mlflow.pyfunc.load_model(uri)


def test_what_an_older_scanner_said_is_judged_again_and_noted_beside_it(
    run: Path, mirror: Call, client: MlflowClient, model_name: str
) -> None:
    mirror(run)
    # As release 0.1 wrote it: another word, and no scanner version.
    client.set_model_version_tag(model_name, "1", "safety", "no-pickle")
    client.delete_model_version_tag(model_name, "1", "safety.scanner")
    assert mirror(run).json["safety"] == "no-code"
    assert "mirror.safety" not in version_of(client, model_name).tags

    again = mirror(run, "--refuse-pickle").json
    assert (again["outcome"], again["safety"]) == ("already-mirrored", "safetensors")
    tags = version_of(client, model_name).tags
    assert (tags["safety"], tags["mirror.safety"]) == ("no-pickle", "safetensors")

    # An older scanner found nothing in a file that this one refuses.
    client.set_model_version_tag(model_name, "1", "mirror.safety_scanner", "0")
    (checkpoint_of(run) / "modeling.py").write_text("x = 1\n")
    assert mirror(run, "--refuse-pickle", code=65).json["outcome"] == "failed"


def test_event_files_are_left_out_and_their_points_are_not(
    run: Path, mirror: Call, client: MlflowClient, model_name: str, mlflow_url: str
) -> None:
    write_events(run / "runs" / "one", [("train/loss", 1, 0.5), ("train/loss", 2, 0.25)])
    done = mirror(run, "--no-event-files").json
    assert done["points"] > 0
    names = [item.path for item in list_artifacts(run_id=done["mlflow_run_id"], tracking_uri=mlflow_url)]
    assert "tensorboard" not in names
    assert "manifest.json" in names
