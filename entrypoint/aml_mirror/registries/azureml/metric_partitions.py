"""Sends the points of a run in several partitions at the same time.

A request with 200 points mostly waits for its answer. So the series are distributed over ``PARTITIONS``
partitions. Each partition is a thread that sends the points of its series in order, one request after the
other. A series is always in the same partition.

Each partition has a mark: a tag of the run with the number of its points that were sent, and their digest.
The mark is part of the same request as the points. After a kill each partition continues at its own mark. So
each point is sent once, no matter which of the pending requests arrived. If the digest of a partition does
not match, the files have changed since the earlier attempt, and the partition starts again.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aml_mirror.core.errors import MirrorError
from aml_mirror.registries import keys
from aml_mirror.registries.records import Point

# With 30 ms per request, four partitions take a quarter of the time. Each further one would use one of the 50
# tags that a run may have, and bring the rate closer to the one at which Azure ML answers 429.
PARTITIONS = 4
_LOOK_SECONDS = 0.5  # How quickly a reader that waits for a partition notices that another one failed.
_END_SECONDS = 10.0  # After a failure or a signal, how long to wait for requests that are under way.


class Stopped(MirrorError):
    """A partition stops because another one failed. Never leaves this module."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Points of one partition, and the mark that says that they, and all before them, were sent."""

    partition: int
    points: list[Point]
    total: int
    digest: str

    @property
    def mark(self) -> str:
        return f"{self.total}:{self.digest}"


def tag_of(partition: int) -> str:
    """The tag that holds a partition's mark."""
    return f"{keys.POINTS}.{partition}" if partition else keys.POINTS


def log_points(
    points: Callable[[], Iterator[Point]],
    size: int,
    tags: Mapping[str, str],
    send: Callable[[Batch, Callable[[], None]], None],
    progress: Callable[[int], None],
) -> int:
    """Send the points that an earlier attempt did not; return how many.

    Args:
        points: yields them, the same in each call.
        size: the size of a batch, in points.
        tags: the run's tags from an earlier attempt.
        send: sends a batch with its mark. Each partition calls it from a thread of its own. Its argument
            raises :class:`Stopped` if nothing more is to be sent, and is called before each attempt.
        progress: called with the number of points that were processed, sent or not.
    """
    done = _trusted(points, size, tags)
    sent = 0
    with _Senders(send) as senders:
        for batch in batches(points(), size):
            progress(len(batch.points))
            if batch.total > done.get(batch.partition, 0):
                senders.put(batch)
                sent += len(batch.points)
    return sent


def batches(points: Iterator[Point], size: int) -> Iterator[Batch]:
    """Distribute the points over the partitions, series by series, in the order in which they appear."""
    partitions: dict[str, _Partition] = {}
    all_partitions = [_Partition(number) for number in range(PARTITIONS)]
    for point in points:
        partition = partitions.get(point[0])
        if partition is None:
            partition = partitions[point[0]] = all_partitions[len(partitions) % PARTITIONS]
        partition.points.append(point)
        if len(partition.points) == size:
            yield partition.batch()
    for partition in all_partitions:
        if partition.points:
            yield partition.batch()


def canonical_batches(points: Iterator[Point], size: int) -> Iterator[Batch]:
    """Cut the points into batches of one partition."""
    only = _Partition(0)
    for point in points:
        only.points.append(point)
        if len(only.points) == size:
            yield only.batch()
    if only.points:
        yield only.batch()


@dataclass(slots=True)
class _Partition:
    number: int
    points: list[Point] = field(default_factory=list)
    total: int = 0
    running: Any = field(default_factory=hashlib.sha256)

    def batch(self) -> Batch:
        points, self.points = self.points, []
        self.total += len(points)
        self.running.update(repr(points).encode())
        return Batch(self.number, points, self.total, self.running.hexdigest())


def _trusted(points: Callable[[], Iterator[Point]], size: int, tags: Mapping[str, str]) -> dict[int, int]:
    """Partition -> how many of its points were sent, if these points produce its mark."""
    marks = {
        partition: tags[tag_of(partition)] for partition in range(PARTITIONS) if tags.get(tag_of(partition))
    }
    found: dict[int, int] = {}
    if not marks:
        return found
    for batch in batches(points(), size):
        if batch.mark == marks.get(batch.partition):
            found[batch.partition] = batch.total
            del marks[batch.partition]
            if not marks:
                break
    return found


class _Senders:
    """One thread per partition, created when it has something to send. The first failure ends all."""

    def __init__(self, send: Callable[[Batch, Callable[[], None]], None]) -> None:
        self._send = send
        self._queues: dict[int, queue.Queue[Batch | None]] = {}
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._failure: BaseException | None = None

    def put(self, batch: Batch) -> None:
        """Pass on a batch, waiting for the one before. Raises the failure of any partition."""
        if batch.partition not in self._queues:
            self._queues[batch.partition] = queue.Queue(maxsize=1)
            thread = threading.Thread(
                target=self._work,
                args=(self._queues[batch.partition],),
                name=f"points-{batch.partition}",
                daemon=True,
            )
            self._threads.append(thread)
            thread.start()
        self._put(self._queues[batch.partition], batch)

    def __enter__(self) -> _Senders:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            try:
                for waiting in self._queues.values():
                    self._put(waiting, None)
                for thread in self._threads:
                    while thread.is_alive():
                        thread.join(_LOOK_SECONDS)
                        self._raise()
                self._raise()
            except BaseException:
                self._end()
                raise
            return
        self._end()

    def _end(self) -> None:
        """Let nothing new begin, and wait for requests under way: the next attempt must not overtake them."""
        self._stop.set()
        for thread in self._threads:
            thread.join(_END_SECONDS / len(self._threads))

    def _put(self, waiting: queue.Queue[Batch | None], item: Batch | None) -> None:
        while True:
            self._raise()
            try:
                return waiting.put(item, timeout=_LOOK_SECONDS)
            except queue.Full:
                continue

    def _work(self, waiting: queue.Queue[Batch | None]) -> None:
        while not self._stop.is_set():
            try:
                batch = waiting.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                continue
            if batch is None:
                return
            try:
                self._send(batch, self._go_on)
            except BaseException as error:  # noqa: BLE001 - raised again by who waits
                with self._lock:
                    self._failure = self._failure or error
                self._stop.set()
                return

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise Stopped("another request failed")

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure
