"""What this program stored in a registry, to find out what is no longer needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from aml_mirror.registries.records import Version

FOLDER, STAGING, CLAIM, RUN = "folder", "staging", "claim", "run"


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob in the folder of this program. ``age`` is how long ago it was written, in seconds."""

    name: str
    bytes: int
    age: float
    is_leased: bool = False


@dataclass(frozen=True, slots=True)
class StagingLeft:
    """A staging folder. ``age`` is how long ago something was written there, in seconds."""

    name: str
    files: int
    bytes: int
    age: float


@dataclass(frozen=True, slots=True)
class RunLeft:
    """An MLflow run of this program. ``age``: seconds since a mirror created it or gave up on it."""

    run_id: str
    status: str
    tags: Mapping[str, str]
    age: float


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything that this program stored in a registry and its storage."""

    versions: tuple[Version, ...]
    """Versions of all models, including archived ones, whoever made them."""
    runs: tuple[RunLeft, ...]
    blobs: tuple[StoredBlob, ...] = ()
    """Everything below ``aml-mirror/`` except the staging folders."""
    staging: tuple[StagingLeft, ...] = ()
    notes: tuple[str, ...] = ()
    """What a person should know before anything is removed."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that no version needs."""

    kind: str
    name: str
    """A blob, a folder without a slash at its end, or the id of a run."""
    files: int
    bytes: int
    age: float
    why: str
    identity: str = ""
    """For a folder: the identity whose claims must be held while it is removed."""
    models: tuple[str, ...] = field(default=())
    """For a folder: the models for which it was begun."""


class Leftovers(Protocol):
    """Finds what is stored in a registry, and removes parts of it."""

    def survey(self) -> Survey:
        """Return what exists now.

        Raises:
            MirrorError: something cannot be listed; then nothing may be removed.
        """

    def remove(self, item: Leftover) -> str:
        """Remove something. Return why it was left; empty: it was removed.

        Anything that changed since it was listed, or is being written, is left.
        """
