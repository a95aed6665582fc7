"""Records a change of a stage: first an entry of the journal, then the stage itself."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from aml_mirror.core.errors import ConfigurationError
from aml_mirror.gates.decision import Condition
from aml_mirror.registries import keys
from aml_mirror.registries.base import Registry
from aml_mirror.registries.records import Version
from aml_mirror.registries.stages import Holder, StageEntry, StageStore, head_of

# MLflow's databases store up to 5,000 characters of a tag.
MAX_ENTRY = 4_500
MAX_WHY = 500
MOST_EVIDENCE = 20


def stages_of_model(registry: Registry, model: str) -> StageStore:
    """Return the stages of a model.

    Raises:
        ConfigurationError: the registry does not support stages.
    """
    found = registry.stages(model)
    if found is None:
        raise ConfigurationError(
            f"{registry.description} has no stages", "use Azure ML, or an MLflow server from 2.3 on"
        )
    return found


def write_change(
    store: StageStore,
    registry: Registry,
    entry: StageEntry,
    holder: Holder | None,
    to: Version | None,
    require_allowed: Callable[[], None],
) -> StageEntry:
    """Write an entry under the next number, carry it out, and return it.

    Args:
        store: its lock is held.
        registry: identifies the person.
        entry: the entry without number, time and person.
        holder: the version that has the stage now.
        to: the version that gets it; None: no version.
        require_allowed: the check of the lock.
    """
    entries = [one for one in store.journal() if one.stage == entry.stage]
    entry = fitted(
        replace(
            entry,
            sequence=max((one.sequence for one in entries), default=0) + 1,
            follows=head_of(entries, holder),
            previous=holder.version.number if holder else "",
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            by=person(registry),
            version=to.number if to else "",
            manifest_sha256=to.tags.get(keys.MANIFEST_SHA256, "") if to else "",
        )
    )
    require_allowed()
    store.append(entry)
    store.move(entry, to, require_allowed)
    return entry


def blank_entry(
    stage: str,
    action: str,
    why: str,
    evidence: Sequence[str] = (),
    policy_sha256: str = "",
    conditions: Sequence[Condition] = (),
) -> StageEntry:
    """Return an entry for :func:`write_change` to fill."""
    return StageEntry(
        stage,
        0,
        action,
        "",
        "",
        0,
        "",
        "",
        why[:MAX_WHY],
        "",
        tuple(one[:16] for one in evidence[:MOST_EVIDENCE]),
        policy_sha256,
        tuple(one.as_dict() for one in conditions),
    )


def fitted(entry: StageEntry) -> StageEntry:
    """Return an entry that is short enough. Conditions are dropped from the end."""
    while entry.conditions and len(entry.as_json()) > MAX_ENTRY:
        entry = replace(entry, conditions=entry.conditions[:-1])
    return entry


def person(registry: Registry) -> str:
    """Return who this is: the name that the registry knows, and the machine."""
    try:
        local = getpass.getuser()
    except (KeyError, OSError, ImportError):  # A pod's user has no name.
        local = "unknown"
    where = f"{local}@{socket.gethostname()}"
    known = registry.user()
    return f"{known}, {where}"[:150] if known else where[:150]
