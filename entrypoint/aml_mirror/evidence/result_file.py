"""Reads the result of an evaluation from a file or standard input, in any known format."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from aml_mirror.core.errors import DataError, NotAllowed, SourceNotFound, UsageError
from aml_mirror.evidence.episode_results import plain_csv, plain_json
from aml_mirror.evidence.evaluation import Evaluation, TaskTrials
from aml_mirror.evidence.tool_results import lerobot, toolchain_offline, toolchain_rate

# 100,000 episodes with 300 bytes each. Anything longer is not a result.
MAX_BYTES = 32 << 20
# By how much the clocks of two machines may differ.
MAX_SKEW_SECONDS = 300
FORMATS = (
    "LeRobot's eval_info.json, the JSON that physical-ai-toolchain prints or its schema v1, or a list of "
    "episodes as JSON or CSV"
)


@dataclass(frozen=True, slots=True)
class ResultFile:
    """The input: its bytes, and when they were written."""

    name: str
    data: bytes
    written_at: datetime
    """The file's modification time; for standard input, now. The evaluation ended no later."""


def read_result(path: str) -> ResultFile:
    """Read a file, or standard input for ``-``.

    Raises:
        SourceNotFound: there is no such file.
        NotAllowed: access is denied.
        UsageError: it is a folder.
        DataError: it is empty, or longer than ``MAX_BYTES``.
    """
    now = datetime.now(UTC)
    try:
        if path == "-":
            name, data, written_at = "standard input", sys.stdin.buffer.read(MAX_BYTES + 1), now
        else:
            with open(path, "rb") as stream:
                written = os.fstat(stream.fileno()).st_mtime
                data = stream.read(MAX_BYTES + 1)
            name, written_at = os.path.basename(path), min(now, datetime.fromtimestamp(written, UTC))
    except FileNotFoundError as error:
        raise SourceNotFound(f"there is no file {path} (--result)", "check the path") from error
    except PermissionError as error:
        raise NotAllowed(f"access to {path} (--result) is denied", "give this user read access") from error
    except IsADirectoryError as error:
        raise UsageError(f"{path} (--result) is a folder", "pass the file with the result") from error
    if not data.strip():
        raise DataError(f"{name} (--result) is empty", "did the evaluation succeed?")
    if len(data) > MAX_BYTES:
        raise DataError(
            f"{name} (--result) is larger than {MAX_BYTES >> 20} MiB", "it is not the result of an evaluation"
        )
    return ResultFile(name, data, written_at)


def evaluation_in(result: ResultFile, task: str = "") -> Evaluation:
    """Return the evaluation in a result.

    Args:
        result: the input.
        task: the task of trials for which the result names none.

    Raises:
        DataError: it has no known format, is damaged, or has a time in the future.
    """
    text = _decoded(result)
    found = None
    for document in documents(text):
        found = _of_document(document)
        if found is not None:
            break
    if found is None:
        found = plain_csv(text)
    if found is None:
        if why := _damage_of(text):
            raise DataError(
                f"{result.name} (--result) is damaged JSON: {why}",
                "was the evaluation interrupted?",
            )
        raise DataError(
            f"{result.name} (--result) is not a known result of an evaluation", f"it may be {FORMATS}"
        )
    if found.evaluated_at and (found.evaluated_at - datetime.now(UTC)).total_seconds() > MAX_SKEW_SECONDS:
        raise DataError(
            f"{result.name} (--result) says that the evaluation ended at {found.evaluated_at.isoformat()}, "
            "which is in the future",
            "check evaluated_at, and this machine's clock",
        )
    return _with_task(found, task) if task else found


def _with_task(found: Evaluation, task: str) -> Evaluation:
    counts: dict[str, tuple[int, int]] = {}
    for one in found.trials:
        episodes, successes = counts.get(one.task or task, (0, 0))
        counts[one.task or task] = episodes + one.episodes, successes + one.successes
    return replace(found, trials=tuple(TaskTrials(name, *counts[name]) for name in sorted(counts)))


def _decoded(result: ResultFile) -> str:
    try:
        return result.data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{result.name} (--result) is not UTF-8 text", f"it may be {FORMATS}") from error


def _of_document(document: object) -> Evaluation | None:
    if isinstance(document, dict):
        for read in (lerobot, toolchain_rate, toolchain_offline):
            if (found := read(document)) is not None:
                return found
        if document.keys() == {"error"}:
            # policy_evaluation.py prints this if there was no episode.
            raise DataError(f"the evaluation failed: {document['error']}", "evaluate again")
    return plain_json(document)


def _damage_of(text: str) -> str:
    """Return what is wrong with a text that begins like JSON; empty: nothing, or it does not."""
    # Not a line of a log, such as "[INFO] ready".
    if not re.match(r"\s*(\{\s*\"|\[\s*\{)", text):
        return ""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return f"line {error.lineno}, column {error.colno}: {error.msg}"
    except (ValueError, RecursionError):
        pass
    return ""


def documents(text: str) -> list[Any]:
    """Return the JSON documents in a text: the whole text, or those that begin a line, the last one first.

    A simulator prints log lines around the result.
    """
    try:
        return [json.loads(text)]
    except (ValueError, RecursionError):
        pass
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(text):
        if text[at] in "{[":
            try:
                document, at = decoder.raw_decode(text, at)
                found.append(document)
                continue
            except (ValueError, RecursionError):
                pass
        end = text.find("\n", at)
        if end < 0:
            break
        at = end + 1
    return found[::-1]
