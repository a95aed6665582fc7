"""What a workspace takes of a plan, and what it leaves out."""

from __future__ import annotations

from aml_mirror.core.errors import DataError
from aml_mirror.pipeline.plan import Plan
from aml_mirror.registries import base


def apply_limits(decided: Plan, limits: base.Limits) -> tuple[Plan, list[dict[str, str]]]:
    """Keep a plan within a workspace's limits and name what is left out.

    Raises:
        DataError: a checkpoint has more files than a version may have; nothing was sent.
    """
    left_out = [{"path": path, "reason": reason} for path, reason in decided.left_out]
    count = len(decided.manifest.items)
    if limits.files is not None and count > limits.files:
        raise DataError(
            f"the checkpoint {decided.checkpoint.path} has {count} files, a version takes {limits.files}",
            "leave some out with --include or --exclude, or choose another with --checkpoint",
        )
    if limits.params is not None and len(decided.params) > limits.params:
        names = list(decided.params)
        for name in names[limits.params :]:
            left_out.append({"param": name, "reason": f"a run takes {limits.params} parameters"})
            del decided.params[name]
    for name, value in decided.params.items():
        if len(value) > limits.param_value:
            reason = f"cut from {len(value)} to {limits.param_value} characters"
            left_out.append({"param": name, "reason": reason})
    if limits.series is not None and len(decided.metrics.series) > limits.series:
        kept = decided.metrics.limited(limits.series)
        names_kept = {series.name for series in kept.series}
        for series in decided.metrics.series:
            if series.name not in names_kept:
                left_out.append({"metric": series.name, "reason": f"a run takes {limits.series} metrics"})
        decided.metrics = kept
    return decided, left_out
