"""Takes a stage away, gives it back to the version that had it before, and reports how this came about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aml_mirror.core.errors import SourceNotFound, UsageError
from aml_mirror.core.settings import Settings
from aml_mirror.gates.candidate import check_candidate
from aml_mirror.gates.policy import Policy
from aml_mirror.gates.promotion import require_version
from aml_mirror.gates.reference import parse_stage_reference
from aml_mirror.gates.stage_journal import blank_entry, stages_of_model, write_change
from aml_mirror.pipeline.provenance import signing
from aml_mirror.registries.registry import open_registry
from aml_mirror.registries.stages import (
    DEMOTE,
    ROLLBACK,
    Holder,
    StageEntry,
    StageStore,
    carried_out,
    head_of,
)
from aml_mirror.safety.words import HARMLESS
from aml_mirror.support.progress import Console

SCHEMA = "aml-mirror/stage/v1"


@dataclass(frozen=True, slots=True)
class StageChange:
    """What happened to a stage."""

    outcome: str
    """``demoted`` or ``rolled-back``; with ``dry_run``, what it would be."""
    model: str
    stage: str
    previous: str
    """The number of the version that had it."""
    version: str
    """The number of the version that has it now; empty: none."""
    entry: StageEntry | None
    dry_run: bool

    def as_dict(self) -> dict[str, Any]:
        """The object that the command prints with ``--json``."""
        return {
            "schema": SCHEMA,
            "outcome": self.outcome,
            "exit_code": 0,
            "model_name": self.model,
            "stage": self.stage,
            "model_version": self.version or None,
            "previous_version": self.previous or None,
            "changed": self.entry is not None,
            "dry_run": self.dry_run,
            "entry": self.entry.sequence if self.entry else None,
        }

    def text(self) -> str:
        """Return the result as text."""
        now = f"version {self.version} has it" if self.version else "no version has it"
        before = f"version {self.previous} had it" if self.previous else "no version had it"
        if self.dry_run:
            return f"{self.model}@{self.stage}: {before}, {now} then (dry run, nothing was written)"
        return f"{self.outcome}: {self.model}@{self.stage}: {before}, {now} now"


def demote(settings: Settings, console: Console) -> StageChange:
    """Take the stage that the settings name away from its version.

    Raises:
        UsageError: the settings name no stage.
        SourceNotFound: no version has it.
    """
    model, stage = parse_stage_reference(settings.reference, "demote")
    registry = open_registry(settings, console.say)
    store = stages_of_model(registry, model)
    if settings.dry_run:
        holder = _required(store, model, stage)
        return StageChange("demoted", model, stage, holder.version.number, "", None, True)
    with store.lock() as require_allowed:
        holder = _required(store, model, stage)
        entry = write_change(
            store, registry, blank_entry(stage, DEMOTE, settings.reason), holder, None, require_allowed
        )
    return StageChange("demoted", model, stage, holder.version.number, "", entry, False)


def rollback(settings: Settings, console: Console) -> StageChange:
    """Give the stage that the settings name back to the version that had it before.

    The version's bytes are read again, and its safety verdict must be harmless. With public keys it must be
    signed. If called again, it goes back further.

    Raises:
        UsageError: no stage is named, or no version had it before.
        SourceNotFound: the version that had it no longer exists.
        DataError: that version can no longer be trusted.
    """
    model, stage = parse_stage_reference(settings.reference, "rollback")
    keys = [signing.public_key(path) for path in settings.public_keys]
    registry = open_registry(settings, console.say)
    store = stages_of_model(registry, model)
    # Checked without the lock, which others may need meanwhile. Afterwards we check that it is still the
    # right version.
    _, number = _target(store, model, stage)
    version = require_version(registry, model, number)
    policy = Policy(safety=tuple(sorted(HARMLESS)), signed_version=bool(keys))
    check_candidate(registry, version, policy, keys, settings, console)
    if settings.dry_run:
        holder = store.holder(stage)
        return StageChange(
            "rolled-back", model, stage, holder.version.number if holder else "", number, None, True
        )
    with store.lock() as require_allowed:
        holder, target = _target(store, model, stage)
        if target != number:
            raise UsageError(
                f"{model}@{stage} was changed meanwhile: the version before is now {target}, not {number}",
                "look at 'aml-mirror history', then run the command again",
            )
        entry = write_change(
            store, registry, blank_entry(stage, ROLLBACK, settings.reason), holder, version, require_allowed
        )
    return StageChange(
        "rolled-back", model, stage, holder.version.number if holder else "", number, entry, False
    )


def _required(store: StageStore, model: str, stage: str) -> Holder:
    holder = store.holder(stage)
    if holder is None:
        raise SourceNotFound(
            f"no version of {model} has the stage {stage}", f"see: aml-mirror history {model}"
        )
    return holder


def _target(store: StageStore, model: str, stage: str) -> tuple[Holder | None, str]:
    """Return the version that has the stage, and the number of the version that had it before."""
    holder = store.holder(stage)
    entries = [entry for entry in store.journal() if entry.stage == stage]
    number = version_before(carried_out(entries, head_of(entries, holder)))
    if not number:
        raise UsageError(
            f"no version had the stage {stage} of {model} before", f"see: aml-mirror history {model}"
        )
    return holder, number


def version_before(entries: Sequence[StageEntry]) -> str:
    """Return the number of the version to go back to; empty: there is none.

    Args:
        entries: the entries of one stage that were carried out, the oldest first.
    """
    held: list[str] = []
    for entry in entries:
        if entry.action == ROLLBACK:
            # A rollback never returns to a version that was rolled back. It may have started from no version
            # at all.
            while held and held[-1] != entry.version:
                held.pop()
        else:
            held.append(entry.version)
    if held and held[-1] == "":
        # The stage was taken away, so its last version is the one to go back to.
        return next((number for number in reversed(held) if number), "")
    current = held[-1] if held else ""
    return next((number for number in reversed(held[:-1]) if number and number != current), "")
