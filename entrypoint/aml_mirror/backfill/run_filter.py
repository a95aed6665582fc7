"""Which of the runs that were found are meant: by path, by age, by shard."""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from aml_mirror.core.errors import UsageError
from aml_mirror.core.settings import Settings

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}  # seconds
_MOST_SHARDS = 100_000


@dataclass(frozen=True, slots=True)
class RunFilter:
    """What ``--match``, ``--exclude-run``, ``--since``, ``--limit`` and ``--shard`` ask for."""

    match: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    since: float = 0.0
    """In seconds since the epoch; 0: whatever its age."""
    limit: int | None = None
    shard: int = 0
    shards: int = 1
    words: str = ""
    """``--since`` as it was given."""

    @classmethod
    def of(cls, settings: Settings, now: float | None = None) -> RunFilter:
        """Read the settings.

        Args:
            settings: of this call.
            now: in seconds since the epoch.

        Raises:
            UsageError: one of them cannot be read.
        """
        shard, shards = _shard(settings.shard) if settings.shard else (0, 1)
        since = _since(settings.since, time.time() if now is None else now) if settings.since else 0.0
        limit = _limit(settings.limit) if settings.limit else None
        return cls(settings.match, settings.exclude_runs, since, limit, shard, shards, settings.since)

    def refuses_early(self, path: str, newest: float) -> str:
        """Say why nothing in a folder can be meant; empty: something may be."""
        if any(_matches(path, pattern) for pattern in self.exclude):
            return "it is left out by --exclude-run"
        if newest and newest < self.since:
            return f"its newest file is older than --since {self.words}"
        return ""

    def refuses(self, path: str, newest: float) -> str:
        """Say why a run is not meant; empty: it is."""
        if self.match and not any(_matches(path, pattern) for pattern in self.match):
            return "it does not match --match"
        return self.refuses_early(path, newest)

    def is_ours(self, path: str) -> bool:
        """Tell whether a path falls into our shard: by the path alone, whatever else there is."""
        digest = hashlib.sha256(path.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") % self.shards == self.shard


def _matches(path: str, pattern: str) -> bool:
    """A pattern means the paths that match it, and all below them; ``*`` matches ``/`` too."""
    pattern = pattern.strip("/")
    parts = path.split("/")
    return any(fnmatchcase("/".join(parts[:count]), pattern) for count in range(1, len(parts) + 1))


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*/\s*([0-9]{1,9})\s*", text)
    if match and 0 <= int(match[1]) < int(match[2]) <= _MOST_SHARDS:
        return int(match[1]), int(match[2])
    raise UsageError(
        f"--shard {text!r} is not I/N with I from 0 to N-1",
        "shards are counted from 0: of three, --shard 0/3, 1/3 and 2/3",
    )


def _limit(text: str) -> int:
    if re.fullmatch("[0-9]{1,9}", text.strip()) and int(text) > 0:
        return int(text)
    raise UsageError(f"--limit {text!r} is not a number of runs", "for example: --limit 100")


def _since(text: str, now: float) -> float:
    wanted = text.strip()
    if match := re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?)\s*([smhdw])", wanted):
        return now - float(match[1]) * _UNITS[match[2]]
    try:
        found = datetime.fromisoformat(wanted)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise UsageError(
            f"--since {text!r} is neither a date nor a time span",
            "for example: --since 2026-11-01, 2026-11-01T08:00+01:00 (without a zone: UTC), 36h, 7d, 2w",
        ) from None
