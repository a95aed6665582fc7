"""The order of the tests: the long ones first, and spread over the workers; or any order that a seed says.

xdist's ``worksteal`` hands each worker one stretch of the collected tests, of equal length, and moves tests
later from the end of the longest queue. Left in the order of the files, one worker has all that is slow.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence

import pytest

# Tests that wait for the image, which is built once: one worker has them all, first.
IMAGE = "tests/image/"
# Files whose single tests take longest.
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
    """Return the tests so that each of the workers' stretches begins with its share of the long ones.

    Every worker has to come to the same order, so that it depends on the tests' names alone.
    """
    count = max(workers, 1)
    # As xdist cuts them (worksteal.py, check_schedule).
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
    # The largest files first, each where most room is: a file stays together where it can, since what its
    # tests share is made once.
    for tests in sorted(files.values(), key=lambda tests: -len(tests)):
        while tests:
            room = [size - len(first[at]) - len(then[at]) for at, size in enumerate(sizes)]
            at = room.index(max(room))
            then[at] += tests[: max(room[at], 1)]
            tests = tests[max(room[at], 1) :]
    place = {item: number for number, item in enumerate(items)}
    return [item for at in range(count) for item in (*first[at], *sorted(then[at], key=place.__getitem__))]


def share(items: Sequence[pytest.Item], part: str) -> list[pytest.Item]:
    """Return the tests of one part, such as ``2/3``, in their order; the parts have no test in common.

    Raises:
        ValueError: there is no such part.
    """
    number, _, count = part.partition("/")
    if not 1 <= int(number) <= int(count):
        raise ValueError(f"TEST_SHARE={part}: write 1/3, 2/3 or 3/3")
    # By a checksum: what is beside each other in a matrix is spread over the parts.
    return [item for item in items if zlib.crc32(item.nodeid.encode()) % int(count) == int(number) - 1]


def shuffled(items: Sequence[pytest.Item], seed: str) -> list[pytest.Item]:
    """Return the tests in the random order of a seed: the files, and the tests of each."""
    chance = random.Random(seed)
    files: dict[str, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.nodeid.partition("::")[0], []).append(item)
    names = list(files)
    chance.shuffle(names)
    for name in names:
        chance.shuffle(files[name])
    return [item for name in names for item in files[name]]
