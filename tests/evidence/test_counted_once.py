"""The same trials in two formats are one evaluation; two evaluations stay two."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from aml_mirror.evidence.counted_once import counted_once
from aml_mirror.evidence.evaluation import TaskTrials
from aml_mirror.evidence.result_statement import Evidence
from aml_mirror.gates.decision import decide
from aml_mirror.gates.policy import Policy

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def evidence(number: int, kind: str, *trials: tuple[str, int, int], **metrics: float) -> Evidence:
    """Evidence from (task, successes, episodes)."""
    rows = tuple(TaskTrials(task, episodes, successes) for task, successes, episodes in trials)
    return Evidence(f"{number:064x}", "b" * 64, kind, rows, metrics, NOW, NOW)


LEROBOT = evidence(1, "lerobot", ("", 48, 50), avg_sum_reward=1.5)


def ids(*found: Evidence) -> list[int]:
    return [int(one.id, 16) for one in counted_once(found)[0]]


def test_a_result_and_its_table_count_once() -> None:
    table = evidence(2, "csv", ("", 48, 50))
    kept, notes = counted_once([table, LEROBOT])
    assert kept == [LEROBOT]
    assert notes == [
        "the evaluation 0000000000000000 (csv) repeats the trials of 0000000000000000 (lerobot): "
        "they are counted once"
    ]
    policy = Policy(episodes=100)
    assert decide(policy, [table, LEROBOT], None).outcome == "pass"
    assert decide(policy, kept, None).outcome == "insufficient"


def test_what_names_the_tasks_is_kept() -> None:
    named = evidence(2, "csv", ("pick", 24, 25), ("place", 24, 25))
    assert ids(LEROBOT, named) == [2]
    assert ids(named, evidence(3, "json", ("pick", 24, 25), ("place", 24, 25))) == [2]
    assert ids(named, evidence(3, "json", ("pick", 25, 25), ("place", 23, 25))) == [2, 3]


def test_what_differs_is_counted() -> None:
    assert ids(LEROBOT, evidence(2, "csv", ("", 47, 50))) == [1, 2]
    assert ids(LEROBOT, evidence(2, "csv", ("", 49, 51))) == [1, 2]
    assert ids(LEROBOT, evidence(2, "lerobot", ("", 48, 50), avg_sum_reward=1.5)) == [1, 2]
    assert ids(LEROBOT, evidence(2, "csv", ("", 48, 50), avg_sum_reward=1.6)) == [1, 2]
    assert ids(LEROBOT, evidence(2, "csv", ("", 48, 50), avg_sum_reward=1.5001)) == [1]
    # Without trials there is nothing to count twice.
    assert ids(evidence(1, "a", mse=0.1), evidence(2, "b", mse=0.1)) == [1, 2]


@given(
    st.lists(
        st.tuples(st.sampled_from(("lerobot", "csv", "json")), st.integers(0, 2), st.integers(0, 2)),
        max_size=6,
    )
)
def test_nothing_is_made_more_and_the_order_does_not_matter(rows: list[tuple[str, int, int]]) -> None:
    found = [
        evidence(at, kind, ("", min(successes, episodes), episodes))
        for at, (kind, successes, episodes) in enumerate(rows)
    ]
    kept, notes = counted_once(found)
    assert len(kept) + len(notes) == len(found)
    assert [one for one in found if one in kept] == kept
    assert {one.id for one in counted_once(found[::-1])[0]} == {one.id for one in kept}
    # Everything that is left out matches something in another format.
    for one in found:
        if one not in kept:
            assert any(
                other.format != one.format
                and (other.episodes, other.successes) == (one.episodes, one.successes)
                for other in kept
            )
