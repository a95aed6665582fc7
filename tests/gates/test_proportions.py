"""Intervals and comparisons, with scipy as the oracle."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2_contingency

from aml_mirror.gates.proportions import p_value_of_worse, wilson


@given(st.integers(1, 100_000), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_wilson_interval_is_that_of_scipy(episodes: int, share: float, confidence: float) -> None:
    successes = round(share * episodes)
    expected = binomtest(successes, episodes).proportion_ci(confidence, "wilson")
    assert wilson(successes, episodes, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_published_intervals() -> None:
    low, high = wilson(9, 10)
    assert (round(low, 3), round(high, 3)) == (0.596, 0.982)
    assert wilson(95, 100)[0] > 0.8 > wilson(9, 10)[0]
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(10, 10)[1] == 1.0 and wilson(0, 10)[0] == 0.0


@given(st.integers(0, 300), st.integers(1, 300), st.integers(0, 300), st.integers(1, 300))
def test_one_table_is_the_pooled_test_of_two_proportions(own: int, n: int, other: int, m: int) -> None:
    own, other = min(own, n), min(other, m)
    found = p_value_of_worse([(own, n, other, m)])
    if own + other in (0, n + m):
        assert found == 1.0
        return
    two_sided = chi2_contingency([[own, n - own], [other, m - other]], correction=False).pvalue
    expected = two_sided / 2 if own / n <= other / m else 1 - two_sided / 2
    assert found == pytest.approx(expected, abs=1e-9)


def test_tasks_are_compared_one_by_one() -> None:
    # Better in each task but worse in total, because it tried the hard task more often.
    tables = [(9, 10, 80, 100), (30, 100, 1, 10)]
    assert sum(row[0] for row in tables) / 110 < sum(row[2] for row in tables) / 110
    assert p_value_of_worse(tables) > 0.5
    assert p_value_of_worse([(1, 10, 9, 10), (0, 0, 5, 5)]) < 0.05
    assert math.isclose(p_value_of_worse([(5, 10, 5, 10)]), 0.5)
