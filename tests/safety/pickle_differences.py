"""Compares three readings of generated pickles: ours, that of pickletools, and that of CPython's C reader.

    PYTHONPATH=entrypoint python tests/safety/pickle_differences.py --count 100000 --seed 1

If ours sees no problem, the C reader must import nothing that ours did not see, from memory and from a file,
and pickletools must be able to read the pickle. The C reader runs in a separate process. It gets stubs for
everything that it imports, and an audit hook refuses everything else.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import pickle
import pickletools
import random
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from aml_mirror.safety.findings import Findings, MalformedPickle
from aml_mirror.safety.pickle_vm import follow

# The code of the C reader's process. It reads pickles from stdin, each after its length, and prints one line
# of JSON for each.
_READER = r"""
import io, json, pickle, resource, sys

resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
events = []
armed = False

def refuse(event, arguments):
    # What is too large makes CPython report that memory is short; nothing else is let through.
    if armed and event not in ("sys.excepthook", "sys.unraisablehook"):
        events.append(event)
        raise RuntimeError("refused: " + event)

class Stub:
    def __init__(self, *arguments, **more): pass
    def __call__(self, *arguments, **more): return Stub()
    def __setstate__(self, state): pass
    def append(self, item): pass
    def extend(self, items): pass
    def __setitem__(self, key, value): pass
    def __hash__(self): return 0

def names_in(stream):
    seen = []
    class Recorder(pickle.Unpickler):
        def find_class(self, module, name):
            seen.append(module + "." + name)
            return Stub
        def persistent_load(self, pid):
            return Stub()
    global armed
    reader = Recorder(stream)
    armed = True
    try:
        reader.load()
    except BaseException:
        pass
    finally:
        armed = False
    return seen

sys.addaudithook(refuse)
read, write = sys.stdin.buffer.read, sys.stdout.write
while len(head := read(4)) == 4:
    data = read(int.from_bytes(head, "little"))
    memory = names_in(io.BytesIO(data))
    file = names_in(io.BufferedReader(io.BytesIO(data), 16))
    write(json.dumps([memory, file, events]) + "\n")
    events.clear()
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """A pickle that is read in two ways."""

    data: bytes
    what: str


def c_readings(pickles: list[bytes]) -> list[tuple[set[str], list[str]]]:
    """Return what CPython's C reader imports for each pickle, and the audit events that it caused."""
    sent = b"".join(struct.pack("<I", len(data)) + data for data in pickles)
    done = subprocess.run(
        [sys.executable, "-I", "-c", _READER], input=sent, capture_output=True, check=True, timeout=600
    )
    readings = []
    for line in done.stdout.splitlines():
        memory, file, events = json.loads(line)
        readings.append(({*memory, *file}, events))
    return readings


def our_reading(data: bytes) -> tuple[set[str], str]:
    """Return what we see imported, and ``clean``, ``imports`` (nothing else is wrong) or ``suspicious``."""
    findings = Findings()
    try:
        follow(io.BytesIO(data), findings, lambda inside, depth: False, False)
    except MalformedPickle:
        return set(), "suspicious"
    outside = {problem for problem in findings.problems if not problem.startswith("it imports ")}
    return set(findings.names), "suspicious" if outside else "imports" if findings.problems else "clean"


def differences(pickles: list[bytes]) -> Iterator[Difference]:
    """Yield the pickles that are read in two ways, of which ours is not suspicious."""
    for data, (imported, events) in zip(pickles, c_readings(pickles), strict=True):
        if events:
            yield Difference(data, f"the reader in C did more than import: {events}")
        names, verdict = our_reading(data)
        if verdict == "suspicious":
            continue
        if unseen := {name[:200] for name in imported} - names:
            yield Difference(data, f"the reader in C imports {sorted(unseen)}, which we do not see")
        if verdict == "imports":
            continue  # pickletools reads names in ASCII only
        try:
            collections.deque(pickletools.genops(data), maxlen=0)
        except Exception as error:  # noqa: BLE001 - it raises whatever its readers raise
            yield Difference(data, f"pickletools cannot read it: {error}")


_TEXTS = ("os", "system", "collections", "OrderedDict", "id", "posix", "", "a.b", "\u00e9")


def _text(random_: random.Random) -> bytes:
    data = random_.choice(_TEXTS).encode()
    return random_.choice(
        (
            b"\x8c" + bytes([len(data)]) + data,
            b"X" + struct.pack("<I", len(data)) + data,
            b"\x8d" + struct.pack("<Q", len(data)) + data,
            b"U" + bytes([len(data)]) + data,
            b"T" + struct.pack("<I", len(data)) + data,
            b"S'" + data + b"'\n",
            b"V" + data + b"\n",
            b"C" + bytes([len(data)]) + data,
            b"B" + struct.pack("<I", len(data)) + data,
        )
    )


_SINGLE = [
    bytes([code]) for code in b"(0122RobQ)]}lt\x81\x92\x93\x85\x86\x87\x88\x89\x8f\x90\x91\x94aeds.uN\x97\x98"
]


def _number(random_: random.Random) -> bytes:
    small = random_.randrange(4)
    return random_.choice(
        (
            b"q%c" % small, b"h%c" % small, b"p%d\n" % small, b"g%d\n" % small, b"p0%d\n" % small, b"g 0\n",
            b"r" + struct.pack("<I", small), b"j" + struct.pack("<I", small), b"K%c" % small,
            b"I%d\n" % small, b"I01\n", b"I0x1\n", b"L%dL\n" % small, b"\x8a\x01%c" % small, b"F1.5\n",
            b"\x82\x01", b"P%d\n" % small, b"\x80%c" % random_.randrange(7),
        )
    )  # fmt: skip


def _import(random_: random.Random) -> bytes:
    return random_.choice(
        (
            b"cos\nsystem\n", b"cos\r\nsystem\n", b"cos \nsystem\n", b"ccollections\nOrderedDict\n",
            b"(ios\nsystem\n",
            b"\x8c\x02os\x8c\x06system\x93", b"\x8c\x02os\x94\x8c\x06system\x94\x93\x94", b"c\xc3\xa9\nx\n",
        )
    )  # fmt: skip


def _frame(random_: random.Random, rest: int) -> bytes:
    length = random_.choice(
        (0, 1, 2, 4, 8, 20, rest, rest + 1, max(0, rest - 1), random_.randrange(64), 1 << 40)
    )
    return b"\x95" + struct.pack("<Q", length)


_VALUES = (
    {"a": [1, 2.5, None, True], "b": (1, (2, 3)), "c": b"x" * 40, "long": "y" * 300},
    collections.OrderedDict(a=1, b=frozenset({2}), c=bytearray(b"z" * 20)),
    [collections.Counter("hello"), {1, 2}, 1 << 70, -1, "\u00fc" * 30],
)


def generated(count: int, seed: int) -> Iterator[bytes]:
    """Yield pickles: random programs, real ones that were changed, and both with frames anywhere."""
    random_ = random.Random(seed)
    makers = (_text, _number, _import, lambda random_: random_.choice(_SINGLE))
    for _ in range(count):
        kind = random_.randrange(3)
        if kind == 0:
            pieces = [random_.choice(makers)(random_) for _ in range(random_.randrange(1, 20))]
            if random_.random() < 0.7:
                pieces.insert(0, b"\x80%c" % random_.choice((2, 3, 4, 4, 5)))
        else:
            data = pickle.dumps(random_.choice(_VALUES), random_.randrange(6))
            cuts = sorted(random_.randrange(len(data) + 1) for _ in range(random_.randrange(4)))
            pieces = [data[i:j] for i, j in zip([0, *cuts], [*cuts, len(data)], strict=True)]
            if kind == 2:
                changed = bytearray(data)
                for _ in range(random_.randrange(1, 4)):
                    changed[random_.randrange(len(changed))] = random_.randrange(256)
                pieces = [bytes(changed)]
            pieces.insert(random_.randrange(len(pieces) + 1), random_.choice(makers)(random_))
        for _ in range(random_.choice((0, 1, 1, 2, 3))):
            at = random_.randrange(len(pieces) + 1)
            pieces.insert(at, _frame(random_, sum(map(len, pieces[at:])) + 1))
        yield b"".join(pieces) + b"."


def in_batches(pickles: Iterable[bytes], size: int = 20_000) -> Iterator[list[bytes]]:
    """Yield lists of this length."""
    batch: list[bytes] = []
    for data in pickles:
        batch.append(data)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def main() -> int:
    """Print each difference; return 1 if there is one."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--count", type=int, default=100_000)
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    seen = 0
    for batch in in_batches(generated(given.count, given.seed)):
        for difference in differences(batch):
            seen += 1
            print(difference.data, difference.what)
    print(f"{given.count} pickles, {seen} differences")
    return int(seen > 0)


if __name__ == "__main__":
    sys.exit(main())
