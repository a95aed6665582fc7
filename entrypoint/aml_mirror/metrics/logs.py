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

import ast
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
from aml_mirror.metrics.events import MAX_TAG, TRUNCATED, Point
from aml_mirror.sources.tree import Tree

# One line of logs.json.txt, in bytes; real ones take some hundred.
MAX_LINE = 1 << 20
# One array of an .npz, in bytes decompressed: 10^5 evaluations of 20 episodes.
MAX_ARRAY = 16 << 20
# One .npz, in bytes.
MAX_ARCHIVE = 32 << 20
# The header of an .npy; numpy itself refuses more.
MAX_NPY_HEADER = 10_000

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
            steps = [_step(row[0]) if row else None for row in _rows(archive, "timesteps")]
            for member, tag in _EVALUATION_TAGS.items():
                if f"{member}.npy" not in archive.namelist():
                    continue
                for step, row in zip(steps, _rows(archive, member), strict=False):
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


def _rows(archive: zipfile.ZipFile, member: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a one- or two-dimensional array of plain numbers. Nothing is unpickled.

    The format: numpy/lib/format.py. Raises ValueError, KeyError, EOFError, or as :mod:`zipfile`.
    """
    info = archive.getinfo(f"{member}.npy")
    # The other methods inflate a whole block at once, however large it becomes.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"its member {member} is compressed in a way that numpy does not use")
    with archive.open(info) as stream:
        prefix = _exactly(stream.read, 8)
        if prefix[:6] != b"\x93NUMPY" or prefix[6] not in (1, 2, 3):
            raise ValueError(f"its member {member} is no array")
        length = int.from_bytes(_exactly(stream.read, 2 if prefix[6] == 1 else 4), "little")
        if length > MAX_NPY_HEADER:
            raise ValueError(f"the header of its member {member} is too long")
        form, fortran, shape = _npy_header(_exactly(stream.read, length).decode("latin-1"), member)
        rows, width = shape[0], shape[1] if len(shape) == 2 else 1
        count, size = rows * width, struct.calcsize(form)
        if max(rows, count) * size > MAX_ARRAY:
            raise ValueError(f"its member {member} is larger than {MAX_ARRAY >> 20} MiB")
        data = _exactly(stream.read, count * size)
    if fortran and len(shape) == 2:
        for row in range(rows):
            yield tuple(
                struct.unpack_from(form, data, (column * rows + row) * size)[0] for column in range(width)
            )
    else:
        unpack = struct.Struct(form[0] + str(width) + form[1])
        for row in range(rows):
            yield unpack.unpack_from(data, row * width * size)


# numpy's names of plain numbers -> struct's.
_NUMPY_TYPES = {
    "f2": "e", "f4": "f", "f8": "d", "b1": "?",
    "i1": "b", "i2": "h", "i4": "i", "i8": "q",
    "u1": "B", "u2": "H", "u4": "I", "u8": "Q",
}  # fmt: skip


def _npy_header(text: str, member: str) -> tuple[str, bool, tuple[int, ...]]:
    try:
        header = ast.literal_eval(text.strip())
        descr, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise ValueError(f"the header of its member {member} is damaged") from error
    if not isinstance(descr, str) or descr[1:] not in _NUMPY_TYPES or descr[0] not in "<>|=":
        raise ValueError(f"its member {member} holds {str(descr)[:40]}, not plain numbers")
    if (
        not isinstance(shape, tuple)
        or len(shape) not in (1, 2)
        or not all(type(size) is int and 0 <= size <= MAX_ARRAY for size in shape)
    ):
        raise ValueError(f"its member {member} has the shape {str(shape)[:40]}, not that of a table")
    return (">" if descr[0] == ">" else "<") + _NUMPY_TYPES[descr[1:]], bool(fortran), shape


def _exactly(read: Callable[[int], bytes], count: int) -> bytes:
    data = read(count)
    if len(data) != count:
        raise EOFError("it ends inside an array")
    return data


_READERS: dict[str, Callable[[LogFile], Iterator[tuple[str, int, float]]]] = {
    "trainer_state.json": _trainer_state,
    "logs.json.txt": _json_lines,
    "evaluations.npz": _evaluations,
}
