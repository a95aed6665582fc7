"""Selects runs from those that were found: by path, by age, by shard."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from aml_mirror.core.errors import SourceNotFound
from aml_mirror.core.option_values import Shard
from aml_mirror.core.settings import Settings
from aml_mirror.support.suggestions import nearest

# How many names are kept as suggestions for a pattern that matches nothing, and how many are shown.
MOST_NAMES = 1000
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class RunFilter:
    """The values of ``--match``, ``--exclude-run``, ``--since``, ``--limit`` and ``--shard``."""

    match: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    since: float = 0.0
    """In seconds since the epoch; 0: any age."""
    limit: int | None = None
    shard: int = 0
    shards: int = 1
    words: str = ""
    """``--since`` in words."""

    @classmethod
    def of(cls, settings: Settings) -> RunFilter:
        """Read the values from the settings."""
        shard = settings.shard or Shard(0, 1)
        since = settings.since.timestamp() if settings.since else 0.0
        words = f"{settings.since:%Y-%m-%d %H:%M} UTC" if settings.since else ""
        return cls(
            settings.match, settings.exclude_runs, since, settings.limit, shard.index, shard.count, words
        )

    def refuses_early(self, path: str, newest: float) -> str:
        """Return why nothing in a folder can be selected; empty: something may be."""
        if any(_matches(path, pattern) for pattern in self.exclude):
            return "--exclude-run leaves it out"
        if self.is_too_old(newest):
            return f"its newest file is older than --since {self.words}"
        return ""

    def is_too_old(self, newest: float) -> bool:
        """Tell whether ``--since`` leaves out what was last written then. Unknown times are accepted."""
        return bool(newest) and newest < self.since

    def refuses(self, path: str, newest: float) -> str:
        """Return why a run is not selected; empty: it is."""
        if not self.matches(path):
            return "it does not match --match"
        return self.refuses_early(path, newest)

    def matches(self, path: str) -> bool:
        """Tell whether a path matches ``--match``; without ``--match``, every path does."""
        return not self.match or any(_matches(path, pattern) for pattern in self.match)

    def is_ours(self, path: str) -> bool:
        """Tell whether a path belongs to our shard. Only the path matters."""
        digest = hashlib.sha256(path.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") % self.shards == self.shard


def no_match(patterns: Sequence[str], names: Sequence[str]) -> SourceNotFound:
    """Return the error for patterns that match none of the existing runs, with the nearest names."""
    plain = [pattern.replace("*", "").strip("/") for pattern in patterns]
    # A pattern may also name a folder around runs.
    folders = {name[:at] for name in names for at, char in enumerate(name) if char == "/"}
    choices = [*names, *sorted(folders)]
    near = [name for word in plain for name in nearest(word, choices, _SHOWN)] or list(names[:_SHOWN])
    return SourceNotFound(
        f"no run matches --match {' --match '.join(patterns)}",
        f"there are: {', '.join(dict.fromkeys(near))}" + (", …" if len(names) > len(near) else ""),
    )


def _matches(path: str, pattern: str) -> bool:
    """A pattern covers the paths that match it, and everything below them. ``*`` also matches ``/``."""
    pattern = pattern.strip("/")
    parts = path.split("/")
    return any(fnmatchcase("/".join(parts[:count]), pattern) for count in range(1, len(parts) + 1))
