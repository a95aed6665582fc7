"""The arithmetic of success rates: how certain a rate is, and whether one is lower than another.

- :func:`wilson`: the score interval of E. B. Wilson (Probable Inference, the Law of Succession, and
  Statistical Inference, JASA 22, 1927), without a correction for continuity.
- :func:`p_value_of_worse`: Cochran's test of several 2×2 tables (Some Methods for Strengthening the Common χ²
  Tests, Biometrics 10, 1954), one-sided. For one table it is the pooled test of two proportions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import NormalDist


def wilson(successes: int, episodes: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the two-sided Wilson interval of a success rate, as fractions.

    Args:
        successes: successful episodes, 0 to ``episodes``.
        episodes: 0 or more. With none, nothing is known: the interval is 0 to 1.
        confidence: the confidence level, between 0 and 1.
    """
    if not episodes:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / episodes
    scale = 1 + z * z / episodes
    centre = (share + z * z / (2 * episodes)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / episodes + z * z / (4 * episodes * episodes))
    # At the ends the interval is exact. The arithmetic may be off by about 1e-17.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == episodes else min(1.0, centre + half)
    return low, high


def p_value_of_worse(tables: Iterable[tuple[int, int, int, int]]) -> float:
    """Return the probability of so few successes if the candidate is as good as the incumbent.

    Args:
        tables: for each task, (successes, episodes) of the candidate and (successes, episodes) of the
            incumbent. Tasks that only one of them tried are ignored.

    Returns:
        The one-sided p-value. It is 1 if both succeeded, or failed, in every episode.
    """
    difference = variance = 0.0
    for own, own_episodes, other, other_episodes in tables:
        total = own_episodes + other_episodes
        if not own_episodes or not other_episodes:
            continue
        share = (own + other) / total
        difference += own - own_episodes * share
        variance += own_episodes * other_episodes / total * share * (1 - share)
    if variance <= 0:
        return 1.0
    return NormalDist().cdf(difference / math.sqrt(variance))
