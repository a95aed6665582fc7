"""A run of the framework that the package in tests/plugins/third_party supports."""

from __future__ import annotations

from pathlib import Path

from builders.declared_runs import weights
from builders.saved import write_json


def toy_run(root: Path) -> Path:
    """Write the run; return its root."""
    for number, name in enumerate(("toy_10", "toy_20", "toy_end", "toy_top")):
        weights(root / f"{name}.pt", number, toy_policy={})
    write_json(root / "toy.json", {"scale": 2})
    return root
