"""Records how far the logs of a run were mirrored. It is stored with the version, so a log that grew can be
continued.

The state names each log file with the number of bytes read and their SHA-256, and each series with its name,
the number of its points, their digest and the last step. It is stored beside the version's own files. The
version's tag ``mirror.logs`` has three digests: of the sizes and of the stamps of the files, by which an
unchanged run is recognised without a request, and of the state itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aml_mirror.core.manifest import digest_of_json
from aml_mirror.layouts import Run
from aml_mirror.metrics.series import Metrics
from aml_mirror.registries import keys
from aml_mirror.registries.records import Point, log_state_digest, log_state_name
from aml_mirror.sources.tree import Tree

SCHEMA = "aml-mirror/logs/v1"
MAX_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SeriesState:
    """What was sent of one series. ``digest`` covers its points in order."""

    tag: str
    folder: str
    points: int
    digest: str
    last_step: int


@dataclass(frozen=True, slots=True)
class LogState:
    """``files``: path -> (bytes, SHA-256 of them); ``series``: name -> what was sent."""

    files: dict[str, tuple[int, str]]
    series: dict[str, SeriesState]

    @property
    def sizes(self) -> dict[str, int]:
        """Path -> bytes."""
        return {path: size for path, (size, _) in self.files.items()}

    def as_json(self) -> str:
        """The state as a text."""
        series = {
            name: {
                "tag": one.tag,
                "folder": one.folder,
                "points": one.points,
                "digest": one.digest,
                "last_step": one.last_step,
            }
            for name, one in sorted(self.series.items())
        }
        files = {
            path: {"bytes": size, "sha256": digest} for path, (size, digest) in sorted(self.files.items())
        }
        return json.dumps({"schema": SCHEMA, "files": files, "series": series}, indent=1) + "\n"

    def tag(self, stamps: str) -> LogTag:
        """The version's tag; ``stamps``: see :func:`stamps_digest`."""
        return LogTag(sizes_digest(self.sizes), hashlib.sha256(self.as_json().encode()).hexdigest(), stamps)


@dataclass(frozen=True, slots=True)
class LogTag:
    """The value of the tag ``mirror.logs``.

    ``sizes`` and ``stamps`` are 16 hexadecimal digits each, ``state`` is the SHA-256 of the state. ``stamps``
    is empty if none were recorded; then logs with the same sizes count as unchanged.
    """

    sizes: str
    state: str
    stamps: str = ""

    def __str__(self) -> str:
        return ":".join((self.sizes, self.state, *([self.stamps] if self.stamps else [])))

    @property
    def name(self) -> str:
        """The name of the file with the state."""
        return log_state_name(self.state)


def tag_of(tags: Mapping[str, str]) -> LogTag | None:
    """Return what a version's tags say about its logs; None: nothing."""
    text = tags.get(keys.LOGS, "")
    if not text:
        return None
    sizes, _, rest = text.partition(":")
    return LogTag(sizes, log_state_digest(text), rest.partition(":")[2])


def parse(data: bytes | None, tag: LogTag) -> LogState | None:
    """Parse a state; None if it is not the one that the tag names."""
    if not data or hashlib.sha256(data).hexdigest() != tag.state:
        return None
    found: dict[str, Any] = json.loads(data)
    if found.get("schema") != SCHEMA:
        return None
    return LogState(
        {path: (int(one["bytes"]), str(one["sha256"])) for path, one in found["files"].items()},
        {name: SeriesState(**one) for name, one in found["series"].items()},
    )


def log_sizes(tree: Tree, run: Run) -> dict[str, int]:
    """Return path -> bytes of every file with points: event files, the framework's logs, W&B's."""
    named = set(run.logs)
    return {
        path: entry.bytes
        for path, entry in tree.files.items()
        if path in named or ".tfevents." in path.rpartition("/")[2] or path.endswith(".wandb")
    }


def sizes_digest(sizes: Mapping[str, int]) -> str:
    """Return a digest of the sizes of logs, 16 hexadecimal digits."""
    return digest_of_json(sorted(sizes.items()))[:16]


def stamps_digest(tree: Tree, paths: Iterable[str]) -> str:
    """Return a digest of what a source says about logs besides their sizes, 16 hexadecimal digits.

    This is an ETag, or the times of a file: anything that changes when it is overwritten.
    """
    return digest_of_json([[path, tree.entry(path).stamp] for path in sorted(paths)])[:16]


def digest_of_start(tree: Tree, path: str, count: int) -> str:
    """Return the SHA-256 of the first ``count`` bytes of a file; empty if it is shorter."""
    digest = hashlib.sha256()
    with tree.open(path) as stream:
        while count > 0 and (part := stream.read(min(count, _CHUNK_BYTES))):
            digest.update(part)
            count -= len(part)
    return "" if count else digest.hexdigest()


def state_of(tree: Tree, sizes: Mapping[str, int], metrics: Metrics, sent: Recorder) -> LogState:
    """Build the state of what was just sent. Raises the errors of :meth:`Tree.open`."""
    where = {series.name: (series.tag, series.folder) for series in metrics.series}
    series = {
        name: SeriesState(*where[name], one.points, one.digest.hexdigest(), one.last_step)
        for name, one in sent.series.items()
    }
    files = {path: (size, digest_of_start(tree, path, size)) for path, size in sizes.items()}
    return LogState(files, series)


@dataclass(slots=True)
class _Running:
    points: int = 0
    last_step: int = -(1 << 63)
    digest: Any = field(default_factory=hashlib.sha256)


class Recorder:
    """Counts and digests the points of each series while they are streamed.

    ``is_whole`` says whether ``series`` covers a stream that was read to its end.
    """

    def __init__(self) -> None:
        self.series: dict[str, _Running] = {}
        self.is_whole = False

    def recording(self, points: Callable[[], Iterator[Point]]) -> Iterator[Point]:
        """Yield the points, and record them."""
        self.is_whole = False
        found: dict[str, _Running] = {}
        self.series = found
        for point in points():
            _take(found, point)
            yield point
        self.series, self.is_whole = found, True

    def take(self, point: Point) -> _Running:
        """Add one point; return the current state of its series."""
        return _take(self.series, point)


def _take(series: dict[str, _Running], point: Point) -> _Running:
    one = series.setdefault(point[0], _Running())
    one.points += 1
    one.last_step = max(one.last_step, point[3])
    one.digest.update(repr(point).encode())
    return one
