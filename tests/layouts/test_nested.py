"""layouts/nested.py: a run inside a run's folder is a second run, unless it belongs to the outer one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aml_mirror.core.errors import UsageError
from aml_mirror.layouts import find_run, find_runs
from aml_mirror.sources.tree import Tree
from builders.saved import safetensors, write_json
from builders.torch_zip import save

MakeTree = Callable[[Path], Tree]


def rsl_rl(root: Path, *steps: int) -> Path:
    for step in steps or (0, 100):
        save(root / f"model_{step}.pt", {"model_state_dict": {}, "iter": step, "infos": None})
    return root


def lerobot(root: Path) -> Path:
    folder = root / "checkpoints/000100"
    safetensors(folder / "pretrained_model/model.safetensors")
    write_json(folder / "pretrained_model/config.json", {})
    write_json(folder / "pretrained_model/train_config.json", {})
    write_json(folder / "training_state/training_step.json", {"step": 100})
    return root


def huggingface(root: Path, *steps: int) -> Path:
    for step in steps or (10, 20):
        safetensors(root / f"checkpoint-{step}/model.safetensors", step)
        write_json(root / f"checkpoint-{step}/config.json", {"model_type": "gpt2"})
        write_json(root / f"checkpoint-{step}/trainer_state.json", {"global_step": step})
    return root


def found(tree: Tree, framework: str = "") -> list[tuple[str, str]]:
    return [(item.root, item.layout.name) for item in find_runs(tree, framework)]


@pytest.mark.parametrize(
    "inside", ["student", "stage2", "stage_2", "finetune/2026-01-02_03-04-05", "old", "seed_1"]
)
@pytest.mark.parametrize("outer", ["", "run"])
def test_a_run_of_the_same_framework(tree: MakeTree, tmp_path: Path, inside: str, outer: str) -> None:
    rsl_rl(tmp_path / outer)
    rsl_rl(tmp_path / outer / inside, 0, 50)
    whole = "/".join(filter(None, (outer, inside)))
    assert found(tree(tmp_path)) == [(outer, "rsl_rl"), (whole, "rsl_rl")]
    with pytest.raises(UsageError) as caught:
        find_run(tree(tmp_path))
    assert whole in caught.value.message and "--checkpoint model_100.pt" in caught.value.hint
    # The path in the hint selects the outer run, and its folder the inner run.
    assert find_run(tree(tmp_path), path="model_100.pt").root == outer
    assert find_run(tree(tmp_path).below(whole)).root == ""
    with pytest.raises(UsageError):
        find_run(tree(tmp_path), path=f"{inside}/model_50.pt")


@pytest.mark.parametrize("outer", [rsl_rl, lerobot, huggingface])
@pytest.mark.parametrize("inner", [rsl_rl, lerobot, huggingface])
def test_a_run_of_any_other_framework(
    tree: MakeTree, tmp_path: Path, outer: Callable[[Path], Path], inner: Callable[[Path], Path]
) -> None:
    outer(tmp_path)
    inner(tmp_path / "logs/more/2026")
    assert found(tree(tmp_path)) == [("", outer.__name__), ("logs/more/2026", inner.__name__)]
    if outer is not inner:
        assert found(tree(tmp_path), outer.__name__) == [("", outer.__name__)]


@pytest.mark.parametrize(
    "inside",
    ["best_model", "merged", "exported", "final", "checkpoint-best", "ema", "lora_adapter", "pretrained"],
)
def test_what_is_made_of_a_runs_own_policy_is_no_run(tree: MakeTree, tmp_path: Path, inside: str) -> None:
    huggingface(tmp_path)
    safetensors(tmp_path / inside / "model.safetensors", 5)
    write_json(tmp_path / inside / "config.json", {"model_type": "gpt2"})
    (tmp_path / inside / "training_args.bin").write_bytes(b"x")
    assert found(tree(tmp_path)) == [("", "huggingface")]


def test_the_base_model_that_a_training_began_with_is_no_run(tree: MakeTree, tmp_path: Path) -> None:
    huggingface(tmp_path)
    safetensors(tmp_path / "llama/model.safetensors")
    write_json(tmp_path / "llama/config.json", {"model_type": "llama", "architectures": ["X"]})
    assert found(tree(tmp_path)) == [("", "huggingface")]


def test_three_runs_one_inside_the_other(tree: MakeTree, tmp_path: Path) -> None:
    rsl_rl(tmp_path)
    lerobot(tmp_path / "student")
    rsl_rl(tmp_path / "teacher")
    assert found(tree(tmp_path)) == [("", "rsl_rl"), ("student", "lerobot"), ("teacher", "rsl_rl")]


def test_a_run_of_a_layout_that_looks_into_every_folder(tree: MakeTree, tmp_path: Path) -> None:
    for root in ("", "student"):
        for step in (10, 20):
            state = {"pytorch-lightning_version": "2.5", "epoch": 1, "global_step": step, "state_dict": {}}
            save(tmp_path / root / f"checkpoints/epoch=1-step={step}.ckpt", state)
        (tmp_path / root / "hparams.yaml").write_text("lr: 1")
    assert found(tree(tmp_path)) == [("", "lightning"), ("student", "lightning")]
