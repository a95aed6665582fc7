"""Sends points of a run in a fixed order, batch by batch, with a mark that says how far the run is.

The mark is sent in the same request as the batch. It is ``COUNT:DIGEST``, with the digest over all batches so
far. It shows whether the points are still those of the earlier attempt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from aml_mirror.registries.log_batches import in_batches
from aml_mirror.registries.records import Point


def send_points(
    points: Callable[[], Iterator[Point]],
    size: int,
    mark: str,
    send: Callable[[list[Point], str], None],
    progress: Callable[[int], None] = lambda count: None,
) -> tuple[int, int]:
    """Send the points, continuing where an earlier attempt ended.

    Args:
        points: yields them, the same in each call.
        size: the size of a batch, in points.
        mark: the last one that was sent, or "".
        send: sends one batch with its mark.
        progress: called with the number of points of each batch.

    Returns:
        How many were sent, and how many there are.
    """
    count, digest = _parse(mark)
    if count and _digest_of(points(), size, count) != digest:
        count = 0
    running = hashlib.sha256()
    total = sent = 0
    for batch in in_batches(points(), size, _name):
        running.update(repr(batch).encode())
        total += len(batch)
        progress(len(batch))
        if total <= count:
            continue
        send(batch, f"{total}:{running.hexdigest()}")
        sent += len(batch)
    return sent, total


def _name(point: Point) -> str:
    return point[0]


def _parse(text: str) -> tuple[int, str]:
    count, _, digest = text.partition(":")
    return (int(count), digest) if count.isdecimal() else (0, "")


def _digest_of(points: Iterator[Point], size: int, count: int) -> str:
    """Return the digest of the first ``count`` points; empty if ``count`` is inside a batch."""
    running = hashlib.sha256()
    total = 0
    for batch in in_batches(points, size, _name):
        running.update(repr(batch).encode())
        total += len(batch)
        if total >= count:
            break
    return running.hexdigest() if total == count else ""
