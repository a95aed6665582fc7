"""ordering.py: every test runs once, each worker starts with long tests, and a seed always gives the same
order.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from builders.ordering import IMAGE, LONG, dealt, share, shuffled


@dataclass(frozen=True)
class Item:
    nodeid: str


def items() -> Any:
    files = {f"{IMAGE}test_a.py": 7, LONG[0]: 5, LONG[1]: 9, "tests/core/a.py": 90, "tests/core/b.py": 3}
    return [Item(f"{name}::test_{number}") for name, count in files.items() for number in range(count)]


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 8, 200])
def test_each_worker_begins_with_its_share_of_the_long_ones(workers: int) -> None:
    order = dealt(items(), workers)
    assert Counter(order) == Counter(items())
    start, long = 0, []
    for left in range(workers, 0, -1):
        count = (len(order) - start) // left
        stretch, start = order[start : start + count], start + count
        is_long = [item.nodeid.startswith((IMAGE, *LONG)) for item in stretch]
        assert workers > 20 or is_long == sorted(is_long, reverse=True)
        long.append(sum(is_long))
    if 1 < workers < 20:
        assert long[0] == 7 and max(long[1:]) - min(long[1:]) <= 1


def test_a_seed_has_one_order() -> None:
    assert shuffled(items(), "1") == shuffled(items(), "1") != shuffled(items(), "2")
    assert Counter(shuffled(items(), "1")) == Counter(items())


def test_every_test_is_in_one_share() -> None:
    shares = [share(items(), f"{number}/3") for number in (1, 2, 3)]
    assert Counter(item for found in shares for item in found) == Counter(items())
    assert min(map(len, shares)) > len(items()) // 5
    for part in ("0/3", "4/3", "x"):
        with pytest.raises(ValueError):
            share(items(), part)
