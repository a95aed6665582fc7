"""The points of a run, sent in a few lanes at the same time.

A request with 200 points waits for its answer for most of its time. So the series are dealt out over
``LANES`` lanes, each a thread that sends the points of its series in their order, one request after the
other; a series never leaves its lane.

Each lane has a mark of its own, a tag of the run that travels in the same request as the points: how many
of the lane's points were sent, and a digest of them. After a kill each lane continues where its mark says, as
if it were alone, so that each point is sent once, although of several requests that were on their way any
may have arrived. A lane whose digest does not hold begins anew: the files are not those of the earlier
attempt.
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

# With 30 ms a request, four lanes take a quarter of the time. More would cost a tag each, of 50 that a run
# may have, and come nearer to the rate at which Azure ML answers 429.
LANES = 4
_LOOK_SECONDS = 0.5  # how soon a reader that waits for a lane sees that another one failed
_END_SECONDS = 10.0  # after a failure or a signal, so long is waited for what is on its way


class Stopped(MirrorError):
    """A lane gives up, because another one failed; never seen outside."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Points of one lane, and the mark that says that they, and all before them, were sent."""

    lane: int
    points: list[Point]
    total: int
    digest: str

    @property
    def mark(self) -> str:
        return f"{self.total}:{self.digest}"


def tag_of(lane: int) -> str:
    """The tag that holds a lane's mark."""
    return f"{keys.POINTS}.{lane}" if lane else keys.POINTS


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
        size: of a batch.
        tags: of the run, as an earlier attempt left them.
        send: sends a batch with its mark; called by several threads, for one lane by one. What it is given
            raises :class:`Stopped` where nothing is to be sent any more: to be asked before each attempt.
        progress: told how many points were passed, sent or not.
    """
    done = _trusted(points, size, tags)
    sent = 0
    with _Senders(send) as senders:
        for batch in batches(points(), size):
            progress(len(batch.points))
            if batch.total > done.get(batch.lane, 0):
                senders.put(batch)
                sent += len(batch.points)
    return sent


def batches(points: Iterator[Point], size: int) -> Iterator[Batch]:
    """Deal the points out over the lanes: series by series, in the order in which they appear."""
    lanes: dict[str, _Lane] = {}
    all_lanes = [_Lane(number) for number in range(LANES)]
    for point in points:
        lane = lanes.get(point[0])
        if lane is None:
            lane = lanes[point[0]] = all_lanes[len(lanes) % LANES]
        lane.points.append(point)
        if len(lane.points) == size:
            yield lane.batch()
    for lane in all_lanes:
        if lane.points:
            yield lane.batch()


def canonical_batches(points: Iterator[Point], size: int) -> Iterator[Batch]:
    """Cut the points into batches of one partition."""
    only = _Lane(0)
    for point in points:
        only.points.append(point)
        if len(only.points) == size:
            yield only.batch()
    if only.points:
        yield only.batch()


@dataclass(slots=True)
class _Lane:
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
    """Lane -> how many of its points were sent, where its mark is one that these points give."""
    marks = {lane: tags[tag_of(lane)] for lane in range(LANES) if tags.get(tag_of(lane))}
    found: dict[int, int] = {}
    if not marks:
        return found
    for batch in batches(points(), size):
        if batch.mark == marks.get(batch.lane):
            found[batch.lane] = batch.total
            del marks[batch.lane]
            if not marks:
                break
    return found


class _Senders:
    """A thread a lane, made when the lane has something to send; the first failure ends them all."""

    def __init__(self, send: Callable[[Batch, Callable[[], None]], None]) -> None:
        self._send = send
        self._queues: dict[int, queue.Queue[Batch | None]] = {}
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._failure: BaseException | None = None

    def put(self, batch: Batch) -> None:
        """Hand a batch over, waiting for the one before; raises the failure of any lane."""
        if batch.lane not in self._queues:
            self._queues[batch.lane] = queue.Queue(maxsize=1)
            thread = threading.Thread(
                target=self._work, args=(self._queues[batch.lane],), name=f"points-{batch.lane}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        self._put(self._queues[batch.lane], batch)

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
        """Let nothing new begin, and wait for what is on its way: the next attempt must not overtake it."""
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
