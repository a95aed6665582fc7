"""Runs whose files are those of another run: ``run (1)``, ``run_bak``, ``run.old``."""

from __future__ import annotations

from collections.abc import Iterable


class CopiedRuns:
    """Remembers which run was the first with a manifest digest."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def note(self, run_id: str, digest: str | None) -> str:
        """Record a version of a run. If another run had its files before, return that run."""
        first = self._first.setdefault(digest, run_id) if digest else run_id
        return first if first != run_id else ""

    def original(self, run_id: str, digest: str, registered: Iterable[str]) -> str:
        """Return another run with these files: one of this call, else a registered one; or nothing."""
        others = [self._first.get(digest, run_id), *registered]
        return "" if run_id in registered else next((other for other in others if other != run_id), "")
