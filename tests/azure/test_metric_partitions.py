"""Points in partitions: in order within a series, in parallel, and each once, whatever arrived before a
kill.
"""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.entities import Metric, RunTag
from mlflow.protos.service_pb2 import LogBatch
from mlflow.utils.proto_json_utils import message_to_json

from aml_mirror.core.errors import Interrupted, ServiceUnavailable
from aml_mirror.registries.azureml.log_batch import body
from aml_mirror.registries.azureml.metric_partitions import PARTITIONS, Batch, batches, log_points, tag_of
from aml_mirror.registries.records import Point
from azure_emulator.client import Azure
from builders.runs import huggingface_run, write_events
from mirroring import Mirroring, points_of, runs_of

SIZE = 5


def rows(series: list[int]) -> list[Point]:
    """Points of this number of series, with this number of points each, in a mixed but fixed order."""
    counted = enumerate(series)
    points = [(f"s{name}", 1.0, 1000 + step, step) for name, count in counted for step in range(count)]
    order = random.Random(1)
    return sorted(points, key=lambda point: (point[3], order.random()))


def test_a_batch_is_written_as_mlflow_writes_it() -> None:
    values = [0.1, -0.0, 1e300, 5e-324, 3, float("nan"), float("inf"), -float("inf")]
    points = [(f"ä/b {number}", value, 1_760_000_000_000, -number) for number, value in enumerate(values)]
    theirs = LogBatch(
        run_id="r",
        metrics=[Metric(*point).to_proto() for point in points],
        tags=[RunTag("t", "ü").to_proto(), RunTag("u", "").to_proto()],
    )
    assert body("r", points, {"t": "ü", "u": ""}) == json.loads(message_to_json(theirs))


class Server:
    """Stores rows and marks together, and duplicate rows twice. Dies after this number of requests."""

    def __init__(self, lives: int | None = None) -> None:
        self.rows: list[Point] = []
        self.tags: dict[str, str] = {}
        self.lives = lives
        self._lock = threading.Lock()

    def __call__(self, batch: Batch, go_on: Callable[[], None]) -> None:
        go_on()
        with self._lock:
            if self.lives == 0:
                raise ServiceUnavailable("killed")
            if self.lives is not None:
                self.lives -= 1
            self.rows += batch.points
            self.tags[tag_of(batch.partition)] = batch.mark

    def log(self, points: list[Point]) -> int:
        def stream() -> Iterator[Point]:
            return iter(points)

        return log_points(stream, SIZE, dict(self.tags), self, lambda count: None)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.lists(st.integers(0, 12), max_size=4))
def test_each_point_once_and_in_order_after_any_kills(series: list[int], kills: list[int]) -> None:
    points = rows(series)
    server = Server()
    for lives in kills:
        server.lives = lives
        try:
            server.log(points)
        except ServiceUnavailable:
            continue
    server.lives = None
    server.log(points)
    assert Counter(server.rows) == Counter(points)
    for name in range(len(series)):
        steps = [point[3] for point in server.rows if point[0] == f"s{name}"]
        assert steps == sorted(steps)
    assert server.log(points) == 0


def test_other_points_than_an_earlier_try_had_are_sent_from_the_start() -> None:
    server = Server()
    server.log(rows([20, 20]))
    changed = [(name, value + 1, when, step) for name, value, when, step in rows([20, 20])]
    assert server.log(changed) == 40


def test_a_series_stays_in_its_partition_and_all_partitions_are_used() -> None:
    partitions: dict[str, set[int]] = {}
    for batch in batches(iter(rows([12] * 10)), SIZE):
        assert len(batch.points) <= SIZE
        for point in batch.points:
            partitions.setdefault(point[0], set()).add(batch.partition)
    assert all(len(found) == 1 for found in partitions.values())
    assert {partition for found in partitions.values() for partition in found} == set(range(PARTITIONS))


def test_partitions_send_at_the_same_time() -> None:
    together = threading.Barrier(PARTITIONS, timeout=600)

    def send(batch: Batch, go_on: Callable[[], None]) -> None:
        together.wait()

    assert (
        log_points(lambda: iter(rows([SIZE] * PARTITIONS)), SIZE, {}, send, lambda count: None)
        == SIZE * PARTITIONS
    )


def test_a_signal_lets_nothing_new_begin_and_waits_for_what_is_on_its_way() -> None:
    begun, may_end = threading.Event(), threading.Event()
    done: list[Batch] = []

    def send(batch: Batch, go_on: Callable[[], None]) -> None:
        begun.set()
        may_end.wait(600)
        done.append(batch)

    def stream() -> Iterator[Point]:
        yield from rows([SIZE])
        assert begun.wait(600)
        may_end.set()
        raise Interrupted(15)

    with pytest.raises(Interrupted):
        log_points(stream, SIZE, {}, send, lambda count: None)
    # The started request ends before the run is closed.
    assert len(done) == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_with_all_partitions_on_their_way(azure: Azure, tmp_path: Path, when: str) -> None:
    """The program is killed at its third request with points, by a service that stores duplicates."""
    azure.set_workspace(metric_rows="kept")
    run = huggingface_run(tmp_path / "run-l", points=0)
    written = [(f"m{index % 6}", index // 6, 1.0 / (index + 1)) for index in range(6 * 250)]
    write_events(run / "runs" / "Jan02_03-04-05_host" / "events.out.tfevents.1760000000.host.1.0", written)
    mirroring = Mirroring(azure, tmp_path)
    # The others are slower, so they are active when it dies.
    azure.fault("kill", match="log-batch", nth=4, when=when)
    azure.fault("stall", match="log-batch", seconds=0.2, times=0)
    assert mirroring.mirror(run, "partitions", code=None).code == -9
    azure.clear_faults()
    assert mirroring.mirror(run, "partitions").json["points"] == len(written)
    (found,) = runs_of(azure, "partitions")
    for number in range(6):
        assert points_of(azure, found.info.run_id, f"m{number}") == list(range(250))
