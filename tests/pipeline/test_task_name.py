"""The tags that consumers of a version read: framework, task, step and role; and the success threshold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from aml_mirror.pipeline.task_name import task_in
from aml_mirror.registries.mlflow.files_uri import files_uri
from builders.program import Call
from builders.runs import huggingface_run, write_weights

DATA = Path(__file__).parent.parent / "data" / "runs"


@pytest.mark.parametrize(
    ("params", "task"),
    [
        ({"run": {"library": "rsl_rl", "task": "Isaac-Reach-Franka-v0"}}, "Isaac-Reach-Franka-v0"),
        ({"agent": {"task_name": "Ant"}}, "Ant"),
        (
            {"env": {"type": "aloha", "task": "AlohaInsertion-v0"}, "dataset": {"repo_id": "a/b"}},
            "AlohaInsertion-v0",
        ),
        ({"env": None, "dataset": {"repo_id": "lab/pick-cube"}}, "lab/pick-cube"),
        ({"env": {"task": ""}, "dataset": {"repo_id": 3}}, ""),
        ({}, ""),
    ],
)
def test_the_task_of_a_configuration(params: dict[str, Any], task: str) -> None:
    assert task_in(params) == task


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("wasbs://runs@lab.blob.core.windows.net/1/abc/artifacts", "azure://lab/runs/1/abc/artifacts"),
        ("s3://key:secret@bucket/1/abc", "s3://bucket/1/abc"),
        ("mlflow-artifacts:/1/abc/artifacts", ""),
        ("/srv/mlruns/1", ""),
    ],
)
def test_the_address_of_the_files(uri: str, address: str) -> None:
    assert files_uri(uri) == address


def lerobot_run(root: Path) -> Path:
    """Two steps of LeRobot, whose configuration names a data set."""
    for step in ("000010", "000020"):
        folder = root / "checkpoints" / step
        write_weights(folder / "pretrained_model" / "model.safetensors", seed=int(step))
        (folder / "pretrained_model" / "config.json").write_text(json.dumps({"type": "act"}))
        config = {"dataset": {"repo_id": "lab/pick-cube"}, "policy": {"type": "act"}}
        (folder / "pretrained_model" / "train_config.json").write_text(json.dumps(config))
        (folder / "training_state").mkdir()
        (folder / "training_state" / "training_step.json").write_text(json.dumps({"step": int(step)}))
    return root


def test_consumers_find_their_tags(
    aml_mirror: Call, mlflow_url: str, client: MlflowClient, model_name: str, tmp_path: Path
) -> None:
    run = lerobot_run(tmp_path / "run-1")
    target = ("--model-name", model_name, "--tracking-uri", mlflow_url)
    done = aml_mirror("mirror", run, *target, "--success-threshold", "0.80").json
    assert "files_uri" in done
    tags = client.get_model_version(model_name, "1").tags
    found = {name: tags[name] for name in ("framework", "task", "step", "role", "success_threshold")}
    assert found == {
        "framework": "lerobot", "task": "lab/pick-cube", "step": "20", "role": "final",
        "success_threshold": "0.8",
    }  # fmt: skip
    run_id = tags["mlflow_run_id"]
    # lerobot-train --config_path reads it.
    assert "model/train_config.json" in {item.path for item in client.list_artifacts(run_id, "model")}
    done = aml_mirror(
        "mirror", run, *target, "--checkpoint", "10", "--task-name", "pick", "--tag", "framework=act"
    )
    tags = client.get_model_version(model_name, "2").tags
    assert (tags["task"], tags["framework"], tags["role"]) == ("pick", "act", "periodic")
    assert "the run's configuration names the task lab/pick-cube" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--success-threshold", "80"), "not a fraction of all episodes"),
        (("--success-threshold", "nan"), "not a fraction of all episodes"),
        (("--tag", "role=best"), "the mirror itself writes"),
        (("--tag", "success_threshold=0.5"), "pass --success-threshold"),
        (("--tag", "task=a", "--task-name", "b"), "differ"),
    ],
)
def test_what_is_refused(aml_mirror: Call, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    run = huggingface_run(tmp_path / "run-1", steps=(10,), points=1)
    done = aml_mirror(
        "mirror", run, "--model-name", "m", "--tracking-uri", "http://127.0.0.1:9", *arguments, code=64
    )
    assert message in done.err
