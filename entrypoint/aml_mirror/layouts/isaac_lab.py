"""What Isaac Lab writes beside the checkpoints, with every framework that it trains with.

Isaac Lab's train scripts (scripts/reinforcement_learning/*/train.py, 2.x) dump ``params/env.yaml`` and
``params/agent.yaml`` through ``isaaclab.utils.io.dump_yaml``; newer ones add ``run.json`` (library, task,
created_at).
"""

from __future__ import annotations

from typing import Any

from aml_mirror.layouts.config_files import read_mapping
from aml_mirror.sources.tree import Tree


def params_of(run: Tree, warnings: list[str]) -> dict[str, Any]:
    """Read the configuration of a run as ``{"agent": …, "env": …, "run": …}``, with the parts that exist."""
    params: dict[str, Any] = {}
    for key, path in (
        ("agent", "params/agent.yaml"),
        ("agent", "params/agent.yml"),
        ("env", "params/env.yaml"),
        ("env", "params/env.yml"),
        ("run", "run.json"),
    ):
        if run.has(path) and key not in params and (value := read_mapping(run, path, warnings)):
            params[key] = value
    return params
