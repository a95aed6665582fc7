"""The script of evaluate-and-promote.yaml, as OSMO renders it, run with the real program and server."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

import osmo_grammar as grammar
from builders.evaluations import lerobot
from builders.program import PROGRAM, Call, clean_environment
from builders.runs import huggingface_run

WORKFLOW = Path(__file__).parents[2] / "workflows" / "evaluate-and-promote.yaml"


def test_the_exit_code_is_that_of_the_gate(
    mlflow_url: str, client: MlflowClient, aml_mirror: Call, model_name: str, tmp_path: Path
) -> None:
    run = huggingface_run(tmp_path / f"run-{model_name}", points=1, steps=(20,))
    aml_mirror("mirror", run, "--model-name", model_name, "--tracking-uri", mlflow_url)
    given = (
        f"version={model_name}:1",
        f'evaluation_command=test -s "$1/model/model.safetensors" && cp \'{tmp_path}/it is.json\' "$2"',
        "task=pick it's cup",
    )
    (task,) = grammar.submitted(WORKFLOW.read_text(), (), given)["workflow"]["tasks"]
    (gate,) = task["files"]
    (tmp_path / "gate.yaml").write_text(gate["contents"])
    environment = clean_environment(
        MLFLOW_TRACKING_URI=mlflow_url,
        GATE=str(tmp_path / "gate.yaml"),
        PATH=f"{Path(PROGRAM).parent}{os.pathsep}{os.environ['PATH']}",
    )

    def evaluated(successes: int, episodes: int) -> subprocess.CompletedProcess[str]:
        (tmp_path / "it is.json").write_text(json.dumps(lerobot(successes, episodes)))
        command = [*task["command"], *task["args"]]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    done = evaluated(9, 10)
    assert done.returncode == 65, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: version 1 of ")
    with pytest.raises(MlflowException):
        client.get_model_version_by_alias(model_name, "staging")
    done = evaluated(95, 100)
    assert done.returncode == 0, done.stderr
    assert client.get_model_version_by_alias(model_name, "staging").version == "1"
    tags = client.get_model_version(model_name, "1").tags
    assert len([key for key in tags if key.startswith("mirror.evaluation.")]) == 2
