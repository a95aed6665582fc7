"""What a mirror did: one line of JSON, also after a failure.

It begins with its schema, so that it can be found in a log whose lines carry a prefix. Lists are cut so
that the line stays below ``MAX_LINE_BYTES``: OSMO splits lines above 32 KiB. They stand whole in the run's
artifact ``receipt.json``.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from aml_mirror.support import redaction

SCHEMA = "aml-mirror/receipt/v1"
MAX_LINE_BYTES = 16 << 10
MAX_LIST = 20
MAX_TEXT = 500
MAX_MASKED = 8 * MAX_TEXT
# What is tried in turn until a line fits: entries of a list, characters of a text.
_CUTS = ((MAX_LIST, MAX_TEXT), (MAX_LIST, 200), (5, 200), (1, 120), (0, 80), (0, len(SCHEMA)))
# Kubernetes shows at most 4096 bytes of a container's termination message.
MAX_TERMINATION_BYTES = 4000
TERMINATION_LOG = "/dev/termination-log"


@dataclass(slots=True)
class Receipt:
    """The keys in the order in which they are printed; sizes in bytes, ``seconds`` by the monotonic clock."""

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
    manifest_sha256: str | None = None
    integrity: str | None = None
    safety: str | None = None
    allowed: list[dict[str, str]] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    bytes_sent: int = 0
    bytes_copied: int = 0
    series: int = 0
    points: int = 0
    left_out: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def next_version(self) -> None:
        """Forget what belongs to one version, so that the receipt can be filled for the next one."""
        blank = Receipt()
        kept = ("run_id", "source", "framework", "experiment", "model_name")
        for key in self.__slots__:
            if key not in kept:
                setattr(self, key, getattr(blank, key))

    def whole(self) -> str:
        """The artifact ``receipt.json``: everything, for people to read."""
        return json.dumps(_clean(asdict(self)), indent=2, ensure_ascii=False) + "\n"

    def line(self, limit: int = MAX_LINE_BYTES) -> str:
        """One line of at most ``limit`` bytes; lists are cut first, with their whole count beside them."""
        for length, width in _CUTS:
            found = asdict(self)
            for key in ("allowed", "left_out", "warnings"):
                if len(found[key]) > length:
                    found[f"{key}_count"] = len(found[key])
                    found[key] = found[key][:length]
            # Masked before the last cut, which might leave of a secret a part that nothing knows; and cut
            # before, since masking takes time.
            found = _cut(_clean(_cut(found, MAX_MASKED)), width)
            text = json.dumps(found, separators=(",", ":"))
            if len(text.encode()) <= limit:
                return text
        shortest = {"schema": SCHEMA, "outcome": self.outcome, "exit_code": self.exit_code}
        return json.dumps(shortest, separators=(",", ":"))


class Line(Protocol):
    """What can say itself in one line of JSON."""

    def line(self, limit: int = MAX_LINE_BYTES) -> str:
        """One line of at most ``limit`` bytes."""


def write_termination_log(receipt: Line, path: str = TERMINATION_LOG) -> None:
    """Leave the receipt where Kubernetes shows it; where there is no such file, nothing happens."""
    if not os.path.exists(path):
        return
    try:
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(receipt.line(MAX_TERMINATION_BYTES))
    except OSError:
        return


def _clean(found: Any) -> Any:
    if isinstance(found, str):
        return redaction.text(found)
    if isinstance(found, dict):
        return {key: _clean(value) for key, value in found.items()}
    if isinstance(found, list):
        return [_clean(value) for value in found]
    return found


def _cut(found: Any, width: int) -> Any:
    if isinstance(found, str) and len(found) > width:
        return found[: width - 1] + "…"
    if isinstance(found, dict):
        return {key: _cut(value, width) for key, value in found.items()}
    if isinstance(found, list):
        return [_cut(value, width) for value in found]
    return found
