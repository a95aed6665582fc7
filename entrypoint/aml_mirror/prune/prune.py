"""Removes what no version needs: ``aml-mirror prune``. Without ``--delete`` it only lists."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aml_mirror.core.errors import ConfigurationError, MirrorError
from aml_mirror.core.settings import Settings
from aml_mirror.prune.unneeded import unneeded
from aml_mirror.registries.leftovers import Leftover
from aml_mirror.registries.registry import open_registry
from aml_mirror.support.progress import Console, amount, one_line

SCHEMA = "aml-mirror/prune/v1"
MAX_LISTED = 200


@dataclass(slots=True)
class Pruned:
    """What is not needed, and what happened to it."""

    registry: str
    items: list[Leftover]
    removed: bool
    """Whether it should be removed."""
    left: dict[str, str] = field(default_factory=dict)
    """The reason why something was left, by name."""
    failure: MirrorError | None = None
    notes: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """The size in bytes, without what was left."""
        return sum(item.bytes for item in self.items if item.name not in self.left)

    @property
    def exit_code(self) -> int:
        """The exit code of the first failure, else 0."""
        return self.failure.exit_code if self.failure else 0

    def as_dict(self) -> dict[str, Any]:
        """The object that ``prune --json`` prints."""
        return {
            "schema": SCHEMA,
            "outcome": "removed" if self.removed else "listed",
            "exit_code": self.exit_code,
            "error": self.failure.message if self.failure else None,
            "registry": self.registry,
            "count": len(self.items),
            "bytes": self.bytes,
            "items": [
                {
                    "kind": item.kind,
                    "name": item.name,
                    "files": item.files,
                    "bytes": item.bytes,
                    "idle_seconds": round(item.age),
                    "reason": item.why,
                    "left": self.left.get(item.name),
                }
                for item in self.items[:MAX_LISTED]
            ],
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """Return the result as a table."""
        if not self.items:
            return f"nothing to remove in {self.registry}"
        rows = [("kind", "size", "files", "idle", "what", "why")]
        for item in self.items[:MAX_LISTED]:
            rows.append(
                (
                    item.kind,
                    amount(item.bytes) if item.kind != "run" else "",
                    str(item.files or ""),
                    f"{item.age / 86_400:.1f} d",
                    item.name,
                    f"left: {self.left[item.name]}" if item.name in self.left else item.why,
                )
            )
        widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        if len(self.items) > MAX_LISTED:
            lines.append(f"… and {len(self.items) - MAX_LISTED} more")
        lines += [f"note: {note}" for note in self.notes]
        done = len(self.items) - len(self.left)
        lines.append(
            f"{done} removed, {amount(self.bytes)} freed"
            if self.removed
            else f"{len(self.items)} could be removed, {amount(self.bytes)}; to remove them, pass --delete"
        )
        return "\n".join(map(one_line, lines))


def prune(settings: Settings, console: Console) -> Pruned:
    """List, or remove, what no version needs and is older than the settings say.

    Raises:
        ConfigurationError: the registry does not support it.
        MirrorError: something cannot be listed; then nothing was removed.
    """
    registry = open_registry(settings, console.say)
    leftovers = registry.leftovers()
    if leftovers is None:
        raise ConfigurationError(f"{registry.description} cannot be pruned", "remove it by hand")
    survey = leftovers.survey()
    items = unneeded(survey, settings.older_than)
    result = Pruned(registry.description, items, settings.delete, notes=survey.notes)
    if not settings.delete:
        return result
    with console.stage("removing", len(items), "items") as progress:
        for item in items:
            try:
                if why := leftovers.remove(item):
                    result.left[item.name] = why
            except MirrorError as error:
                result.left[item.name] = error.message
                result.failure = result.failure or error
                console.warn(f"{item.name} was left: {error.message}")
            progress(1)
    return result
