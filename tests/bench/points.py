"""Points: a run's 100,000 points to the emulated workspace, without and with a delay of 30 ms."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

from azure_emulator.client import Azure
from bench import emulator, environments, runs
from bench.harness import (
    BenchError,
    Comparison,
    Goal,
    Result,
    Sample,
    Side,
    compare,
    run_side,
    times_as_long,
    times_faster,
)

POINTS = 100_000
# The slow side sends only this many points, and its time is multiplied, because each call costs the same.
SLOW = 2_000
SLOW_AND_FAR = 200
DELAY = 0.03  # seconds
_opener = build_opener(ProxyHandler({}))
_NOTE = (
    "For all sides, the emulator keeps the points, and the marks that ours sends with them, in memory. The "
    "MLflow server behind it, on the same two cores, needs 25 ms per batch and handles one at a time, which "
    "would hide the clients and the distance."
)


def results(rounds: int | None) -> Iterator[Result]:
    """See the module's first line."""
    with emulator.scope() as azure:
        azure.set_workspace(metric_store="memory")
        yield compare(comparison(azure), rounds)
        # Every request is delayed, also those of the mirror's lease and of the peers' set-up.
        azure.fault("stall", seconds=DELAY, times=0)
        yield compare(comparison(azure, slow=SLOW_AND_FAR, delay=True), rounds)


def comparison(azure: Azure, points: int = POINTS, slow: int = SLOW, delay: bool = False) -> Comparison:
    """The three sides. log_metric sends only ``slow`` points.

    With ``delay``, the emulator answers 30 ms later.
    """
    run = runs.event_file(points).parent
    ours, peers = environments.ours(), environments.peers()

    def side(way: str, count: int) -> Callable[[], Sample]:
        arguments = {"way": way, "points": count, "tags": runs.TAGS, "run": str(run)}
        command = [
            ours if way == "ours" else peers,
            environments.SIDES / "send_points.py",
            json.dumps(arguments),
        ]

        def call() -> Sample:
            azure.forget_requests()
            sample = run_side(command, emulator.environment(azure))
            sent = [item for item in azure.requests("/runs/log-") if item["method"] == "POST"]
            # Our last request writes how the run ended: tags without points.
            sent = sent[:-1] if way == "ours" else sent
            at_server = statistics.median(item["seconds"] for item in sent)
            arrived = arrived_at(azure, int(sample.facts["run"]))
            if arrived != sample.work["points"]:
                raise BenchError(f"{way} sent {sample.work['points']} points, {arrived} arrived")
            return replace(
                sample,
                facts={"requests with points": len(sent), "ms a request at the server": at_server * 1000},
            )

        return call

    goals = [
        Goal("ours ≥ 30 × as fast as log_metric", 30, False, times_faster("ours", "log_metric")),
        Goal("ours ≤ 1.1 × as long as log_batch", 1.1, True, times_as_long("ours", "log_batch")),
    ]
    if delay:
        goals = [
            Goal("ours ≥ 30 × as fast as log_metric", 30, False, times_faster("ours", "log_metric")),
            Goal("ours ≥ 3 × as fast as log_batch", 3, False, times_faster("ours", "log_batch")),
        ]
    where = "30 ms a request away" if delay else "on the same machine"
    return Comparison(
        "points-30ms" if delay else "points",
        f"Points: {points:,} in {runs.TAGS} metrics to the emulated workspace, {where}",
        [
            Side(
                "ours",
                "reads the event file, sends batches of 200 in partitions, each point once",
                side("ours", points),
            ),
            Side(
                "log_batch",
                "a hand-written script: 200 points per call, one call after the other",
                side("log_batch", points),
                rounds=1 if delay else None,
            ),
            Side(
                "log_metric",
                "what callbacks and most scripts do: one call per point",
                side("log_metric", slow),
                extrapolated=points / slow,
                rounds=1,
            ),
        ],
        goals,
        "ours",
        note=_NOTE,
    )


def arrived_at(azure: Azure, run: int) -> int:
    """How many points of a run the workspace stored."""
    run_id = f"{run:032x}"
    return sum(_kept(azure, run_id, name) for name in azure.mlflow.get_run(run_id).data.metrics)


def _kept(azure: Azure, run_id: str, name: str) -> int:
    asked = urlencode({"run_id": run_id, "metric_key": name})
    with _opener.open(
        f"{azure.facts['mlflow']}/api/2.0/mlflow/metrics/get-history?{asked}", timeout=600
    ) as answer:
        return len(json.loads(answer.read())["metrics"])
