"""Finds when a run was trained: the first and last wall time of its points, or else of its files."""

from __future__ import annotations

from aml_mirror.metrics.series import Metrics
from aml_mirror.registries import run_times
from aml_mirror.sources.tree import Tree


def training_times(metrics: Metrics, tree: Tree) -> tuple[float, float] | None:
    """Return begin and end in seconds since the epoch; None if unknown.

    Args:
        metrics: of the run.
        tree: its files; those of a copy may have the time of the copying.
    """
    first, last = metrics.times.first, metrics.times.last
    if first is not None and last is not None:
        return first, last
    written = [entry.modified for entry in tree.files.values() if entry.modified > 0]
    return (min(written), max(written)) if written else None


def as_tag(metrics: Metrics, tree: Tree) -> str:
    """Return the value of the tag ``mirror.trained``; empty if unknown."""
    found = training_times(metrics, tree)
    return run_times.as_tag(*(moment * 1000 for moment in found)) if found else ""
