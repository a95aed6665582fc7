"""layouts/adapters.py: the base model of an adapter, for every framework."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from aml_mirror.layouts import find_run
from aml_mirror.layouts.adapters import base_model_of
from aml_mirror.sources.tree import Tree
from builders.program import Call
from builders.saved import safetensors, write_bytes, write_json

MakeTree = Callable[[Path], Tree]
RUNS = Path(__file__).parents[1] / "data" / "runs"


def base_of(tree: Tree) -> str:
    found = find_run(tree)
    run = found.read(tree)
    return base_model_of(tree.below(found.root), run.checkpoints[0])


def test_an_adapter_names_its_base_model(tree: MakeTree, tmp_path: Path) -> None:
    run = shutil.copytree(RUNS / "huggingface_peft", tmp_path / "run")
    path = run / "checkpoint-40/adapter_config.json"
    write_json(path, {**json.loads(path.read_text()), "base_model_name_or_path": "org/model"})
    assert base_of(tree(run)) == "org/model"
    # The adapter in tests/data was made from a model without a name.
    assert base_of(tree(RUNS / "huggingface_peft")) == ""


def test_a_policy_of_lerobot_may_be_an_adapter(tree: MakeTree, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints/000100"
    safetensors(folder / "pretrained_model/adapter_model.safetensors")
    write_json(folder / "pretrained_model/adapter_config.json", {"base_model_name_or_path": "org/pi0"})
    write_json(folder / "pretrained_model/train_config.json", {})
    write_json(folder / "training_state/training_step.json", {"step": 100})
    assert base_of(tree(tmp_path)) == "org/pi0"


def test_a_whole_model_has_none(tree: MakeTree) -> None:
    for name in ("huggingface_best_reloaded", "groot_n16", "rsl_rl", "lerobot_act"):
        assert base_of(tree(RUNS / name)) == ""


@pytest.mark.parametrize("value", [None, 5, [], "", "x" * 1000, "a\nb"])
def test_what_is_no_name(tree: MakeTree, tmp_path: Path, value: object) -> None:
    safetensors(tmp_path / "checkpoint-1/adapter_model.safetensors")
    write_json(tmp_path / "checkpoint-1/adapter_config.json", {"base_model_name_or_path": value})
    base = base_of(tree(tmp_path))
    assert len(base) <= 250 and "\n" not in base
    write_bytes(tmp_path / "checkpoint-1/adapter_config.json", b"{")
    found = find_run(tree(tmp_path))
    assert base_model_of(tree(tmp_path), found.read(tree(tmp_path)).checkpoints[0]) == ""


def adapter_run(root: Path) -> Path:
    run = shutil.copytree(RUNS / "huggingface_peft", root / "run")
    for path in run.glob("**/adapter_config.json"):
        write_json(path, {**json.loads(path.read_text()), "base_model_name_or_path": "org/model"})
    return run


def test_the_plan_names_it(aml_mirror: Call, tmp_path: Path) -> None:
    run = adapter_run(tmp_path)
    assert aml_mirror("plan", "--source", run, "--json").json["base_model"] == "org/model"
    assert "base model  org/model" in aml_mirror("plan", "--source", run).out
    picked = aml_mirror("plan", "--source", run, "--json", "--checkpoint", "checkpoint-30").json
    assert picked["base_model"] == "org/model"
    whole = aml_mirror("plan", "--source", RUNS / "rsl_rl", "--json").json
    assert whole["base_model"] is None


def test_the_version_and_its_card_name_it(
    aml_mirror: Call, mlflow_url: str, client: MlflowClient, model_name: str, tmp_path: Path
) -> None:
    run = adapter_run(tmp_path)
    receipt = aml_mirror("--source", run, "--model-name", model_name, "--tracking-uri", mlflow_url).json
    version = client.get_model_version(model_name, receipt["model_version"])
    assert version.tags["base_model"] == "org/model"
    assert client.get_run(receipt["mlflow_run_id"]).data.tags["base_model"] == "org/model"
    assert "- Base model: org/model\n" in version.description
