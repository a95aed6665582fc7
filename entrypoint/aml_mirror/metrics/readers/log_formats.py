"""Parses frameworks' own logs, each as (tag, step, value) in the order in which they were written.

- ``trainer_state.json`` (HF Trainer): ``log_history`` has one object per log call. The tags are those of the
  Trainer's own TensorBoard callback: ``eval_x`` -> ``eval/x``, ``test_x`` -> ``test/x``, everything else
  ``train/x``.
- ``logs.json.txt`` (Diffusion Policy): one JSON object per line, with ``global_step``. A resumed training
  appends. So a line with a smaller step than the line before repeats everything from there.
- ``evaluations.npz`` (Stable-Baselines3): one evaluation per row; the tags are those of its EvalCallback.
- ``metrics.csv`` (Lightning's CSVLogger, which logs if TensorBoard is not installed) and ``progress.csv``
  (Stable-Baselines3): one log call per row, one tag per column, empty if the call did not log it. The steps
  are in ``step`` and in ``time/total_timesteps``. A resumed training begins another file or rewrites it
  (Lightning 2.6.6 ``fabric/loggers/csv_logs.py``, SB3 2.9.2 ``common/logger.py``), so no row repeats another.
"""

from __future__ import annotations

import csv
import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol, TypeVar

from aml_mirror.formats.npy import read_rows
from aml_mirror.metrics.readers.event_file import MAX_TAG, TRUNCATED

# The longest line of a text log, in bytes. Real ones have some hundred.
MAX_LINE = 1 << 20
# The largest .npz, in bytes.
MAX_ARCHIVE = 32 << 20

# RLlib nests its results three levels deep.
_MAX_DEPTH = 4
# RLlib writes its configuration under these keys into every result.
_NO_METRICS = frozenset({"config"})

STEPS = range(-(1 << 63), 1 << 63)

T = TypeVar("T")
Points = Iterator[tuple[str, int, float]]


class Log(Protocol):
    """A reader's input: the file, and a place to record what it could not read."""

    skipped_records: int
    superseded: int
    ended: str | None

    def open(self) -> BinaryIO: ...

    def size(self) -> int: ...

    def json(self) -> Any: ...


class Malformed(Exception):
    """The rest of the log cannot be read; the message says why."""


def _step(value: object) -> int | None:
    """Return a JSON number as a step; None: it is not one, or has more than 64 bits."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value not in STEPS:
        return None
    return value


def _numbers(log: Log, entry: dict[str, Any], depth: int = 0) -> Iterator[tuple[str, float]]:
    """Yield the numeric items of a log entry, in order; nested ones as ``outer/inner``."""
    for key, value in entry.items():
        if isinstance(value, dict) and depth < _MAX_DEPTH and key not in _NO_METRICS:
            yield from ((f"{key}/{inner}", number) for inner, number in _numbers(log, value, depth + 1))
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        try:
            number = float(value)
        except OverflowError:
            log.skipped_records += 1
            continue
        if len(key) > MAX_TAG:
            log.skipped_records += 1
            continue
        # JSON can contain half a surrogate pair, which is not valid elsewhere.
        yield key.encode("utf-8", "replace").decode(), number


def _trainer_state(log: Log) -> Points:
    state = log.json()
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list):
        raise Malformed("it has no log_history")
    for entry in history:
        step = _step(entry.get("step")) if isinstance(entry, dict) else None
        if step is None:
            log.skipped_records += 1
            continue
        for key, value in _numbers(log, entry):
            if key != "step":
                yield _trainer_tag(key), step, value


def _trainer_tag(key: str) -> str:
    for prefix in ("eval_", "test_"):
        if key.startswith(prefix):
            return prefix[:-1] + "/" + key[len(prefix) :]
    return "train/" + key


def json_lines(step_keys: tuple[str, ...]) -> Callable[[Log], Points]:
    """Return a reader for logs with one object per line. The first existing key has the step."""

    def read(log: Log) -> Points:
        return _json_points(log, step_keys)

    return read


def _json_points(log: Log, step_keys: tuple[str, ...]) -> Points:
    # Read twice: a resumed training's repetition comes after the original.
    restarts: list[tuple[int, int]] = []
    before = None
    for number, (step, _) in enumerate(_lines(log, step_keys)):
        if before is not None and step < before:
            while restarts and restarts[-1][1] >= step:
                restarts.pop()
            restarts.append((number, step))
        before = step
    log.skipped_records, log.ended = 0, None
    ahead = restarts[::-1]
    for number, (step, entry) in enumerate(_lines(log, step_keys)):
        if ahead and ahead[-1][0] <= number:
            ahead.pop()
        # The steps in `restarts` increase, so the next one is the smallest of those to come.
        restated = bool(ahead) and step >= ahead[-1][1]
        for key, value in _numbers(log, entry):
            if key in step_keys:
                continue
            if restated:
                log.superseded += 1
            else:
                yield key, step, value


def _lines(log: Log, step_keys: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
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
            found = entry if isinstance(entry, dict) else {}
            step = next((step for key in step_keys if (step := _step(found.get(key))) is not None), None)
            if step is None:
                log.skipped_records += 1
            else:
                yield step, found


def _evaluations(log: Log) -> Points:
    if log.size() > MAX_ARCHIVE:
        raise Malformed(f"it is larger than {MAX_ARCHIVE >> 20} MiB")
    with log.open() as stream:
        # Read completely, so any zipfile error is the archive's fault and not the disk's.
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
        raise Malformed("it is a damaged zip archive") from error
    except (ValueError, KeyError, EOFError, OverflowError, OSError, RuntimeError) as error:
        raise Malformed(str(error) or "it cannot be read") from error


_EVALUATION_TAGS = {
    "results": "eval/mean_reward",
    "ep_lengths": "eval/mean_ep_length",
    "successes": "eval/success_rate",
}


def _mean(row: tuple[float, ...]) -> float:
    try:
        return math.fsum(row) / len(row)
    except (OverflowError, ValueError):
        # fsum refuses infinities of both signs and sums beyond a float. A plain sum gives nan or inf.
        return sum(row) / len(row)


def table(
    step_columns: tuple[str, ...], left: frozenset[str] = frozenset(), delimiter: str = ","
) -> Callable[[Log], Points]:
    """Return a reader for tables whose step is in the first of some columns. ``left`` columns are not
    metrics.

    If the cell is empty in a row, its step is in the next of these columns.
    """

    def read(log: Log) -> Points:
        with log.open() as stream:
            rows = csv.reader(_text_lines(log, stream), delimiter=delimiter)
            try:
                header = next(rows, [])
                steps = [header.index(name) for name in step_columns if name in header]
                if not steps:
                    named = " or ".join(repr(name) for name in step_columns[:3])
                    raise Malformed(f"it has no column {named}")
                tags = {
                    column: tag
                    for column, tag in enumerate(header)
                    if column not in steps and tag not in left and 0 < len(tag) <= MAX_TAG
                }
                for row in rows:
                    cells = (row[at] for at in steps if at < len(row))
                    step = next((step for cell in cells if (step := _whole(cell)) is not None), None)
                    if step is None:
                        log.skipped_records += any(row)
                        continue
                    for column, tag in tags.items():
                        value = _number(float, row[column]) if column < len(row) else None
                        if value is not None:
                            yield tag, step, value
            except csv.Error as error:
                raise Malformed(f"it is not a table: {error}") from error

    return read


def _text_lines(log: Log, stream: BinaryIO) -> Iterator[str]:
    while line := stream.readline(MAX_LINE):
        if not line.endswith(b"\n"):
            # Half a number is a different number.
            log.ended = TRUNCATED if len(line) < MAX_LINE else f"a line is longer than {MAX_LINE >> 20} MiB"
            return
        yield line.decode("utf-8-sig", "replace")


def _whole(cell: str) -> int | None:
    step = _step(_number(int, cell))
    return _step(_number(float, cell)) if step is None else step


def _number(kind: Callable[[str], T], cell: str) -> T | None:
    """Return the number in a cell; None: it is not a valid number. Python's own ``1_000`` is not valid."""
    try:
        return None if "_" in cell else kind(cell)
    except ValueError:
        return None


# With the step, these are what SB3 keeps out of its TensorBoard files (``exclude="tensorboard"``).
_SB3_CLOCKS = frozenset({"time/iterations", "time/episodes", "time/time_elapsed"})

READERS: dict[str, Callable[[Log], Points]] = {
    "trainer_state.json": _trainer_state,
    "logs.json.txt": json_lines(("global_step",)),
    "evaluations.npz": _evaluations,
    "metrics.csv": table(("step",)),
    "progress.csv": table(("time/total_timesteps",), _SB3_CLOCKS),
}
