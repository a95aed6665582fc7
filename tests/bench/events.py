"""Event files: 500,000 scalars in 20 tags, all of them read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from bench import environments, runs
from bench.harness import MB, Comparison, Goal, Result, Sample, Side, compare, run_side, times_faster

POINTS = 500_000


def results(rounds: int | None) -> Iterator[Result]:
    """See the module's first line."""
    yield compare(comparison(), rounds)


def comparison(points: int = POINTS) -> Comparison:
    """See the module's first line."""
    path = runs.event_file(points)
    ours, peers = environments.ours(), environments.peers()

    def side(reader: str) -> Callable[[], Sample]:
        python = ours if reader in ("ours", "bare") else peers
        return lambda: run_side(
            [
                python,
                environments.SIDES / "read_events.py",
                json.dumps({"path": str(path), "reader": reader}),
            ],
            environments.environment(),
        )

    return Comparison(
        "events",
        f"Event files: {points:,} scalars in {runs.TAGS} tags",
        [
            Side("ours", "checksums of every record verified", side("ours")),
            Side("tbparse", "what most scripts use: pandas on top of tensorboard", side("tbparse")),
            Side(
                "EventAccumulator",
                "tensorboard's own reader, size_guidance unlimited",
                side("accumulator"),
                rounds=1,
            ),
            Side("RawEventFileLoader", "tensorboard's raw records, each parsed", side("loader")),
            Side("bare Python", "reads nothing: the baseline for memory", side("bare"), is_yardstick=True),
        ],
        [
            Goal("ours ≥ 8 × as fast as tbparse", 8, False, times_faster("ours", "tbparse")),
            Goal(
                "ours ≥ 5 × as fast as the raw loader", 5, False, times_faster("ours", "RawEventFileLoader")
            ),
            Goal(
                "ours ≤ 25 MB above the bare interpreter",
                25,
                True,
                lambda measured: (measured["ours"].resident - measured["bare Python"].resident) / MB,
                "MB",
            ),
        ],
        "ours",
    )
