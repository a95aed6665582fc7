"""Decides by a metric's name whether lower is better, if no configuration says so."""

from __future__ import annotations

import re

_LOWER = re.compile(
    r"(^|[^a-z])(\w*loss|\w*err|\w*error|mse|rmse|mae|nll|\w*perplexity|ppl|wer|cer|fid|\w*distance|kl|elbo)([^a-z]|$)",
    re.IGNORECASE,
)


def lower_is_better(metric: str) -> bool:
    """Tell whether lower is better: losses, errors and distances."""
    return _LOWER.search(metric.replace("_", " ").replace("/", " ")) is not None
