"""Which model an adapter was trained on: without it the adapter is of no use.

PEFT writes ``adapter_config.json`` beside ``adapter_model.safetensors`` (``PeftModel.save_pretrained``, 0.4
to 0.21), whatever framework calls it: the Trainer, LeRobot, OpenVLA. ``base_model_name_or_path`` in it is a
name on the Hub or a path of the machine that trained.
"""

from __future__ import annotations

from dataclasses import replace

from aml_mirror.layouts.base import Checkpoint
from aml_mirror.layouts.config_files import read_json
from aml_mirror.sources.tree import Tree, join, parent

_CONFIG = "adapter_config.json"
# What a registry takes as a tag's value.
_MAX_NAME = 250  # characters


def with_base_model(run: Tree, checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with the name of its base model, where it is an adapter."""
    return replace(checkpoint, base_model=base_model_of(run, checkpoint))


def base_model_of(run: Tree, checkpoint: Checkpoint) -> str:
    """Return the name of the model that a checkpoint is an adapter of; empty: it is none, or nothing says it.

    A whole model into which an adapter was merged may keep the adapter in a folder of its own: it is none.
    """
    folder = parent(checkpoint.path) if checkpoint.path in checkpoint.files else checkpoint.path
    path = join(folder, _CONFIG)
    if path not in checkpoint.files:
        return ""
    config = read_json(run, path, [])
    name = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    return " ".join(name.split())[:_MAX_NAME] if isinstance(name, str) else ""
