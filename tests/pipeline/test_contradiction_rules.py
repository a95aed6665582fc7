"""contradictions.py at its bounds: how far a checkpoint and a log may be apart before something is said."""

from __future__ import annotations

import pytest

from aml_mirror.core.run import Checkpoint, Run
from aml_mirror.metrics.series import Metrics
from aml_mirror.metrics.summaries import Restart, Series, Span
from aml_mirror.pipeline.contradictions import Contradictions, contradictions


def span(last: int, before: int | None, first: int = 0, path: str = "events") -> Span:
    return Span(path, first, last, before)


def logged(
    *spans: Span, tag: str = "loss", ended: bool = False, restarts: tuple[Restart, ...] = ()
) -> Metrics:
    series = tuple(Series(f"{tag}_{n}", tag, "", newest=one) for n, one in enumerate(spans))
    sources = ({"path": "events", "points": 9, "ended": "it was cut"} if ended else {"path": "events"},)
    return Metrics(series, 9, (tag,), 0, sources, (), restarts=restarts)


def judged(
    steps: tuple[int, ...], metrics: Metrics, framework: str = "groot", role: str = "final"
) -> Contradictions:
    items = tuple(Checkpoint(f"c_{step}", step, role, (), ()) for step in steps)  # type: ignore[arg-type]
    return contradictions(framework, Run(items), items[0], metrics)


@pytest.mark.parametrize(
    ("steps", "log", "says"),
    [
        # A save may be one interval, one logging interval or a tenth of the training beyond the log.
        ((300, 200, 100), span(200, 190), ""),
        ((300, 200, 100), span(199, 190), "beyond"),
        ((300, 299, 298, 0), span(2, 0), ""),
        ((300, 299, 298, 0), span(1, 0), "beyond"),
        ((1000, 990), span(950, 880), ""),
        ((1000, 990), span(940, 900), ""),
        ((1000, 990), span(900, 890), "beyond"),
        # A log may continue for two intervals after the last save.
        ((300, 200, 100), span(500, 490), ""),
        ((300, 200, 100), span(501, 490), "behind"),
        ((300, 290), span(500, 299), ""),
        ((300, 290), span(500, 300), ""),
        ((300, 290), span(500, 301), "behind"),
        ((1000, 999), span(1111, 1110), ""),
        ((1000, 999), span(1120, 1119), "behind"),
        # Saved once: as often as its step says.
        ((300,), span(900, 890), ""),
        ((300,), span(901, 890), "behind"),
    ],
)
def test_how_far_they_may_be_apart(steps: tuple[int, ...], log: Span, says: str) -> None:
    found = judged(steps, logged(log))
    assert not found.undecided
    assert [("it may be of another training" in text) for text in found.warnings] == (
        [] if not says else [says == "beyond"]
    )


def test_a_single_step_is_no_training() -> None:
    assert judged((300, 200), logged(span(9000, None))) == Contradictions()
    assert judged((300, 200), logged(span(9000, None), span(310, 300))) == Contradictions()
    assert judged((300, 200), logged(span(9000, 8990), span(310, 300))).warnings


def test_the_unit_of_a_framework() -> None:
    far = span(9000, 8990)
    assert judged((300, 200), logged(far), "tianshou") == Contradictions()
    assert judged((300, 200), logged(far, tag="Train/reward/time"), "rsl_rl") == Contradictions()
    assert judged((300, 200), logged(far, tag="Train/reward"), "rsl_rl").warnings
    assert judged((300, 200), logged(far, tag="loss"), "lightning") == Contradictions()
    assert judged((300, 200), logged(far, tag="epoch"), "lightning").warnings
    assert judged((300, 200), logged(far, tag="rewards/iter"), "rl_games").warnings
    assert judged((300, 200), logged(far, tag="rewards/step"), "rl_games") == Contradictions()


def test_a_framework_that_counts_steps_more_than_once_may_be_far_beyond_its_log() -> None:
    behind = logged(span(100, 99), tag="epoch")
    assert judged((2000, 1000), behind, "lightning") == Contradictions()
    # A log is compared with the newest step only.
    assert judged((2000, 1000), logged(span(4000, 3999), tag="epoch"), "lightning") == Contradictions()
    assert judged((2000, 1000), logged(span(4001, 3999), tag="epoch"), "lightning").warnings


def test_a_log_that_was_cut_says_nothing_of_a_later_checkpoint() -> None:
    short = span(100, 90)
    assert judged((3000, 2900), logged(short)).warnings
    assert judged((3000, 2900), logged(short, ended=True)) == Contradictions()


def test_a_log_says_nothing_of_an_older_checkpoint() -> None:
    far = logged(span(9000, 8990))
    assert judged((300, 200), far, role="periodic") == Contradictions()
    assert judged((300, 200), far, role="unknown").warnings


def test_a_folder_of_two_trainings_is_undecided_between_those_that_fit() -> None:
    newest = span(200, 190, path="new")
    restart = Restart(span(3000, 2990, path="old"), newest)
    metrics = logged(newest, restarts=(restart,))
    found = judged((3000, 250, 210, 200, 100), metrics)
    assert "an older training in the same folder may have left it" in found.undecided
    # Those with which the newer training may have ended: up to one logging interval beyond its log.
    assert found.choices == ("c_210", "c_200", "c_3000")
    assert "it may be of an older training" in found.warnings[-1]
    assert found.warnings[0].startswith("the folder contains event files of an older training: old has")
    found = judged((3000, 150, 100), metrics)
    assert found.choices == ("c_150", "c_3000")
    # Nothing fits, and what is within the log is decided.
    assert not judged((3000,), metrics).undecided
    assert judged((210, 200), metrics).choices == () and judged((211, 200), metrics).choices
