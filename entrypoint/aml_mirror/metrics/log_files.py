"""Reads points from frameworks' own logs, for runs without TensorBoard event files.

:mod:`aml_mirror.metrics.readers.log_formats` parses them. None of them says when a point was logged. So the
wall time is made from the step: one millisecond per step after the epoch. It is the same wherever and
whenever the file is read, so a batch that is sent twice has the same rows. It follows the order of the steps.
And it is clearly not a real date, unlike a file's time or the time of the mirror.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from aml_mirror.core.errors import DataError
from aml_mirror.metrics.readers.event_file import Point
from aml_mirror.metrics.readers.log_formats import STEPS, Malformed
from aml_mirror.metrics.readers.other_logs import reader_of
from aml_mirror.sources.tree import Tree

_CHECKPOINT = re.compile(r"(^|/)checkpoint-\d+$")
# The series that SB3's EvalCallback logs for each evaluation in evaluations.npz.
_EVALUATED = "eval/mean_reward"


class LogFile:
    """The points of one framework's log. Iterate once. ``path`` is relative to the tree.

    Malformed entries are counted, or end the log; ``ended`` says why. Raises the errors of :meth:`Tree.open`.
    """

    def __init__(self, tree: Tree, path: str) -> None:
        self.name = path
        self.points = 0
        # Entries or lines without a usable step, and numbers that no float can represent.
        self.skipped_records = 0
        # Points that are repeated later in the same file; they are not yielded.
        self.superseded = 0
        self.ended: str | None = None
        self.purge_step: int | None = None
        self._tree = tree

    def __iter__(self) -> Iterator[Point]:
        read = reader_of(self.name)
        if read is None:
            self.ended = "it is not a log from which metrics can be read"
            return
        try:
            for tag, step, value in read(self):
                self.points += 1
                yield tag, step, wall_time(step), value
        except Malformed as error:
            self.ended = str(error)

    def open(self) -> BinaryIO:
        return self._tree.open(self.name)

    def size(self) -> int:
        return self._tree.size(self.name)

    def json(self) -> Any:
        # A file that changed or cannot be read must not count as malformed: only parse errors are caught.
        self.open().close()
        try:
            return self._tree.read_json(self.name)
        except DataError as error:
            raise Malformed(error.message.removeprefix(self.name).strip()) from error


def wall_time(step: int) -> float:
    """Return the time for a step, in seconds since the epoch: a millisecond per step, at least 0."""
    return max(step, 0) / 1000


def newest(tree: Tree, paths: list[str]) -> list[str]:
    """Return the logs to read. Of several copies of a log, only the longest one is returned.

    HF writes the whole history into every ``checkpoint-N`` and, when the trainer's state is saved, into the
    output folder. All copies of one training repeat the same points. SB3's ``progress.csv``, if it was
    written, contains the same values as ``evaluations.npz``.
    """
    chosen: list[str] = []
    copies: dict[str, list[str]] = {}
    for path in sorted(set(paths)):
        folder, _, name = path.rpartition("/")
        if name == "trainer_state.json":
            copies.setdefault(_CHECKPOINT.sub("", folder), []).append(path)
        else:
            chosen.append(path)
    for found in copies.values():
        if len(found) > 1:
            found.sort(key=lambda path: (_last_step(tree, path), -path.count("/"), path))
        chosen.append(found[-1])
    # RLlib also writes the contents of result.json to progress.csv.
    tables = {path.rpartition("/")[0] for path in chosen if _named(path, "progress.csv")}
    chosen = [
        path for path in chosen if not (_named(path, "result.json") and path.rpartition("/")[0] in tables)
    ]
    if any(_named(path, "progress.csv") and _holds(tree, path, _EVALUATED) for path in chosen):
        chosen = [path for path in chosen if not _named(path, "evaluations.npz")]
    return sorted(chosen)


def _named(path: str, name: str) -> bool:
    return path.rpartition("/")[2] == name


def _holds(tree: Tree, path: str, wanted: str) -> bool:
    return any(tag == wanted for tag, _, _, _ in LogFile(tree, path))


def _last_step(tree: Tree, path: str) -> int:
    return max((step for _, step, _, _ in LogFile(tree, path)), default=STEPS.start)
