"""Points in marked batches: each is sent once, whatever an earlier attempt sent. If points differ, none is
sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aml_mirror.registries import log_batches
from aml_mirror.registries.log_batches import in_batches
from aml_mirror.registries.marked_points import send_points
from aml_mirror.registries.records import Point

Sent = list[tuple[list[Point], str]]


def points(count: int, name: str = "loss") -> list[Point]:
    return [(name, float(step), 1_760_000_000_000 + step, step) for step in range(count)]


def send(rows: list[Point], size: int, mark: str = "") -> tuple[Sent, tuple[int, int], list[int]]:
    sent: Sent = []
    progress: list[int] = []
    count = send_points(lambda: iter(rows), size, mark, lambda *one: sent.append(one), progress.append)
    return sent, count, progress


def test_all_go_in_their_order_with_a_running_mark() -> None:
    rows = points(7)
    sent, count, progress = send(rows, 3)
    assert [row for batch, _ in sent for row in batch] == rows
    assert [len(batch) for batch, _ in sent] == [3, 3, 1] == progress
    assert count == (7, 7)
    marks = [mark for _, mark in sent]
    assert [mark.partition(":")[0] for mark in marks] == ["3", "6", "7"]
    assert len({mark.partition(":")[2] for mark in marks}) == 3


@given(st.integers(0, 20), st.integers(1, 6), st.data())
def test_what_an_earlier_try_sent_is_not_sent_again(total: int, size: int, data: st.DataObject) -> None:
    rows = points(total)
    whole, _, _ = send(rows, size)
    at = data.draw(st.integers(0, len(whole)))
    sent, count, progress = send(rows, size, whole[at - 1][1] if at else "")
    assert sent == whole[at:]
    assert count == (sum(len(batch) for batch, _ in sent), total)
    assert sum(progress) == total


def test_an_earlier_try_may_have_sent_many() -> None:
    # More than 256, because Python shares one object per smaller number.
    mark = send(points(1500), 500)[0][1][1]
    sent, count, _ = send(points(1500), 500, mark)
    assert [row for batch, _ in sent for row in batch] == points(1500)[1000:]
    assert count == (500, 1500)


@pytest.mark.parametrize("change", ["another value", "another name", "fewer", "none"])
def test_a_mark_of_other_points_counts_for_nothing(change: str) -> None:
    rows = points(7)
    mark = send(rows, 3)[0][1][1]
    other = {
        "another value": [*rows[:2], ("loss", 99.0, rows[2][2], 2), *rows[3:]],
        "another name": points(7, "reward"),
        "fewer": rows[:5],
        "none": [],
    }[change]
    assert send(other, 3, mark)[0] == send(other, 3)[0]


def test_a_mark_of_other_points_counts_for_nothing_one_by_one() -> None:
    mark = send(points(2, "reward"), 1)[0][0][1]
    assert send(points(3), 1, mark)[1] == (3, 3)


def test_points_that_came_behind_do_not_matter_to_a_mark() -> None:
    mark = send(points(6), 3)[0][1][1]
    sent, count, _ = send(points(8), 3, mark)
    assert [row for batch, _ in sent for row in batch] == points(8)[6:]
    assert count == (2, 8)


@pytest.mark.parametrize("mark", ["", ":", "x:y", "-3:abc", "3", "3:", "²:abc"])
def test_a_mark_that_is_none(mark: str) -> None:
    assert send(points(4), 3, mark)[1] == (4, 4)


def test_a_batch_holds_no_more_rows_than_the_server_takes() -> None:
    assert [len(batch) for batch in in_batches(iter(range(7)), 3, str)] == [3, 3, 1]
    assert list(in_batches(iter([]), 3, str)) == []


@given(st.lists(st.text(min_size=1), max_size=30), st.integers(1, 10))
def test_a_batch_holds_no_more_bytes_than_a_proxy_takes(texts: list[str], size: int) -> None:
    def cost(batch: list[str]) -> int:
        return sum(log_batches.ROW_BYTES + len(json.dumps(text)) for text in batch)

    most = log_batches.ROW_BYTES * 3
    batches = list(_batches(texts, size, most))
    assert [text for batch in batches for text in batch] == texts
    for at, batch in enumerate(batches):
        assert len(batch) <= size
        assert cost(batch) <= most or len(batch) == 1
        if at:
            # No batch ends before it must.
            before = batches[at - 1]
            assert len(before) == size or cost([*before, batch[0]]) > most


@pytest.mark.parametrize(("most", "sizes"), [(510, [2, 2, 2]), (509, [1] * 6)])
def test_a_batch_is_filled_to_the_last_byte(most: int, sizes: list[int]) -> None:
    # Each takes 170 bytes in addition to its text, and 85 in JSON.
    assert [len(batch) for batch in _batches(["x" * 83] * 6, 10, most)] == sizes


def test_names_of_metrics_count_as_what_they_take() -> None:
    """Names make a batch long; values and steps do not."""
    rows = points(4, "x" * (log_batches.BATCH_BYTES // 2))
    assert [len(batch) for batch, _ in send(rows, 1000)[0]] == [1, 1, 1, 1]


def _batches(texts: list[str], size: int, most: int) -> Iterator[list[str]]:
    whole = log_batches.BATCH_BYTES
    log_batches.BATCH_BYTES = most
    try:
        yield from in_batches(iter(texts), size, lambda text: text)
    finally:
        log_batches.BATCH_BYTES = whole
