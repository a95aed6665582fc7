"""What a pass over OSMO's list asks of the journal of earlier passes."""

from __future__ import annotations

from typing import Protocol

from aml_mirror.core.errors import MirrorError


class Postponements(Protocol):
    """What is known of runs that could not be mirrored."""

    def read(self, names: list[str]) -> None:
        """Learn what is known of the workflows of a pass."""

    def is_due(self, name: str) -> bool:
        """Return whether a run may be looked at now."""

    def has(self, name: str) -> bool:
        """Return whether something is known of a run: an attempt failed, or did not end."""

    def begin(self, name: str) -> None:
        """Note that a run which becomes several versions is being mirrored."""

    def failed(self, name: str, failure: MirrorError) -> None:
        """Note why a run could not be mirrored."""

    def done(self, name: str) -> None:
        """Forget a run: it is mirrored."""
