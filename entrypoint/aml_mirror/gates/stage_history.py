"""Shows which version had which stage of a model, since when, and why: ``aml-mirror history``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aml_mirror.core.errors import SourceNotFound, UsageError
from aml_mirror.core.settings import Settings
from aml_mirror.gates.reference import parse_stage_reference
from aml_mirror.gates.stage_journal import stages_of_model
from aml_mirror.registries.registry import open_registry
from aml_mirror.registries.stages import StageEntry, carried_out, head_of
from aml_mirror.support.progress import Console, one_line

SCHEMA = "aml-mirror/history/v1"


@dataclass(frozen=True, slots=True)
class StageHistory:
    """The entries of a model's stages, the oldest first."""

    model: str
    holders: dict[str, str]
    """Stage -> the number of the version that has it; empty: none."""
    entries: list[tuple[StageEntry, bool]]
    """Each with whether it was carried out."""

    def as_dict(self) -> dict[str, Any]:
        """The object that ``history --json`` prints."""
        return {
            "schema": SCHEMA,
            "exit_code": 0,
            "model_name": self.model,
            "stages": {stage: number or None for stage, number in self.holders.items()},
            "entries": [{**entry.as_dict(), "carried_out": done} for entry, done in self.entries],
        }

    def text(self) -> str:
        """Return the history as a table."""
        if not self.holders:
            return f"no version of {self.model} ever had a stage"
        current = [
            f"{self.model}@{stage}: {'version ' + number if number else 'no version'}"
            for stage, number in sorted(self.holders.items())
        ]
        if not self.entries:
            return "\n".join(current)
        rows = [("when", "stage", "what", "version", "before", "by", "evaluations", "why")]
        for entry, done in self.entries:
            rows.append(
                (
                    entry.at,
                    entry.stage,
                    entry.action + ("" if done else " (not carried out)"),
                    entry.version or "none",
                    entry.previous or "none",
                    entry.by,
                    str(len(entry.evidence)),
                    entry.why,
                )
            )
        widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
        lines = [*current, ""]
        lines += [
            one_line("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
            for row in rows
        ]
        return "\n".join(lines)


def history(settings: Settings, console: Console) -> StageHistory:
    """Return the history of the model, or of the single stage, that the settings name.

    Raises:
        UsageError: the settings name neither.
        SourceNotFound: there is no such model.
    """
    reference = settings.reference or settings.model_name
    if "@" in reference:
        model, only = parse_stage_reference(reference, "history")
    else:
        model, only = reference.removeprefix("models:/").removeprefix("azureml:"), ""
    if not model or ":" in model or "/" in model:
        raise UsageError(
            f"{reference!r} names no model",
            "for example: aml-mirror history act-pick, or act-pick@production",
        )
    registry = open_registry(settings, console.say)
    store = stages_of_model(registry, model)
    journal = [entry for entry in store.journal() if only in ("", entry.stage)]
    if not journal and model not in registry.model_names():
        raise SourceNotFound(
            f"there is no model {model} in {registry.description}", "check the name and the registry"
        )
    holders: dict[str, str] = {}
    rows: list[tuple[StageEntry, bool]] = []
    for stage in sorted({entry.stage for entry in journal} | ({only} if only else set())):
        entries = [entry for entry in journal if entry.stage == stage]
        holder = store.holder(stage)
        done = {entry.sequence for entry in carried_out(entries, head_of(entries, holder))}
        holders[stage] = holder.version.number if holder else ""
        rows += [(entry, entry.sequence in done) for entry in entries]
    return StageHistory(
        model, holders, sorted(rows, key=lambda row: (row[0].at, row[0].stage, row[0].sequence))
    )
