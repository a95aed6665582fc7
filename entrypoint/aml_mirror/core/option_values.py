"""Parses the values of options: text in, a typed value or one clear error out.

Each function takes the text and ``where`` it was given (``--since`` or ``RUN_ID``), which its error names.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from aml_mirror.core.errors import UsageError

MIB = 1 << 20
MAX_CONCURRENCY = 64
MAX_BLOCK_BYTES = 100 * MIB
MAX_SHARDS = 100_000

# The units of time spans, everywhere.
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_SPAN = re.compile(r"([0-9]{1,9}(?:\.[0-9]+)?)\s*([smhdw]?)")


@dataclass(frozen=True, slots=True)
class Shard:
    """One of ``count`` parts of a backlog; ``index`` counts from 0."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def text(value: str, where: str) -> str:
    """Return a value unchanged."""
    return value


def seconds(value: str, where: str = "--retry-for") -> float:
    """Read a time span: ``90``, ``90s``, ``15m``, ``2h``, ``3d``, ``1w``; returns seconds.

    Raises:
        UsageError: it is not a time span.
    """
    match = _SPAN.fullmatch(value.strip())
    if not match:
        raise UsageError(f"{where} {value!r} is not a duration", f"for example: {where} 90s, 15m, 2h or 3d")
    return float(match[1]) * _UNIT_SECONDS[match[2] or "s"]


def moment(value: str, where: str, now: float | None = None) -> datetime:
    """Read a date, a date with a time, or a time span before now: ``2026-11-01``, ``36h``, ``7d``, ``2w``.

    Args:
        value: without a time zone it is UTC.
        where: see the module.
        now: in seconds since the epoch; None: the clock's time.

    Raises:
        UsageError: it is neither.
    """
    wanted = value.strip()
    try:
        if (match := _SPAN.fullmatch(wanted)) and match[2]:
            begin = (time.time() if now is None else now) - float(match[1]) * _UNIT_SECONDS[match[2]]
            return datetime.fromtimestamp(begin, UTC)
        given = datetime.fromisoformat(wanted)
        return (given if given.tzinfo else given.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"{where} {value!r} is neither a date nor a time span",
            f"for example: {where} 2026-11-01, 2026-11-01T08:00+01:00 (without a zone: UTC), 36h, 7d, 2w",
        ) from None


def window(value: str, where: str) -> datetime | timedelta:
    """Read a moment, or a time span that is counted back from the time of use; see :func:`moment`.

    Raises:
        UsageError: it is neither.
    """
    if (match := _SPAN.fullmatch(value.strip())) and match[2]:
        moment(value, where)
        return timedelta(seconds=float(match[1]) * _UNIT_SECONDS[match[2]])
    return moment(value, where)


def label(value: str, where: str) -> tuple[str, str]:
    """Read a label to look for, ``KEY=VALUE`` with ``*`` in the value for any text.

    Raises:
        UsageError: it is not of this form.
    """
    key, equals, wanted = value.partition("=")
    if (
        not equals
        or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", key)
        or not re.fullmatch(r"[A-Za-z0-9._*-]+", wanted)
    ):
        raise UsageError(
            f"{where} {value!r} is not KEY=VALUE", f"for example: {where} mirror=on, {where} 'team=arms-*'"
        )
    return key, wanted


def plain_name(value: str, where: str) -> str:
    """Read a name in OSMO, which becomes an argument of its program.

    Raises:
        UsageError: it looks like an option, or contains characters that no name has.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,254}", value):
        raise UsageError(f"{where} {value!r} is not a name", f"for example: {where} default")
    return value


def store_id(value: str, where: str) -> str:
    """Read an id under which something is stored.

    Raises:
        UsageError: it contains characters that should not be in a file name.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
        raise UsageError(
            f"{where} {value!r} has characters besides letters, digits, '-', '_' and '.', or over 100",
            f"for example: {where} azureml-backfill-7",
        )
    return value


def run_count(value: str, where: str) -> int:
    """Read a number of runs, 1 or more.

    Raises:
        UsageError: it is not one.
    """
    if re.fullmatch("[0-9]{1,9}", value.strip()) and int(value) > 0:
        return int(value)
    raise UsageError(f"{where} {value!r} is not a number of runs", f"for example: {where} 100")


def curve_count(value: str, where: str) -> int:
    """Read a number of curves, 0 or more.

    Raises:
        UsageError: it is not one.
    """
    if re.fullmatch("[0-9]{1,9}", value.strip()):
        return int(value)
    raise UsageError(f"{where} {value!r} is not a number of curves", f"for example: {where} 100")


def shard(value: str, where: str) -> Shard:
    """Read ``I/N`` with I from 0 to N-1.

    Raises:
        UsageError: it is not of this form.
    """
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*/\s*([0-9]{1,9})\s*", value)
    if match and 0 <= int(match[1]) < int(match[2]) <= MAX_SHARDS:
        return Shard(int(match[1]), int(match[2]))
    raise UsageError(
        f"{where} {value!r} is not I/N with I from 0 to N-1",
        f"shards are counted from 0: of three, {where} 0/3, 1/3 and 2/3",
    )


def concurrency(value: str, where: str = "--concurrency") -> int:
    """Read how many requests run at the same time.

    Raises:
        UsageError: not a whole number from 1 to ``MAX_CONCURRENCY``.
    """
    if not re.fullmatch("[0-9]{1,3}", value.strip()) or not 1 <= int(value) <= MAX_CONCURRENCY:
        raise UsageError(
            f"{where} {value!r} is not a number from 1 to {MAX_CONCURRENCY}", f"for example: {where} 16"
        )
    return int(value)


def share(value: str, where: str = "--success-threshold") -> float:
    """Read a fraction, above 0 and up to 1.

    Raises:
        UsageError: it is not one.
    """
    try:
        found = float(value)
    except ValueError:
        found = 0.0
    if not 0 < found <= 1:
        raise UsageError(
            f"{where} {value!r} is not a fraction of all episodes, above 0 and up to 1",
            f"for example: {where} 0.8",
        )
    return found


def block_size(value: str, where: str = "--block-size") -> int:
    """Read a size, ``8MiB`` or a number of bytes; returns bytes.

    Raises:
        UsageError: not a size from 1 MiB to ``MAX_BLOCK_BYTES``.
    """
    match = re.fullmatch(r"([0-9]{1,12})\s*(k|ki|kib|m|mi|mib|b|)", value.strip().lower())
    size = int(match[1]) * {"k": 1 << 10, "m": MIB}.get(match[2][:1], 1) if match else 0
    if not MIB <= size <= MAX_BLOCK_BYTES:
        raise UsageError(
            f"{where} {value!r} is not a size from 1MiB to {MAX_BLOCK_BYTES // MIB}MiB",
            f"for example: {where} 8MiB",
        )
    return size


def run_id(value: str, where: str) -> str:
    """Check a run id.

    Raises:
        UsageError: it is too long, or contains characters that are not text.
    """
    if not re.fullmatch(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,256}", value):
        raise UsageError(
            f"the run id ({where}) has more than 256 characters, or some that are not text",
            "pass the id that OSMO shows for the run with --run-id",
        )
    return value


def accepted_file(value: str, where: str) -> tuple[str, str]:
    """Read a file pattern and the reason why a person accepts such files: ``*.py=reviewed``.

    Raises:
        UsageError: the pattern or the reason is missing.
    """
    pattern, _, reason = value.partition("=")
    if not pattern.strip() or not reason.strip():
        raise UsageError(
            f"{where} {value!r} lacks a pattern or a reason", f"for example: {where} '*.py=reviewed by us'"
        )
    return pattern.strip(), reason.strip()


def tag(value: str, where: str) -> tuple[str, str]:
    """Read ``KEY=VALUE``.

    Raises:
        UsageError: it is not of this form.
    """
    key, equals, rest = value.partition("=")
    if not equals or not re.fullmatch(r"[\w.\-/ ]{1,100}", key):
        raise UsageError(
            f"{where} {value!r} is not KEY=VALUE with a key of up to 100 letters, digits, '_-./' and spaces",
            f"for example: {where} robot=ur5e",
        )
    return key, rest
