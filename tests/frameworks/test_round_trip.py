"""From a training to a robot: a run is mirrored, pulled, and loaded with exactly the lines that ``pull``
prints.

``make test-frameworks`` makes the runs with the newest frameworks (FRAMEWORKS names the Python with them).
Without it, the test uses one policy that needs only NumPy.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from aml_mirror.pull import loaders
from builders.program import Call, clean_environment

PYTHON = os.environ.get("FRAMEWORKS", "")
POLICIES = Path(__file__).with_name("policies.py")
# The name of a case in policies.py -> the row of loaders.py whose lines it executes.
ROWS = {
    "stable_baselines3": "stable_baselines3", "rsl_rl": "rsl_rl", "skrl": "skrl", "rl_games": "rl_games",
    "huggingface": "huggingface", "adapter": "adapter", "brax": "brax", "lightning": "lightning",
    "onnx": "ONNX", "safetensors": "safetensors", "torch": "torch.save", "jit": "jit", "msgpack": "msgpack",
    "orbax": "orbax", "keras": "Keras",
}  # fmt: skip
# Rows whose library cannot be installed together with the others, and why.
NOT_EXECUTED = {
    "lerobot": "asks for an older PyTorch, torchvision and Python 3.12",
    "groot": "is not on PyPI",
    "openpi": "is not on PyPI",
    "robomimic": "0.3.0 on PyPI builds an OpenGL helper from source",
    "rllib": "starts a Ray cluster",
}


def pulled(aml_mirror: Call, run: Path, model: str, url: str, target: Path) -> dict[str, Any]:
    """Mirror a run, and return the output of a pull of its version."""
    aml_mirror("mirror", run, "--model-name", model, "--tracking-uri", url)
    done = aml_mirror("pull", f"{model}:1", target, "--tracking-uri", url, "--json").json
    assert done["verified"] is True
    return dict(done)


def pulled_from_others(
    aml_mirror: Call, client: MlflowClient, files: Path, model: str, target: Path
) -> dict[str, Any]:
    """Register files with MLflow's own client, and return the output of a pull of them."""
    made = client.create_run(client.create_experiment(model)).info.run_id
    client.log_artifacts(made, str(files), "policy")
    client.create_registered_model(model)
    client.create_model_version(model, f"runs:/{made}/policy", made)
    done = aml_mirror("pull", f"{model}:1", target, "--tracking-uri", str(client.tracking_uri), "--json").json
    assert done["verified"] is False
    return dict(done)


def test_a_policy_of_numpy_computes_what_it_did(
    aml_mirror: Call, mlflow_url: str, model_name: str, tmp_path: Path
) -> None:
    weights = np.random.default_rng(1).normal(size=(4, 2))
    run = tmp_path / "reach-1"
    run.mkdir()
    np.savez(run / "policy_final.npz", w=weights, b=np.arange(2.0))
    done = pulled(aml_mirror, run, model_name, mlflow_url, tmp_path / "policy")
    names: dict[str, Any] = {}
    exec("\n".join(done["load_with"]), names)
    seen = np.random.default_rng(7).normal(size=(3, 4))
    state = names["state"]
    assert np.array_equal(seen @ state["w"] + state["b"], seen @ weights + np.arange(2.0))


def test_every_row_of_the_loaders_is_executed_or_named() -> None:
    rows = {*loaders._BY_FRAMEWORK, *loaders._BY_FORMAT, "adapter", "orbax", "jit", "torch.save"}
    executed = {*ROWS.values(), "numpy archive"}
    assert rows == executed | NOT_EXECUTED.keys()
    assert not executed & NOT_EXECUTED.keys()


@pytest.mark.timeout(1800)
@pytest.mark.skipif(not PYTHON, reason="make test-frameworks runs it")
def test_each_framework_computes_what_it_did(
    aml_mirror: Call, client: MlflowClient, mlflow_url: str, model_name: str, tmp_path: Path
) -> None:
    """One process of the frameworks' Python makes all runs, another loads everything that was pulled."""
    made = tmp_path / "runs"
    made.mkdir()
    policies(tmp_path, "make", made, *ROWS)
    before = json.loads((made / "outputs.json").read_text())
    broken = {name: text for name, text in before.items() if isinstance(text, str)}
    assert not broken, "\n".join(broken.values())
    lines = {}
    for name in ROWS:
        target = tmp_path / "pulled" / name
        model = f"{model_name}-{name}"
        if name == "jit":
            # No layout treats TorchScript alone as a run's checkpoint.
            done = pulled_from_others(aml_mirror, client, made / name, model, target)
        else:
            done = pulled(aml_mirror, made / name, model, mlflow_url, target)
        lines[name] = done["load_with"]
    given = tmp_path / "pulled.json"
    given.write_text(json.dumps(lines))
    policies(tmp_path, "load", given)
    after = json.loads(given.with_suffix(".outputs.json").read_text())
    assert after.keys() == before.keys() == ROWS.keys()
    wrong = {
        name: answer if isinstance(answer, str) else f"{answer} instead of {before[name]}"
        for name, answer in after.items()
        if isinstance(answer, str) or not np.allclose(answer, before[name], rtol=1e-6, atol=1e-7)
    }
    assert not wrong, "\n".join(f"{name}: {lines[name]}: {text}" for name, text in wrong.items())


def policies(folder: Path, *arguments: str | Path) -> None:
    """Run policies.py with the frameworks' Python."""
    command = [PYTHON, str(POLICIES), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=clean_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
