"""Which evidence passes which policy."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aml_mirror.evidence.evaluation import TaskTrials
from aml_mirror.evidence.result_statement import Evidence
from aml_mirror.gates.decision import Incumbent, decide
from aml_mirror.gates.policy import Policy, RequiredTask
from aml_mirror.gates.proportions import wilson
from aml_mirror.gates.stage_changes import version_before
from aml_mirror.registries.stages import StageEntry, carried_out

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def evidence(*trials: tuple[str, int, int], **metrics: float) -> Evidence:
    """Evidence from (task, successes, episodes)."""
    rows = tuple(TaskTrials(task, episodes, successes) for task, successes, episodes in trials)
    return Evidence("a" * 64, "b" * 64, "test", rows, metrics, NOW, NOW)


def outcome(policy: Policy, *found: Evidence, incumbent: Incumbent | None = None) -> str:
    return decide(policy, found, incumbent).outcome


EIGHTY = Policy(success_rate=0.8)


@pytest.mark.parametrize(
    ("policy", "found", "expected"),
    [
        (EIGHTY, [evidence(("", 9, 10))], "insufficient"),
        (EIGHTY, [evidence(("", 95, 100))], "pass"),
        # Several evaluations count together.
        (EIGHTY, [evidence(("", 9, 10)), evidence(("", 86, 90))], "pass"),
        (EIGHTY, [evidence(("", 5, 10))], "fail"),
        (EIGHTY, [], "insufficient"),
        (EIGHTY, [evidence(mse=0.1)], "insufficient"),
        (Policy(), [], "insufficient"),
        (Policy(), [evidence(("", 0, 1))], "pass"),
        (Policy(episodes=50), [evidence(("", 49, 49))], "insufficient"),
        (Policy(episodes=50), [evidence(("", 1, 50))], "pass"),
        (Policy(tasks=(RequiredTask("a"),)), [evidence(("a/1", 1, 1))], "pass"),
        (Policy(tasks=(RequiredTask("a"),)), [evidence(("ab", 1, 1))], "insufficient"),
        (Policy(tasks=(RequiredTask("a", 1, 0.5),)), [evidence(("a", 0, 9), ("b", 9, 9))], "fail"),
        (Policy(metrics={"mse": (None, 0.2)}), [evidence(("", 1, 1), mse=0.1)], "pass"),
        (Policy(metrics={"mse": (None, 0.2)}), [evidence(("", 1, 1))], "insufficient"),
        (
            Policy(metrics={"mse": (None, 0.2)}),
            [evidence(("", 1, 1), mse=0.1), evidence(("", 1, 1), mse=0.3)],
            "fail",
        ),
    ],
)
def test_each_condition(policy: Policy, found: list[Evidence], expected: str) -> None:
    decision = decide(policy, found, None)
    assert decision.outcome == expected
    assert bool(decision.reason) == (expected != "pass")
    assert "\n" not in decision.reason


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        (("", 85, 100), ("", 95, 100), "fail"),
        (("", 92, 100), ("", 95, 100), "pass"),
        (("", 99, 100), ("", 95, 100), "pass"),
        (("a", 5, 5), ("b", 5, 5), "insufficient"),
        (("a", 5, 5), None, "insufficient"),
    ],
)
def test_the_candidate_is_compared_with_the_incumbent(own: Any, other: Any, expected: str) -> None:
    incumbent = Incumbent("3", [evidence(other)] if other else [])
    assert outcome(Policy(), evidence(own), incumbent=incumbent) == expected
    assert outcome(Policy(compares=False), evidence(own), incumbent=incumbent) == "pass"
    assert outcome(Policy(), evidence(own)) == "pass"


@given(st.integers(0, 200), st.integers(1, 200), st.floats(0.01, 0.99))
def test_no_rate_passes_below_its_lower_bound(successes: int, episodes: int, wanted: float) -> None:
    successes = min(successes, episodes)
    low, high = wilson(successes, episodes)
    found = outcome(Policy(success_rate=wanted), evidence(("", successes, episodes)))
    assert (found == "pass") == (low >= wanted)
    assert (found == "fail") == (high < wanted)


def entry(sequence: int, action: str, version: str, follows: int | None = None) -> StageEntry:
    before = sequence - 1 if follows is None else follows
    return StageEntry("production", sequence, action, version, "", before, "", "")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], ""),
        ([("promote", "1")], ""),
        ([("promote", "1"), ("promote", "2")], "1"),
        ([("promote", "1"), ("promote", "2"), ("rollback", "1")], ""),
        ([("promote", "1"), ("promote", "2"), ("promote", "3"), ("rollback", "2")], "1"),
        ([("promote", "1"), ("promote", "2"), ("demote", "")], "2"),
        ([("promote", "1"), ("promote", "2"), ("demote", ""), ("rollback", "2")], "1"),
        ([("promote", "1"), ("demote", ""), ("promote", "1")], ""),
        ([("promote", "1"), ("promote", "2"), ("rollback", "1"), ("promote", "3")], "1"),
    ],
)
def test_a_rollback_goes_back_and_never_forth(rows: list[tuple[str, str]], expected: str) -> None:
    entries = [entry(at + 1, action, version) for at, (action, version) in enumerate(rows)]
    assert version_before(entries) == expected


def test_an_entry_that_was_cut_off_was_not_carried_out() -> None:
    entries = [
        entry(1, "promote", "1", 0),
        entry(2, "promote", "2", 1),
        entry(3, "promote", "3", 2),  # killed
        entry(4, "promote", "4", 2),
    ]
    assert [one.sequence for one in carried_out(entries, 4)] == [1, 2, 4]
    assert carried_out(entries, 9) == []
