"""What every side does: measure the time of its job, and describe the work in one line of JSON.

Runs in environments without our program.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def arguments() -> dict[str, Any]:
    """The harness's request."""
    return json.loads(sys.argv[1])


class Timer:
    """The job: ``with Timer() as timer: …``."""

    seconds = started = 0.0
    cpu = 0.0

    def __enter__(self) -> Timer:
        self.started, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *failure: object) -> None:
        self.seconds = time.perf_counter() - self.started
        self.cpu = time.process_time() - self._cpu


def resident() -> int:
    """The peak memory of this process in bytes."""
    with open("/proc/self/status", encoding="ascii") as stream:
        for line in stream:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def report(timer: Timer, work: dict[str, Any], **facts: float) -> None:
    """Print the sample."""
    taken = {"seconds": timer.seconds, "cpu": timer.cpu, "resident": resident()}
    print(json.dumps({**taken, "work": work, "facts": facts}))
