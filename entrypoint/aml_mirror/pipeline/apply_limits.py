"""Adapts a plan to a registry's limits, and reports what is left out."""

from __future__ import annotations

from dataclasses import replace

from aml_mirror.core.errors import DataError
from aml_mirror.core.run import Checkpoint
from aml_mirror.pipeline.parameters import cut_before
from aml_mirror.pipeline.plan import Plan
from aml_mirror.registries.records import Limits


def check_file_count(checkpoint: Checkpoint, limits: Limits) -> None:
    """Check that a version can have a checkpoint's files, before one is read.

    Raises:
        DataError: there are too many.
    """
    count = len(checkpoint.files)
    if limits.files is not None and count > limits.files:
        raise DataError(
            f"the checkpoint {checkpoint.path} has {count} files, but a version can have {limits.files}",
            "omit some with --include or --exclude, or choose another with --checkpoint",
        )


def apply_limits(plan: Plan, limits: Limits) -> Plan:
    """Return a plan within the registry's limits. ``beyond_limits`` lists what is left out."""
    beyond: list[dict[str, str]] = []
    params, metrics = dict(plan.params), plan.metrics
    if limits.params is not None and len(params) > limits.params:
        for name in list(params)[limits.params :]:
            beyond.append({"param": name, "reason": f"a run can have {limits.params} parameters"})
            del params[name]
    for name, value in params.items():
        if len(value) > limits.param_value:
            reason = f"cut from {len(value)} to {limits.param_value} characters"
            beyond.append({"param": name, "reason": reason})
        elif cut := cut_before(value):
            beyond.append({"param": name, "reason": cut})
    if limits.series is not None and len(metrics.series) > limits.series:
        kept = metrics.limited(limits.series)
        names = {series.name for series in kept.series}
        beyond.extend(
            {"metric": series.name, "reason": f"a run can have {limits.series} metrics"}
            for series in metrics.series
            if series.name not in names
        )
        metrics = kept
    return replace(plan, params=params, metrics=metrics, beyond_limits=(*plan.beyond_limits, *beyond))
