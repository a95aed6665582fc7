"""Comparisons: run the sides in turn, compare the medians, and judge each goal.

A side is a separate process that does one job and prints one line of JSON, a :class:`Sample`. The sides of a
comparison alternate, and the order rotates with each round, so that a machine that gets slower affects all of
them. Every sample says what work it did. If the work of two samples differs, the comparison fails.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROUNDS = 3
MB = 1_000_000


class BenchError(Exception):
    """A side failed, or did different work than the others."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The result of one run of a side.

    ``seconds`` is the time of the job alone, without the start of the process, unless the comparison is about
    that. ``resident`` is the peak memory of the process in bytes (VmHWM). ``work`` says what was done.
    ``facts`` are further columns of the table.
    """

    seconds: float
    resident: int = 0
    work: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)
    # CPU time of this job on all cores, without other processes.
    cpu: float = 0.0
    # What the process printed if that is not a sample.
    said: str = ""


@dataclass(frozen=True, slots=True)
class Side:
    """One way to do the job, and what it represents."""

    name: str
    stands_for: str
    run: Callable[[], Sample]
    # How many times larger the job is than what the side did, for sides that are too slow to do all of it.
    extrapolated: float = 1.0
    # A side that does no job and only gives a number to compare with.
    is_yardstick: bool = False
    # At most this many rounds, for a slow side whose time hardly varies. None: as many as the others.
    rounds: int | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """The medians of a side."""

    name: str
    stands_for: str
    seconds: float
    cpu: float
    resident: int
    facts: dict[str, float]
    samples: list[float]
    extrapolated: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "side": self.name,
            "stands_for": self.stands_for,
            "seconds": round(self.seconds, 4),
            "cpu_seconds": round(self.cpu, 4),
            "resident_mb": round(self.resident / MB, 1),
            "facts": {name: round(value, 4) for name, value in self.facts.items()},
            "samples": [round(value, 4) for value in self.samples],
            "extrapolated": self.extrapolated,
        }


@dataclass(frozen=True, slots=True)
class Goal:
    """``measure`` of the medians must be at least, or at most, ``limit``. None: it is only printed."""

    text: str
    limit: float | None
    at_most: bool
    measure: Callable[[Mapping[str, Measured]], float]
    unit: str = "×"
    # What prevents the goal from being met, according to a profile.
    obstacle: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """A goal and its result."""

    text: str
    measured: float
    unit: str
    met: bool | None
    obstacle: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "goal": self.text,
            "measured": round(self.measured, 3),
            "unit": self.unit,
            "met": self.met,
            "obstacle": "" if self.met else self.obstacle,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several sides with the same job."""

    name: str
    title: str
    sides: Sequence[Side]
    goals: Sequence[Goal]
    ours: str
    rounds: int = ROUNDS
    note: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a comparison."""

    name: str
    title: str
    ours: str
    rounds: int
    note: str
    sides: list[Measured]
    goals: list[Judged]

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "rounds": self.rounds,
            "note": self.note,
            "ours": self.ours,
            "sides": [side.as_dict() for side in self.sides],
            "goals": [goal.as_dict() for goal in self.goals],
        }


def compare(comparison: Comparison, rounds: int | None = None, say: Callable[[str], None] = print) -> Result:
    """Run all sides in turn and judge the goals.

    Raises:
        BenchError: a side failed, or the sides did not do the same work.
    """
    rounds = rounds or comparison.rounds
    samples: dict[str, list[Sample]] = {side.name: [] for side in comparison.sides}
    for number in range(rounds):
        turn = number % len(comparison.sides)
        for side in [*comparison.sides[turn:], *comparison.sides[:turn]]:
            if side.rounds is not None and number >= side.rounds:
                continue
            sample = side.run()
            samples[side.name].append(sample)
            say(f"  {number + 1}/{rounds} {side.name}: {sample.seconds:.2f} s, {sample.resident / MB:.0f} MB")
    _require_same_work(comparison, samples)
    measured = {side.name: _median(side, samples[side.name]) for side in comparison.sides}
    return Result(
        comparison.name,
        comparison.title,
        comparison.ours,
        rounds,
        comparison.note,
        list(measured.values()),
        [_judge(goal, measured) for goal in comparison.goals],
    )


def _require_same_work(comparison: Comparison, samples: Mapping[str, Sequence[Sample]]) -> None:
    first: Mapping[str, Any] | None = None
    for side in comparison.sides:
        if side.is_yardstick:
            continue
        for sample in samples[side.name]:
            work = {
                name: value if isinstance(value, str) else value * side.extrapolated
                for name, value in sample.work.items()
            }
            if first is None:
                first = work
            if not work or work != first:
                raise BenchError(f"{comparison.name}: {side.name} did {work}, another side {first}")


def _median(side: Side, samples: Sequence[Sample]) -> Measured:
    seconds = [sample.seconds * side.extrapolated for sample in samples]
    names = {name for sample in samples for name in sample.facts}
    return Measured(
        side.name,
        side.stands_for,
        statistics.median(seconds),
        statistics.median(sample.cpu for sample in samples) * side.extrapolated,
        round(statistics.median(sample.resident for sample in samples)),
        {name: statistics.median(sample.facts[name] for sample in samples) for name in sorted(names)},
        seconds,
        side.extrapolated,
    )


def _judge(goal: Goal, measured: Mapping[str, Measured]) -> Judged:
    value = goal.measure(measured)
    if goal.limit is None:
        return Judged(goal.text, value, goal.unit, None, "")
    met = value <= goal.limit if goal.at_most else value >= goal.limit
    return Judged(goal.text, value, goal.unit, met, goal.obstacle)


def times_faster(ours: str, other: str) -> Callable[[Mapping[str, Measured]], float]:
    """How many times as long another side takes as ours."""
    return lambda measured: measured[other].seconds / measured[ours].seconds


def times_as_long(ours: str, other: str) -> Callable[[Mapping[str, Measured]], float]:
    """How many times as long ours takes as another side."""
    return lambda measured: measured[ours].seconds / measured[other].seconds


def run_side(
    command: Sequence[str | Path],
    environment: Mapping[str, str],
    folder: Path | None = None,
    prints_sample: bool = True,
    codes: Sequence[int] = (0,),
) -> Sample:
    """Run a process and return its sample. If it prints none, return its total time and its largest VmHWM.

    Raises:
        BenchError: it failed. The error contains its output.
    """
    started = time.perf_counter()
    before = _cpu_of_children()
    process = subprocess.Popen(
        [str(part) for part in command],
        env=dict(environment),
        # Never in the checkout, because some libraries leave files in the working directory.
        cwd=folder or tempfile.gettempdir(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak = _Peak(process.pid)
    out, err = process.communicate()
    seconds = time.perf_counter() - started
    cpu = _cpu_of_children() - before
    resident = peak.stop()
    if process.returncode not in codes:
        raise BenchError(f"{' '.join(map(str, command))[:300]}: exit {process.returncode}\n{out}\n{err}")
    if not prints_sample:
        return Sample(seconds, resident, cpu=cpu, said=out)
    found = json.loads(out.splitlines()[-1])
    return Sample(found["seconds"], found["resident"], found["work"], found["facts"], found["cpu"])


def _cpu_of_children() -> float:
    """CPU seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class _Peak:
    """The peak memory of a process, sampled while it runs.

    The kernel's own figure for an ended process (ru_maxrss) starts with that of its parent.
    """

    def __init__(self, pid: int) -> None:
        self._path = f"/proc/{pid}/status"
        self._largest = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self._largest = max(self._largest, resident_of(self._path))

    def stop(self) -> int:
        self._stop.set()
        self._thread.join()
        return self._largest


def resident_of(path: str) -> int:
    """The VmHWM in a ``/proc/PID/status``, in bytes; 0 if the process has ended."""
    try:
        with open(path, encoding="ascii", errors="replace") as stream:
            for line in stream:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def machine() -> dict[str, Any]:
    """The machine that the figures were measured on."""
    with open("/proc/meminfo", encoding="ascii") as stream:
        memory = int(stream.readline().split()[1]) * 1024
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / (1 << 30)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
