"""Reads results in this program's own plain format: a list of episodes, as JSON or CSV.

entrypoint/robot.md documents the schema, with an example of each.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aml_mirror.core.errors import DataError
from aml_mirror.evidence.evaluation import Evaluation, evaluation_of, finite

SCHEMA = "aml-mirror/evaluation/v1"
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")
# Columns with a meaning of their own. Any other column with numbers is a metric.
_KNOWN = ("episode", "success", "task", "seed")
_UNNAMED = "\0"
_TOP = ("schema", "episodes", "metrics", "task", "evaluated_at", "manifest_sha256")


def plain_json(found: object) -> Evaluation | None:
    """Read ``{"episodes": […]}``, or only the list; None if it is something else.

    Raises:
        DataError: it has this form, but is wrong.
    """
    document = found
    if isinstance(found, list):
        # A log line may be a list too.
        if not (found and isinstance(found[0], Mapping) and "success" in found[0]):
            return None
        document = {"episodes": found}
    if not isinstance(document, Mapping):
        return None
    if "schema" in document and document["schema"] != SCHEMA:
        if "episodes" not in document:
            return None
        raise _wrong(f"its schema is {document['schema']!r}, not {SCHEMA}")
    if not isinstance(document.get("episodes"), list):
        return None
    if unknown := sorted(str(key) for key in document.keys() - set(_TOP)):
        raise _wrong(f"it has the unknown key {unknown[0]!r}; known keys are {', '.join(_TOP)}")
    manifest = document.get("manifest_sha256", "")
    if not isinstance(manifest, str) or not re.fullmatch("([0-9a-f]{64})?", manifest):
        raise _wrong("manifest_sha256 is not a SHA-256 in hexadecimal")
    more = document.get("metrics", {})
    if not isinstance(more, Mapping) or any(finite(value) is None for value in more.values()):
        raise _wrong("metrics is not an object with finite numbers")
    task = document.get("task", "")
    if not isinstance(task, str):
        raise _wrong("task is not a string")
    rows = [_episode(at, item) for at, item in enumerate(document["episodes"])]
    return _of_rows("episodes as JSON", rows, more, task, _moment(document.get("evaluated_at")), manifest)


def plain_csv(text: str) -> Evaluation | None:
    """Read a CSV file with the column ``success``; None if its first line has no such column.

    Raises:
        DataError: it has one, but is wrong.
    """
    reader = csv.DictReader(io.StringIO(text))
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        if "success" not in names:
            return None
        if len(set(filter(None, names))) < len(list(filter(None, names))):
            raise _wrong("two columns have the same name")
        # A column without a name is the number of the row, as pandas writes it.
        reader.fieldnames = [name or f"{_UNNAMED}{at}" for at, name in enumerate(names)]
        rows = [_csv_row(number, row) for number, row in enumerate(reader)]
    except csv.Error as error:
        raise _wrong(str(error)) from error
    return _of_rows("episodes as CSV", rows, {}, "", None, "")


def _csv_row(number: int, row: dict[Any, Any]) -> dict[str, Any]:
    where = f"line {number + 2}"
    if None in row or any(value is None for value in row.values()):
        raise _wrong(f"{where} does not have as many values as the first line")
    values = {name: value.strip() for name, value in row.items()}
    word = values.pop("success").lower()
    if word not in (*_TRUE, *_FALSE):
        raise _wrong(f"{where}: success is {word!r}, not one of {', '.join((*_TRUE, *_FALSE))}")
    found: dict[str, Any] = {"success": word in _TRUE}
    for name, value in values.items():
        if not value or name.startswith(_UNNAMED):
            continue
        try:
            found[name] = value if name in _KNOWN else float(value)
        except ValueError as error:
            raise _wrong(f"{where}: {name} is {value!r}, not a number") from error
    return found


def _episode(at: int, item: object) -> dict[str, Any]:
    where = f"episodes[{at}]"
    if not isinstance(item, Mapping):
        raise _wrong(f"{where} is not an object")
    if not isinstance(item.get("success"), bool):
        raise _wrong(f"{where}.success is not true or false")
    for name, value in item.items():
        if name == "task" and not isinstance(value, str):
            raise _wrong(f"{where}.task is not a string")
        if name not in _KNOWN and finite(value) is None:
            raise _wrong(f"{where}.{name} is not a finite number")
    return {str(name): value for name, value in item.items()}


def _of_rows(
    name: str,
    rows: list[dict[str, Any]],
    metrics: Mapping[str, Any],
    task: str,
    evaluated_at: datetime | None,
    manifest: str,
) -> Evaluation:
    if not rows:
        raise _wrong("it has no episodes")
    columns: dict[str, list[float]] = {}
    for row in rows:
        for key, value in row.items():
            if key not in _KNOWN and (number := finite(value)) is not None:
                columns.setdefault(key, []).append(number)
    # If not every episode has a column, its mean would only cover some episodes.
    means = {key: sum(values) / len(rows) for key, values in columns.items() if len(values) == len(rows)}
    listed = [
        (
            row.get("task", task) or task,
            str(row.get("episode", at)),
            bool(row["success"]),
            sorted((key, value) for key, value in row.items() if key not in ("task", "success", "episode")),
        )
        for at, row in enumerate(rows)
    ]
    return evaluation_of(
        name,
        ((one_task, 1, int(success)) for one_task, _, success, _ in listed),
        {**means, **metrics},
        listed,
        evaluated_at,
        manifest,
    )


def _moment(value: object) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise _wrong(f"evaluated_at is {value!r}, not a time like 2026-11-30T08:00:00Z") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _wrong(why: str) -> DataError:
    return DataError(f"the episodes cannot be read: {why}", "entrypoint/robot.md has the schema")
