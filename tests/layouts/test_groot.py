"""GR00T runs: written by the real Trainer of transformers 5.23 with GR00T's folders and callbacks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from aml_mirror.layouts.base import Run
from aml_mirror.layouts.groot import Groot
from aml_mirror.sources.tree import Tree
from builders.saved import safetensors, write_bytes, write_json

MakeTree = Callable[[Path], Tree]
RUNS = Path(__file__).parents[1] / "data" / "runs"
EXPERIMENT = ("conf.json", "conf.yaml", "config.yaml")
PROCESSOR = ("embodiment_id.json", "processor_config.json", "statistics.json")


@pytest.fixture
def n16(tmp_path: Path) -> Path:
    return shutil.copytree(RUNS / "groot_n16", tmp_path / "run")


def read(tree: MakeTree, folder: Path) -> Run:
    assert Groot().find(tree(folder)) == [""]
    return Groot().read(tree(folder))


def n15(root: Path, copied: bool) -> Path:
    write_json(root / "experiment_cfg/metadata.json", {"new_embodiment": {}})
    for step in (500, 1000):
        safetensors(root / f"checkpoint-{step}/model.safetensors", step)
        write_json(root / f"checkpoint-{step}/config.json", {"architectures": ["GR00T_N1_5"]})
        write_json(root / f"checkpoint-{step}/trainer_state.json", {"global_step": step})
        if copied:
            shutil.copytree(root / "experiment_cfg", root / f"checkpoint-{step}/experiment_cfg")
    return root


def test_a_checkpoint_that_has_all(tree: MakeTree, n16: Path) -> None:
    run = read(tree, n16)
    final = run.checkpoints[0]
    assert (final.path, final.step, final.role) == ("checkpoint-40", 40, "final")
    assert set(final.files) == {
        "checkpoint-40/config.json",
        "checkpoint-40/generation_config.json",
        "checkpoint-40/model.safetensors",
        *(f"checkpoint-40/experiment_cfg/{name}" for name in EXPERIMENT),
        *(f"checkpoint-40/{name}" for name in PROCESSOR),
    }
    left = {path for path, _ in final.left_out}
    assert {"checkpoint-40/wandb_config.json", "checkpoint-40/trainer_state.json"} <= left
    assert run.params["experiment_cfg"]["data"] == {"seed": 42}


def test_the_best_one_gets_the_processor_that_it_lacks(tree: MakeTree, n16: Path) -> None:
    best = read(tree, n16).best
    assert best is not None
    assert best.path.startswith("checkpoint-40-best-eval_loss_")
    assert (best.step, best.role, best.problem) == (40, "best", "")
    assert {f"processor/{name}" for name in PROCESSOR} <= set(best.files)
    assert not any(path.startswith("experiment_cfg/") for path in best.files)


@pytest.mark.parametrize(("greater", "step"), [(True, 10), (False, 20), (None, 30)])
def test_of_several_best_ones(tree: MakeTree, n16: Path, greater: bool | None, step: int) -> None:
    for old in n16.glob("checkpoint-*-best-*"):
        shutil.rmtree(old)
    for number, value in ((10, "0.9"), (20, "1e-3"), (30, "0.5")):
        safetensors(n16 / f"checkpoint-{number}-best-eval_loss_{value}/model.safetensors")
    training = {} if greater is None else {"save_best_eval_metric_greater_is_better": greater}
    write_json(n16 / "experiment_cfg/conf.json", {"training": training})
    best = read(tree, n16).best
    assert best is not None
    assert best.step == step


def test_the_best_one_is_never_the_final_one(tree: MakeTree, n16: Path) -> None:
    safetensors(n16 / "checkpoint-45-best-eval_loss_0.1/model.safetensors")
    run = read(tree, n16)
    assert run.checkpoints[0].path == "checkpoint-40"
    assert run.best is not None
    assert run.best.step == 45


@pytest.mark.parametrize("copied", [True, False])
def test_n15(tree: MakeTree, tmp_path: Path, copied: bool) -> None:
    run = read(tree, n15(tmp_path, copied))
    assert [item.path for item in run.checkpoints] == ["checkpoint-1000", "checkpoint-500"]
    metadata = "checkpoint-1000/experiment_cfg/metadata.json" if copied else "experiment_cfg/metadata.json"
    assert [path for path in run.checkpoints[0].files if "metadata" in path] == [metadata]


def test_the_root_model_has_the_roots_folders(tree: MakeTree, n16: Path) -> None:
    for old in n16.glob("checkpoint-*"):
        shutil.rmtree(old)
    final = read(tree, n16).checkpoints[0]
    assert final.path == "."
    expected = {f"experiment_cfg/{name}" for name in EXPERIMENT} | {f"processor/{name}" for name in PROCESSOR}
    assert expected | {"config.json", "generation_config.json", "model.safetensors"} == set(final.files)


def test_told_by_the_configuration_alone(tree: MakeTree, tmp_path: Path) -> None:
    n15(tmp_path, copied=False)
    shutil.rmtree(tmp_path / "experiment_cfg")
    assert Groot().find(tree(tmp_path)) == [""]
    for path in tmp_path.glob("checkpoint-*/config.json"):
        write_json(path, {"architectures": ["GPT2LMHeadModel"]})
    assert Groot().find(tree(tmp_path)) == []


def test_other_runs_are_not_groots(tree: MakeTree, tmp_path: Path) -> None:
    assert Groot().find(tree(RUNS / "huggingface_peft")) == []
    write_json(tmp_path / "experiment_cfg/config.yaml", {})
    write_bytes(tmp_path / "model_100.pt")
    assert Groot().find(tree(tmp_path)) == []


def test_damaged_configuration(tree: MakeTree, n16: Path) -> None:
    (n16 / "experiment_cfg/conf.json").write_text("{")
    run = read(tree, n16)
    assert any("conf.json" in warning for warning in run.warnings)
    assert run.params["experiment_cfg"] == json.loads(
        (RUNS / "groot_n16/experiment_cfg/conf.json").read_text()
    )
