"""The built image with only a run's id, as the workflow passes it and as OSMO starts the image."""

from __future__ import annotations

from pathlib import Path

import yaml

import osmo_grammar
from azure_emulator.client import Azure
from builders.containers import Image, in_azure
from builders.runs import huggingface_run
from mirroring import assert_exactly_once
from osmo_world import STUB, OsmoWorld

WORKFLOW = Path(__file__).parents[2] / "workflows" / "replay-azureml.yaml"
POINTS = 30


def test_a_run_is_replayed_by_its_id_alone(azure: Azure, image: Image, tmp_path: Path) -> None:
    """OSMO's mounts are there: its program in /osmo/usr/bin and the login, both read-only."""
    run = huggingface_run(tmp_path / "run-7", points=POINTS)
    uri = azure.seed(run, "outputs/train-7", account=azure.new_account(), container="runs")
    osmo = OsmoWorld(tmp_path)
    osmo.add("train-7", {"train": [uri.removesuffix("train-7") + "{{workflow_id}}"]})
    osmo.open_to_all()

    given = ["run_id=train-7", "model_name=reach"]
    rendered = yaml.safe_load(osmo_grammar.render(WORKFLOW.read_text(), [], given))
    (task,) = rendered["workflow"]["tasks"]
    env, mounts = in_azure(azure.env())
    env |= {**task["environment"], "OSMO_CONFIG_FILE_DIR": "/osmo/login/config"}
    mounts += [f"{STUB}:/osmo/usr/bin/osmo:ro", f"{osmo.config}:/osmo/login/config:ro"]
    (command,) = task["command"]

    done = image.run(*task["args"], env=env, mounts=mounts, command=command)
    assert (done.json["outcome"], done.json["run_id"], done.json["source"]) == ("mirrored", "train-7", uri)
    run_id = assert_exactly_once(azure, "reach", run, POINTS)
    assert azure.mlflow.get_run(run_id).data.tags["osmo.replay"] == "true"

    # Nobody is logged in: the error says so, and what to do.
    (tmp_path / "nothing").mkdir()
    mounts[-1] = f"{tmp_path / 'nothing'}:/osmo/login/config:ro"
    failed = image.run(*task["args"], env=env, mounts=mounts, command=command, code=77)
    assert "not logged in" in failed.json["error"]
    assert "--source" in failed.json["hint"]
