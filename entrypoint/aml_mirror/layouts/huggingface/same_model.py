"""Tells whether two checkpoints hold the same model, and reads little of those that differ."""

from __future__ import annotations

from aml_mirror.layouts.base import Checkpoint
from aml_mirror.layouts.step_folders import same_file
from aml_mirror.sources.tree import Tree

# How many places of two models are compared first. Different models differ nearly everywhere.
_PROBES = 8
_PROBE_BYTES = 4096


def same_model(run: Tree, one: Checkpoint, other: Checkpoint) -> bool:
    """Tell whether two checkpoints hold the same weights, comparing names and sizes first, then contents."""
    ones, others = _inside(one), _inside(other)
    if not ones or ones.keys() != others.keys():
        return False
    if any(run.size(ones[name]) != run.size(others[name]) for name in ones):
        return False
    largest = max(ones, key=lambda name: run.size(ones[name]))
    if not _looks_the_same(run, ones[largest], others[largest]):
        return False
    return all(same_file(run, ones[name], others[name]) for name in ones)


def _inside(checkpoint: Checkpoint) -> dict[str, str]:
    prefix = "" if checkpoint.path == "." else checkpoint.path + "/"
    return {path.removeprefix(prefix): path for path in checkpoint.weights}


def _looks_the_same(run: Tree, one: str, other: str) -> bool:
    size = run.size(one)
    starts = {size * number // _PROBES for number in range(_PROBES)}
    # The middle first: files of one model begin with the same header.
    ordered = sorted(starts, key=lambda start: abs(start - size // 2))
    return all(
        run.read(one, start, _PROBE_BYTES) == run.read(other, start, _PROBE_BYTES) for start in ordered
    )
