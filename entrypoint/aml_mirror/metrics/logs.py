"""Points from the logs that frameworks write themselves, for runs without TensorBoard event files.

- ``trainer_state.json`` (HF Trainer): ``log_history`` holds one object a log call. Tags are those that
  the Trainer's own TensorBoard callback would have written: ``eval_x`` -> ``eval/x``, ``test_x`` ->
  ``test/x``, all else ``train/x``.
- ``logs.json.txt`` (Diffusion Policy): one JSON object a line, with ``global_step``. A resumed training
  appends, so a line whose step is smaller than that of the line before restates everything from there.
- ``evaluations.npz`` (Stable-Baselines3): an evaluation a row; the tags are those of its EvalCallback.

None of them says when a point was logged. The wall time is therefore made from the step, one millisecond
a step after the epoch: the same wherever and whenever the file is read, so that a batch sent twice is the
same rows; in the order of the steps; and plainly no real date, which a file's time or the time of the
mirror would pretend to be.
"""

from __future__ import annotations

import io
import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from aml_mirror.errors import DataError
from aml_mirror.formats.npy import read_rows
from aml_mirror.metrics.events import MAX_TAG, TRUNCATED, Point
from aml_mirror.sources.tree import Tree

# One line of logs.json.txt, in bytes; real ones take some hundred.
MAX_LINE = 1 << 20
# One .npz, in bytes.
MAX_ARCHIVE = 32 << 20

_STEPS = range(-(1 << 63), 1 << 63)
_CHECKPOINT = re.compile(r"(^|/)checkpoint-\d+$")


class LogFile:
    """The points of one log of a framework. It can be iterated once; ``path`` is relative to the tree.

    What is malformed is counted, or ends the log; ``ended`` says why. Raises as :meth:`Tree.open`.
    """

    def __init__(self, tree: Tree, path: str) -> None:
        self.name = path
        self.points = 0
        # Entries or lines that hold no usable step, and numbers that no float can hold.
        self.skipped_records = 0
        # Points restated later in the same file, not yielded.
        self.superseded = 0
        self.ended: str | None = None
        self.purge_step: int | None = None
        self._tree = tree

    def __iter__(self) -> Iterator[Point]:
        read = _READERS.get(self.name.rpartition("/")[2])
        if read is None:
            self.ended = "it is no log that can be read for metrics"
            return
        try:
            for tag, step, value in read(self):
                self.points += 1
                yield tag, step, wall_time(step), value
        except _Malformed as error:
            self.ended = str(error)

    def open(self) -> BinaryIO:
        return self._tree.open(self.name)

    def size(self) -> int:
        return self._tree.size(self.name)

    def json(self) -> Any:
        # A file that changed or may not be read must not pass for a malformed one: only the text's own
        # failures are caught.
        self.open().close()
        try:
            return self._tree.read_json(self.name)
        except DataError as error:
            raise _Malformed(error.message.removeprefix(self.name).strip()) from error

    def numbers(self, entry: dict[str, Any]) -> Iterator[tuple[str, float]]:
        """Yield the numeric items of a log entry, in its order."""
        for key, value in entry.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            try:
                number = float(value)
            except OverflowError:
                self.skipped_records += 1
                continue
            if len(key) > MAX_TAG:
                self.skipped_records += 1
                continue
            # JSON can spell half a surrogate pair, which no other text may hold.
            yield key.encode("utf-8", "replace").decode(), number


class _Malformed(Exception):
    """The log cannot be read on; the message says why."""


def wall_time(step: int) -> float:
    """Seconds since the epoch that stand for a step: a millisecond a step, never before the epoch."""
    return max(step, 0) / 1000


def newest(tree: Tree, paths: list[str]) -> list[str]:
    """Return the logs to read: of the copies of one ``trainer_state.json`` only the one that goes furthest.

    HF writes the whole history into every ``checkpoint-N`` and, when the trainer's state is saved, into
    the output folder; all copies of one training restate the same points.
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
    return sorted(chosen)


def _last_step(tree: Tree, path: str) -> int:
    return max((step for _, step, _, _ in LogFile(tree, path)), default=_STEPS.start)


def _step(value: object) -> int | None:
    """Return a JSON number as a step; None: it is none, or beyond 64 bits."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value not in _STEPS:
        return None
    return value


def _trainer_state(log: LogFile) -> Iterator[tuple[str, int, float]]:
    state = log.json()
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list):
        raise _Malformed("it has no log_history")
    for entry in history:
        step = _step(entry.get("step")) if isinstance(entry, dict) else None
        if step is None:
            log.skipped_records += 1
            continue
        for key, value in log.numbers(entry):
            if key != "step":
                yield _trainer_tag(key), step, value


def _trainer_tag(key: str) -> str:
    for prefix in ("eval_", "test_"):
        if key.startswith(prefix):
            return prefix[:-1] + "/" + key[len(prefix) :]
    return "train/" + key


def _json_lines(log: LogFile) -> Iterator[tuple[str, int, float]]:
    # Read twice: what a resumed training restates stands behind what it restates.
    restarts: list[tuple[int, int]] = []
    before = None
    for number, (step, _) in enumerate(_lines(log)):
        if before is not None and step < before:
            while restarts and restarts[-1][1] >= step:
                restarts.pop()
            restarts.append((number, step))
        before = step
    log.skipped_records, log.ended = 0, None
    ahead = restarts[::-1]
    for number, (step, entry) in enumerate(_lines(log)):
        if ahead and ahead[-1][0] <= number:
            ahead.pop()
        # The steps in `restarts` rise, so the next one is the smallest of those still ahead.
        restated = bool(ahead) and step >= ahead[-1][1]
        for key, value in log.numbers(entry):
            if key == "global_step":
                continue
            if restated:
                log.superseded += 1
            else:
                yield key, step, value


def _lines(log: LogFile) -> Iterator[tuple[int, dict[str, Any]]]:
    with log.open() as stream:
        while line := stream.readline(MAX_LINE):
            whole = line.endswith(b"\n")
            if not whole and len(line) == MAX_LINE:
                while (rest := stream.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                    pass
                log.skipped_records += 1
                continue
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                if whole:
                    log.skipped_records += 1
                else:
                    log.ended = TRUNCATED
                continue
            step = _step(entry.get("global_step")) if isinstance(entry, dict) else None
            if step is None:
                log.skipped_records += 1
            else:
                yield step, entry


def _evaluations(log: LogFile) -> Iterator[tuple[str, int, float]]:
    if log.size() > MAX_ARCHIVE:
        raise _Malformed(f"it is larger than {MAX_ARCHIVE >> 20} MiB")
    with log.open() as stream:
        # Read whole, so that what zipfile raises is the archive's fault and not that of the disk.
        whole = io.BytesIO(stream.read(MAX_ARCHIVE))
    try:
        with zipfile.ZipFile(whole) as archive:
            steps = [_step(row[0]) if row else None for row in read_rows(archive, "timesteps")]
            for member, tag in _EVALUATION_TAGS.items():
                if f"{member}.npy" not in archive.namelist():
                    continue
                for step, row in zip(steps, read_rows(archive, member), strict=False):
                    if step is None or not row:
                        log.skipped_records += 1
                    else:
                        yield tag, step, _mean(row)
    except (zipfile.BadZipFile, zlib.error, struct.error) as error:
        raise _Malformed("it is a damaged zip archive") from error
    except (ValueError, KeyError, EOFError, OverflowError, OSError, RuntimeError) as error:
        raise _Malformed(str(error) or "it cannot be read") from error


_EVALUATION_TAGS = {
    "results": "eval/mean_reward",
    "ep_lengths": "eval/mean_ep_length",
    "successes": "eval/success_rate",
}


def _mean(row: tuple[float, ...]) -> float:
    try:
        return math.fsum(row) / len(row)
    except (OverflowError, ValueError):
        # fsum refuses infinities of both signs and sums beyond a float; a plain sum says nan or inf.
        return sum(row) / len(row)


_READERS: dict[str, Callable[[LogFile], Iterator[tuple[str, int, float]]]] = {
    "trainer_state.json": _trainer_state,
    "logs.json.txt": _json_lines,
    "evaluations.npz": _evaluations,
}
