"""Which of the runs that were found are meant: by path, by age, by shard."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from aml_mirror.core.errors import SourceNotFound
from aml_mirror.core.option_values import Shard
from aml_mirror.core.settings import Settings
from aml_mirror.support.suggestions import nearest

# Names that are kept to suggest one where a pattern matches nothing, and those that are shown.
MOST_NAMES = 1000
_SHOWN = 5


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
    """``--since`` for people."""

    @classmethod
    def of(cls, settings: Settings) -> RunFilter:
        """Take what the settings ask for."""
        shard = settings.shard or Shard(0, 1)
        since = settings.since.timestamp() if settings.since else 0.0
        words = f"{settings.since:%Y-%m-%d %H:%M} UTC" if settings.since else ""
        return cls(
            settings.match, settings.exclude_runs, since, settings.limit, shard.index, shard.count, words
        )

    def refuses_early(self, path: str, newest: float) -> str:
        """Say why nothing in a folder can be meant; empty: something may be."""
        if any(_matches(path, pattern) for pattern in self.exclude):
            return "it is left out by --exclude-run"
        if self.is_too_old(newest):
            return f"its newest file is older than --since {self.words}"
        return ""

    def is_too_old(self, newest: float) -> bool:
        """Return whether ``--since`` leaves out what was last written then; what is unknown is taken."""
        return bool(newest) and newest < self.since

    def refuses(self, path: str, newest: float) -> str:
        """Say why a run is not meant; empty: it is."""
        if not self.matches(path):
            return "it does not match --match"
        return self.refuses_early(path, newest)

    def matches(self, path: str) -> bool:
        """Return whether a path matches ``--match``; any does where none is given."""
        return not self.match or any(_matches(path, pattern) for pattern in self.match)

    def is_ours(self, path: str) -> bool:
        """Return whether a path falls into our shard: by the path alone, whatever else there is."""
        digest = hashlib.sha256(path.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") % self.shards == self.shard


def no_match(patterns: Sequence[str], names: Sequence[str]) -> SourceNotFound:
    """Return the error for patterns that match none of the runs that there are, with the nearest names."""
    plain = [pattern.replace("*", "").strip("/") for pattern in patterns]
    # A pattern may name a folder around runs too.
    folders = {name[:at] for name in names for at, char in enumerate(name) if char == "/"}
    choices = [*names, *sorted(folders)]
    near = [name for word in plain for name in nearest(word, choices, _SHOWN)] or list(names[:_SHOWN])
    return SourceNotFound(
        f"no run matches --match {' --match '.join(patterns)}",
        f"there are: {', '.join(dict.fromkeys(near))}" + (", …" if len(names) > len(near) else ""),
    )


def _matches(path: str, pattern: str) -> bool:
    """A pattern means the paths that match it, and all below them; ``*`` matches ``/`` too."""
    pattern = pattern.strip("/")
    parts = path.split("/")
    return any(fnmatchcase("/".join(parts[:count]), pattern) for count in range(1, len(parts) + 1))
