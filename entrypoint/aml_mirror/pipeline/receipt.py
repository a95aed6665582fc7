"""The result of a mirror: one line of JSON, also after a failure.

It begins with its schema, so it can be found in a log whose lines have a prefix. Lists are shortened so that
the line stays below ``MAX_LINE_BYTES``: OSMO splits lines above 32 KiB. The run's artifact ``receipt.json``
has the complete lists.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

from aml_mirror.support import redaction

SCHEMA = "aml-mirror/receipt/v1"
MAX_LINE_BYTES = 16 << 10
MAX_LIST = 20
MAX_TEXT = 500
MAX_MASKED = 8 * MAX_TEXT
# Limits that are tried in turn until a line fits: entries of a list, characters of a text.
_CUTS = (
    (MAX_LIST, MAX_TEXT),
    (MAX_LIST, 200),
    (5, 200),
    (1, 120),
    (0, 80),
    (0, 40),
    (0, len("already-mirrored")),
)
_LISTS = ("allowed", "left_out", "warnings")
# Kubernetes shows at most 4096 bytes of a container's termination message.
MAX_TERMINATION_BYTES = 4000
TERMINATION_LOG = "/dev/termination-log"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about the current version. Every receipt contains it, including that of a failure."""

    run_id: str | None = None
    source: str | None = None
    framework: str | None = None
    checkpoint: str | None = None
    step: int | None = None
    mlflow_run_id: str | None = None
    experiment: str | None = None
    model_name: str | None = None


@dataclass(slots=True)
class Progress:
    """The progress of the work. A failure's receipt is built from its facts."""

    facts: Facts = Facts()


@dataclass(frozen=True, slots=True)
class Receipt:
    """The keys in their printing order; sizes in bytes, ``seconds`` by the monotonic clock."""

    schema: str = SCHEMA
    outcome: str = "failed"
    exit_code: int = 70
    error: str | None = None
    hint: str | None = None
    run_id: str | None = None
    source: str | None = None
    framework: str | None = None
    checkpoint: str | None = None
    step: int | None = None
    mlflow_run_id: str | None = None
    experiment: str | None = None
    model_name: str | None = None
    model_version: str | None = None
    model_uri: str | None = None
    run_page: str | None = None
    version_page: str | None = None
    files_uri: str | None = None
    manifest_sha256: str | None = None
    integrity: str | None = None
    safety: str | None = None
    allowed: tuple[dict[str, str], ...] = ()
    files: int = 0
    bytes: int = 0
    bytes_sent: int = 0
    bytes_copied: int = 0
    bytes_reused: int = 0
    series: int = 0
    points: int = 0
    left_out: tuple[dict[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    def whole(self) -> str:
        """The artifact ``receipt.json``: everything, for people to read."""
        return json.dumps(_clean(asdict(self)), indent=2, ensure_ascii=False) + "\n"

    def line(self, limit: int = MAX_LINE_BYTES) -> str:
        """Return one line with at most ``limit`` bytes. Lists are shortened first, with their count."""
        for length, width in _CUTS:
            document = asdict(self)
            for key in _LISTS:
                if len(document[key]) > length:
                    document[f"{key}_count"] = len(document[key])
                    document[key] = document[key][:length]
            # It is masked before the last cut, which might leave an unrecognisable part of a secret. It is
            # cut before that too, because masking takes time.
            document = {**_cut(_clean(_cut(document, MAX_MASKED)), width), "schema": SCHEMA}
            text = json.dumps(document, separators=(",", ":"))
            if len(text.encode()) <= limit:
                return text
        shortest = {"schema": SCHEMA, "outcome": self.outcome, "exit_code": self.exit_code}
        return json.dumps(shortest, separators=(",", ":"))


def receipt_of(facts: Facts, **values: Any) -> Receipt:
    """Build a receipt from the facts about a version and the result."""
    return Receipt(**{item.name: getattr(facts, item.name) for item in fields(facts)}, **values)


def failed(facts: Facts, exit_code: int, error: str, hint: str, seconds: float) -> Receipt:
    """Build the receipt of a failure.

    Args:
        facts: what was known at that time.
        exit_code, error, hint: of the failure.
        seconds: how long the work took until then.
    """
    return receipt_of(
        facts,
        outcome="failed",
        exit_code=exit_code,
        error=error,
        hint=hint or None,
        seconds=round(seconds, 3),
    )


class Line(Protocol):
    """An object with a one-line JSON form."""

    def line(self, limit: int = MAX_LINE_BYTES) -> str:
        """Return one line with at most ``limit`` bytes."""


def write_termination_log(receipt: Line, path: str = TERMINATION_LOG) -> None:
    """Write the receipt to the file that Kubernetes shows. If it does not exist, nothing happens."""
    if not os.path.exists(path):
        return
    try:
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(receipt.line(MAX_TERMINATION_BYTES))
    except OSError:
        return


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return redaction.text(value)
    if isinstance(value, dict):
        return {key: _clean(below) for key, below in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(below) for below in value]
    return value


def _cut(value: Any, width: int) -> Any:
    if isinstance(value, str) and len(value) > width:
        return value[: width - 1] + "…"
    if isinstance(value, dict):
        return {key: _cut(below, width) for key, below in value.items()}
    if isinstance(value, (list, tuple)):
        return [_cut(below, width) for below in value]
    return value
