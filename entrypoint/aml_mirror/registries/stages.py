"""Stages of a model: which version has which stage, and the journal of all changes.

At most one version of a model has a stage ("production"). It is the stage's *holder*. To change it, a program
takes the lock of the model, writes an entry into the journal, and then moves the stage:

1. The entry says who, when, why, and on which evidence. It is never changed.
2. One request gives the stage to the new holder. From this moment it counts. On Azure ML it writes two tags
   of the version: the stage, and the number and digest of the entry. On MLflow it sets the alias.
3. The former holder loses the stage.

If an operation is interrupted before 2, nothing happened, and its entry counts as not carried out. If it is
interrupted after 2, the new holder is the one with the higher number, and the next operation completes 3.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from aml_mirror.core.errors import UsageError
from aml_mirror.core.manifest import digest_of_json
from aml_mirror.registries.keys import STAGE
from aml_mirror.registries.records import Version

SCHEMA = "aml-mirror/stage-entry/v1"
PROMOTE, DEMOTE, ROLLBACK = "promote", "demote", "rollback"
# For a version: the entry that gave it a stage; the stage's name follows. The tag ``mirror.stage`` has its
# stages, separated by commas.
ENTRY = "mirror.stage."
# Aliases to which MLflow, or this program, gives a special meaning.
_TAKEN = ("latest", "final", "best")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")


@dataclass(frozen=True, slots=True)
class StageEntry:
    """One entry of the journal."""

    stage: str
    sequence: int
    """Counts the entries of a stage, from 1."""
    action: str
    """``promote``, ``demote`` or ``rollback``."""
    version: str
    """The number of the version that gets the stage; empty: the stage is taken away."""
    previous: str
    """The number of the version that had it; empty: none."""
    follows: int
    """The number of the valid entry when this one was written; 0: none."""
    at: str
    """The time, in UTC, as ISO 8601."""
    by: str
    """The person, as the machine knows them."""
    why: str = ""
    """The reason that was given."""
    manifest_sha256: str = ""
    """The manifest digest of the version that gets the stage."""
    evidence: tuple[str, ...] = ()
    """The ids of the evaluations that were counted."""
    policy_sha256: str = ""
    """Digest of the policy; empty: none was given."""
    conditions: tuple[dict[str, str], ...] = field(default=())
    """The requirements and findings."""

    @property
    def digest(self) -> str:
        """The digest that pins the entry, in hexadecimal."""
        return digest_of_json(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """The entry for the journal and for people."""
        return {"schema": SCHEMA, **asdict(self)}

    def as_json(self) -> str:
        """Return the result as text."""
        return json.dumps(self.as_dict(), ensure_ascii=False)


def parse_entry(text: str | bytes) -> StageEntry | None:
    """Parse an entry; None if it is not one."""
    try:
        found = json.loads(text)
        if found.pop("schema") != SCHEMA:
            return None
        found["evidence"] = tuple(str(item) for item in found["evidence"])
        found["conditions"] = tuple(dict(item) for item in found["conditions"])
        entry = StageEntry(**found)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return entry if type(entry.sequence) is int and type(entry.follows) is int else None


@dataclass(frozen=True, slots=True)
class Holder:
    """The version that has a stage, and the number of the entry that gave it; 0: there is no entry."""

    version: Version
    sequence: int


class StageStore(Protocol):
    """The stages of one model."""

    def lock(self) -> AbstractContextManager[Callable[[], None]]:
        """Lock the stages of the model against other programs.

        Yields:
            a function that raises if another program may have the lock; call it before each write.
        """

    def holder(self, stage: str) -> Holder | None:
        """Return the version that has a stage, or None."""

    def journal(self) -> list[StageEntry]:
        """Return all entries of all stages, by stage and number."""

    def append(self, entry: StageEntry) -> None:
        """Write an entry.

        Raises:
            ServiceUnavailable: an entry with its number exists already.
        """

    def move(self, entry: StageEntry, to: Version | None, require_allowed: Callable[[], None]) -> None:
        """Give a stage to a version, or take it away, and take it from all others.

        Args:
            entry: the entry to carry out; it is in the journal.
            to: the new holder; None: nobody.
            require_allowed: see :meth:`lock`.
        """


def check_stage(name: str) -> str:
    """Return the name of a stage.

    Raises:
        UsageError: the name is not allowed.
    """
    if not _NAME.fullmatch(name) or name in _TAKEN or re.fullmatch(r"v\d+", name):
        raise UsageError(
            f"{name!r} cannot be the name of a stage: use up to 40 lower-case letters, digits and '-', "
            f"beginning with a letter, and not {', '.join(_TAKEN)} or v1, v2, …",
            "for example: staging, production",
        )
    return name


def stages_of(tags: Mapping[str, str]) -> list[str]:
    """Return the stages in a version's tags."""
    return [name for name in tags.get(STAGE, "").split(",") if name]


def mark_of(entry: StageEntry) -> str:
    """Return the value of a version's tag that names the entry for its stage."""
    return f"{entry.sequence} {entry.digest} {entry.at} by {entry.by}"[:250]


def parse_mark(tags: Mapping[str, str], stage: str) -> tuple[int, str]:
    """Return number and digest of the entry in a version's tags; (0, ""): none."""
    match = re.match(r"(\d{1,9}) ([0-9a-f]{64})\b", tags.get(ENTRY + stage, ""))
    return (int(match[1]), match[2]) if match else (0, "")


def tags_with(tags: Mapping[str, str], entry: StageEntry) -> dict[str, str]:
    """Return the tags that give a version a stage."""
    names = sorted({*stages_of(tags), entry.stage})
    return {STAGE: ",".join(names), ENTRY + entry.stage: mark_of(entry)}


def tags_without(tags: Mapping[str, str], stage: str) -> tuple[dict[str, str], list[str]]:
    """Return the changes that take a stage from a version: the tags to write, and those to remove."""
    names = [name for name in stages_of(tags) if name != stage]
    removed = [ENTRY + stage] if ENTRY + stage in tags else []
    if names:
        return ({STAGE: ",".join(names)} if stage in stages_of(tags) else {}), removed
    return {}, [*removed, *([STAGE] if STAGE in tags else [])]


def carried_out(entries: list[StageEntry], head: int) -> list[StageEntry]:
    """Return the entries of one stage that were carried out, the oldest first.

    Args:
        entries: all entries of the stage.
        head: the number of the valid one.
    """
    by_number = {entry.sequence: entry for entry in entries}
    found = []
    while (entry := by_number.get(head)) is not None:
        found.append(entry)
        if not 0 <= entry.follows < head:
            break
        head = entry.follows
    return found[::-1]


def head_of(entries: list[StageEntry], holder: Holder | None) -> int:
    """Return the number of the valid entry of a stage; 0: none.

    Args:
        entries: all entries of the stage.
        holder: the version that has the stage.
    """
    if holder is not None:
        return holder.sequence
    # No version has it: the last entry removed it, or no entry since then was carried out.
    last = next((entry for entry in reversed(entries) if entry.action == DEMOTE), None)
    return last.sequence if last else 0
