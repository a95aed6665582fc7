"""Writes one checkpoint of several frameworks at any step, and finds the run in a folder of them."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aml_mirror.layouts import find_run
from aml_mirror.layouts.base import Run
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from builders.declared_runs import copied_store
from builders.saved import safetensors, write_bytes, write_json
from builders.torch_zip import save as save_zip

Save = Callable[..., None]


@contextmanager
def folder() -> Iterator[Path]:
    """Return a new folder whose name proves nothing."""
    with tempfile.TemporaryDirectory() as parent:
        root = Path(parent) / "input"
        root.mkdir()
        yield root


def tree_of(root: Path) -> Tree:
    source = LocalSource(root)
    return Tree(source, source.scan())


def planned(root: Path) -> tuple[Tree, Run, str]:
    """Return the run in a folder, and the name of its layout."""
    whole = tree_of(root)
    found = find_run(whole)
    return whole.below(found.root), found.read(whole), found.layout.name


def torch_file(path: Path, step: int, seed: int, **values: Any) -> None:
    """Write a torch.save file whose tensor depends on the step and the seed."""
    save_zip(path, values or {"net.weight": 0}, f"{seed} {step}".ljust(64).encode())


def huggingface(path: Path, step: int, seed: int = 0) -> None:
    """Write ``checkpoint-<step>``, or a model under another name."""
    safetensors(path / "model.safetensors", seed * 1000 + step % 997)
    write_json(path / "config.json", {"model_type": "gpt2"})
    if path.name.startswith("checkpoint-") and path.name[-1].isdigit():
        write_json(path / "trainer_state.json", {"global_step": step, "max_steps": 10**7})


def rsl_rl(path: Path, step: int, seed: int = 0) -> None:
    torch_file(path, step, seed, model_state_dict={}, iter=step, infos=None)


def lightning(path: Path, step: int, seed: int = 0) -> None:
    state = {"pytorch-lightning_version": "2.5", "epoch": 1, "global_step": step, "state_dict": {}}
    torch_file(path, step, seed, **state)


def plain(path: Path, step: int, seed: int = 0) -> None:
    torch_file(path, step, seed)


def robomimic(path: Path, step: int, seed: int = 0) -> None:
    torch_file(path, step, seed, algo_name="bc", env_metadata={}, epoch=step)


def skrl(path: Path, step: int, seed: int = 0) -> None:
    torch_file(path, step, seed, policy={"net.weight": 0}, value={"net.weight": 0})


def groot(path: Path, step: int, seed: int = 0) -> None:
    huggingface(path, step, seed)
    write_json(path / "config.json", {"model_type": "gr00t_n1d6"})


def brax(path: Path) -> None:
    copied_store(path)


def rlinf(path: Path, step: int, seed: int = 0) -> None:
    torch_file(path / "actor/model_state_dict/full_weights.pt", step, seed)
    write_bytes(path / "actor/dcp_checkpoint/__0_0.distcp", b"x" * 80)
    write_bytes(path / "actor/dcp_checkpoint/.metadata")


def stable_baselines3(path: Path, step: int, seed: int = 0, **data: Any) -> None:
    """Write the zip of a policy; ``data`` is what its training says about itself."""
    policy = path.with_name("policy.pth")
    torch_file(policy, step, seed)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", json.dumps({"num_timesteps": step, **data}))
        archive.write(policy, "policy.pth")
        archive.writestr("_stable_baselines3_version", "2.9.2")
    policy.unlink()


def lerobot(path: Path, step: int, seed: int = 0) -> None:
    safetensors(path / "pretrained_model/model.safetensors", seed * 1000 + step % 997)
    for name in ("config.json", "train_config.json"):
        write_json(path / "pretrained_model" / name, {"type": "act"})
    write_json(path / "training_state/training_step.json", {"step": step})
    write_bytes(path / "training_state/optimizer_state.safetensors", b"x" * 40)


def write_numbered(root: Path, name: str, steps: list[int], save: Save = plain) -> None:
    for step in steps:
        save(root / name.format(step), step)
