"""The order of the tests: the long ones first, spread over the workers; or a random order from a seed.

xdist's ``worksteal`` gives each worker an equal part of the collected tests, and later moves tests from the
end of the longest queue. In the order of the files, one worker would have all the slow tests.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence

import pytest

# Tests that wait for the image, which is built once: one worker has all of them, first.
IMAGE = "tests/image/"
# Files with the longest single tests.
LONG = (
    "tests/azure/test_azureml_at_once.py",
    "tests/azure/test_azureml_fault_matrix.py",
    "tests/azure/test_azureml_kill.py",
    "tests/backfill/test_backfill_many.py",
    "tests/osmo/test_pod.py",
    "tests/registries/test_mlflow_kill.py",
    "tests/terraform/test_aks.py",
    "tests/terraform/test_api_mode.py",
)


def dealt(items: Sequence[pytest.Item], workers: int) -> list[pytest.Item]:
    """Return the tests in such an order that each worker's part begins with its share of the long ones.

    Every worker must compute the same order, so it depends only on the tests' names.
    """
    count = max(workers, 1)
    # As xdist divides them (worksteal.py, check_schedule).
    sizes = [len(items) // count + (number >= count - len(items) % count) for number in range(count)]
    first: list[list[pytest.Item]] = [[] for _ in sizes]
    first[0] += [item for item in items if item.nodeid.startswith(IMAGE)]
    long = [item for item in items if item.nodeid.startswith(LONG)]
    for number, item in enumerate(long):
        first[1 + number % (count - 1) if count > 1 else 0].append(item)
    files: dict[str, list[pytest.Item]] = {}
    for item in items:
        if not item.nodeid.startswith((IMAGE, *LONG)):
            files.setdefault(item.nodeid.partition("::")[0], []).append(item)
    then: list[list[pytest.Item]] = [[] for _ in sizes]
    # The largest files first, each where there is most room. A file stays together if possible, because its
    # tests share fixtures.
    for tests in sorted(files.values(), key=lambda tests: -len(tests)):
        while tests:
            room = [size - len(first[at]) - len(then[at]) for at, size in enumerate(sizes)]
            at = room.index(max(room))
            then[at] += tests[: max(room[at], 1)]
            tests = tests[max(room[at], 1) :]
    place = {item: number for number, item in enumerate(items)}
    return [item for at in range(count) for item in (*first[at], *sorted(then[at], key=place.__getitem__))]


def share(items: Sequence[pytest.Item], part: str) -> list[pytest.Item]:
    """Return the tests of one part, such as ``2/3``, in order. The parts have no test in common.

    Raises:
        ValueError: there is no such part.
    """
    number, _, count = part.partition("/")
    if not 1 <= int(number) <= int(count):
        raise ValueError(f"TEST_SHARE={part}: write 1/3, 2/3 or 3/3")
    # By a checksum, so that neighbours in a matrix are spread over the parts.
    return [item for item in items if zlib.crc32(item.nodeid.encode()) % int(count) == int(number) - 1]


def shuffled(items: Sequence[pytest.Item], seed: str) -> list[pytest.Item]:
    """Return the tests in a random order from a seed: the files, and the tests of each."""
    chance = random.Random(seed)
    files: dict[str, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.nodeid.partition("::")[0], []).append(item)
    names = list(files)
    chance.shuffle(names)
    for name in names:
        chance.shuffle(files[name])
    return [item for name in names for item in files[name]]
