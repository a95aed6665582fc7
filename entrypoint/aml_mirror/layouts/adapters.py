"""Finds the model that an adapter was trained on. Without that model, the adapter is useless.

PEFT writes ``adapter_config.json`` beside ``adapter_model.safetensors`` (``PeftModel.save_pretrained``, 0.4
to 0.21), whichever framework calls it: the Trainer, LeRobot, OpenVLA. Its ``base_model_name_or_path`` is a
name on the Hub, or a path on the training machine.
"""

from __future__ import annotations

from dataclasses import replace

from aml_mirror.layouts.base import Checkpoint
from aml_mirror.layouts.config_files import read_json
from aml_mirror.sources.tree import Tree, join, parent

_CONFIG = "adapter_config.json"
# The values that a registry accepts for a tag.
_MAX_NAME = 250  # characters


def with_base_model(run: Tree, checkpoint: Checkpoint) -> Checkpoint:
    """If the checkpoint is an adapter, return it with the name of its base model."""
    return replace(checkpoint, base_model=base_model_of(run, checkpoint))


def base_model_of(run: Tree, checkpoint: Checkpoint) -> str:
    """Return the name of the model that an adapter belongs to; empty: not an adapter, or no base model is
    named.

    A complete model with a merged adapter may keep that adapter in a separate folder. It is not an adapter.
    """
    folder = parent(checkpoint.path) if checkpoint.path in checkpoint.files else checkpoint.path
    path = join(folder, _CONFIG)
    if path not in checkpoint.files:
        return ""
    config = read_json(run, path, [])
    name = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    return " ".join(name.split())[:_MAX_NAME] if isinstance(name, str) else ""
