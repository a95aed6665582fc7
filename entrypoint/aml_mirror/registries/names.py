"""The rule for names that every MLflow server has."""

from __future__ import annotations

import re

from aml_mirror.core.errors import UsageError


def check_names(model_name: str, experiment: str) -> None:
    """Check what MLflow would refuse, before anything is sent.

    Raises:
        UsageError: with the rule.
    """
    if re.search(r"[/:\x00-\x1f\x7f]", model_name) or not model_name.strip() or len(model_name) > 256:
        raise UsageError(
            f"{model_name!r} cannot be the name of a registered model: it has to have 1 to 256 characters "
            "without '/', ':' and control characters",
            "pass another with --model-name",
        )
    if not experiment.strip() or len(experiment) > 256 or re.search(r"[\x00-\x1f]", experiment):
        raise UsageError(
            f"{experiment!r} cannot be the name of an experiment: it has to have 1 to 256 characters",
            "pass another with --experiment",
        )
