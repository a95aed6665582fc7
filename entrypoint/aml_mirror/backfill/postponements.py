"""The questions of a pass over OSMO's list to the journal of earlier passes."""

from __future__ import annotations

from typing import Protocol

from aml_mirror.core.errors import MirrorError


class Postponements(Protocol):
    """The recorded facts about runs that could not be mirrored."""

    def read(self, names: list[str]) -> None:
        """Read the facts about the workflows of a pass."""

    def is_due(self, name: str) -> bool:
        """Tell whether a run may be tried now."""

    def has(self, name: str) -> bool:
        """Tell whether there is an entry for a run: an attempt failed, or did not finish."""

    def begin(self, name: str) -> None:
        """Record that a run with several versions is being mirrored."""

    def failed(self, name: str, failure: MirrorError) -> None:
        """Record why a run could not be mirrored."""

    def done(self, name: str) -> None:
        """Forget a run: it is mirrored."""
