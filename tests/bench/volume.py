"""A pod on a slow volume: processes with a limited read rate of a block device and limited memory.

The kernel enforces both with control groups: ``blkio`` and ``memory`` in version 1, ``io`` and ``memory`` in
version 2. That requires root. Without root there are no limits, and the comparison says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
# Enters the groups and executes the command. Arguments: number of groups, their files, the command.
_ENTER = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ > "$1"; shift; n=$((n-1)); done; exec "$@"'


@dataclass(frozen=True, slots=True)
class Pod:
    """Where slow processes run. ``kind`` names what slows them; empty means that nothing does."""

    kind: str
    groups: tuple[Path, ...]
    device: str

    def command(self, command: Sequence[str | Path]) -> list[str | Path]:
        """Return the command that runs another one in the pod."""
        if not self.kind:
            return list(command)
        files = [group / "cgroup.procs" for group in self.groups]
        return ["sh", "-c", _ENTER, "sh", str(len(files)), *files, *command]

    def bytes_read(self) -> int:
        """How many bytes its processes have read from the device."""
        for group in self.groups:
            with suppress(OSError):
                for line in (group / "blkio.throttle.io_service_bytes").read_text().splitlines():
                    if line.startswith(f"{self.device} Read "):
                        return int(line.split()[2])
            with suppress(OSError):
                for line in (group / "io.stat").read_text().splitlines():
                    if line.startswith(f"{self.device} "):
                        return int(dict(part.split("=") for part in line.split()[1:])["rbytes"])
        return 0


@contextmanager
def pod(file: Path, bytes_a_second: int, memory: int) -> Iterator[Pod]:
    """Create the groups for the duration of the block.

    Args:
        file: any file on the volume.
        bytes_a_second: the read rate of the volume.
        memory: bytes for the processes and their page cache.
    """
    number = file.stat().st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    name = f"aml-mirror-bench-{os.getpid()}"
    if (GROUPS / "blkio").is_dir():
        kind = "cgroup v1"
        limits = {
            GROUPS / "blkio" / name: ("blkio.throttle.read_bps_device", f"{device} {bytes_a_second}"),
            GROUPS / "memory" / name: ("memory.limit_in_bytes", str(memory)),
        }
    else:
        kind = "cgroup v2"
        limits = {GROUPS / name: ("io.max", f"{device} rbps={bytes_a_second}")}
    made: list[Path] = []
    try:
        for group, (setting, text) in limits.items():
            group.mkdir()
            made.append(group)
            (group / setting).write_text(text)
            if kind == "cgroup v2":
                (group / "memory.max").write_text(str(memory))
        yield Pod(kind, tuple(made), device)
    except OSError:
        if len(made) == len(limits):
            raise  # it came from the code that uses the pod
        yield Pod("", (), device)
    finally:
        for group in made:
            with suppress(OSError):
                group.rmdir()


def drop_cache(file: Path) -> None:
    """Take a file out of the page cache."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def warm(file: Path) -> None:
    """Bring a file into the page cache, in this process's group.

    What a slow process reads counts for its group, whose memory is too small for the file.
    """
    drop_cache(file)
    with file.open("rb", buffering=0) as stream:
        while stream.read(8 << 20):
            pass
