"""Decides which version of Azure ML has a stage: its tags and the journal must agree."""

from __future__ import annotations

from collections.abc import Callable

from aml_mirror.registries.azureml.limits import FOLDER, safe_part
from aml_mirror.registries.records import Version
from aml_mirror.registries.stages import StageEntry, parse_entry, parse_mark, stages_of

MAX_ENTRY_BYTES = 64 << 10

# Returns the bytes of a blob in the default datastore, by its name; None: there is none.
Read = Callable[[str], bytes | None]


def journal_folder(model: str) -> str:
    """Return the folder of a model's journal in the default datastore, without a slash at its end."""
    return f"{FOLDER}/stages/{safe_part(model)}"


def entry_name(model: str, stage: str, sequence: int) -> str:
    """Return the name of the blob of an entry."""
    return f"{journal_folder(model)}/{stage}/{sequence:06d}.json"


def read_entry(model: str, name: str, read: Read) -> StageEntry | None:
    """Return the entry in a blob; None if it is not an entry, or belongs to another place."""
    data = read(name)
    entry = parse_entry(data) if data else None
    return entry if entry and name == entry_name(model, entry.stage, entry.sequence) else None


def entry_that_gave(version: Version, stage: str, read: Read) -> StageEntry | None:
    """Return the entry that gave a version a stage; None: it does not have it, whatever its tags say."""
    number, digest = parse_mark(version.tags, stage)
    if stage not in stages_of(version.tags) or not number:
        return None
    entry = read_entry(version.model, entry_name(version.model, stage, number), read)
    if entry is None or entry.digest != digest or entry.version != version.number:
        return None
    return entry
