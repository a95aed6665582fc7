"""What a watcher remembers about the runs that it could not mirror, stored only in the registry.

One journal serves all watchers of a registry (:class:`aml_mirror.registries.base.StateStore`, named
``watch``): tags of an MLflow run on an MLflow server, a blob in the default datastore of an Azure ML
workspace. An entry's key is a digest of the watcher's target for runs (model, checkpoint, …) and the
workflow's id. Its value is one JSON object.

A temporary failure (75) is due at the next pass, then after one, two, four, … passes, and at least four times
a day. Any other failure is due after a day: the data must change, or a person must act, before another
attempt can succeed.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from aml_mirror.core.errors import MirrorError, ServiceUnavailable
from aml_mirror.core.settings import Settings
from aml_mirror.registries.base import StateStore
from aml_mirror.support import redaction

NAME = "watch"
DAY = 86_400.0  # seconds
LONGEST_PAUSE = 6 * 3600.0  # seconds, after a service failed
# Entries of workflows that OSMO no longer lists are removed after this time, in seconds.
FORGET_AFTER = 14 * DAY
_MAX_TEXT = 300
BEGUN = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known about one run. ``code``: of its failure, or ``BEGUN``. ``due``: since the epoch."""

    code: int
    attempts: int
    due: float
    error: str = ""

    def as_json(self) -> str:
        """The entry in its stored form."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> Entry | None:
        """Parse an entry; None if it is not one."""
        try:
            found = json.loads(text)
            return cls(int(found["code"]), int(found["attempts"]), float(found["due"]), str(found["error"]))
        except (ValueError, TypeError, KeyError):
            return None


class Journal:
    """See :class:`aml_mirror.backfill.postponements.Postponements`.

    Args:
        store: where it is stored.
        settings: of the watcher.
        clock: seconds since the epoch; for tests.
    """

    def __init__(self, store: StateStore, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._every = settings.every_seconds
        self._clock = clock
        what = (
            settings.model_name, settings.experiment, settings.framework, settings.checkpoint, settings.task
        )  # fmt: skip
        self._prefix = hashlib.sha256(repr(what).encode()).hexdigest()[:8] + "."
        self._entries: dict[str, Entry] = {}

    def read(self, names: list[str]) -> None:
        """Read the entries, and forget workflows that were not listed for long. Raises MirrorError."""
        listed = set(names)
        old: dict[str, str | None] = {}
        self._entries = {}
        for key, text in self._store.entries().items():
            name, entry = key.removeprefix(self._prefix), Entry.parse(text)
            if not key.startswith(self._prefix) or entry is None:
                continue
            if name in listed:
                self._entries[name] = entry
            elif entry.due + FORGET_AFTER < self._clock():
                old[key] = None
        if old:
            self._store.change(old)

    def is_due(self, name: str) -> bool:
        """Tell whether a run may be tried now."""
        return name not in self._entries or self._entries[name].due <= self._clock()

    def has(self, name: str) -> bool:
        """Tell whether there is an entry for a run."""
        return name in self._entries

    def begin(self, name: str) -> None:
        """Record that a run with several versions is being mirrored. After a kill it is due again."""
        attempts = self._entries[name].attempts if name in self._entries else 0
        self._write(name, Entry(BEGUN, attempts, self._clock()))

    def failed(self, name: str, failure: MirrorError) -> None:
        """Record why a run could not be mirrored, and when it is due again."""
        attempts = (self._entries[name].attempts if name in self._entries else 0) + 1
        pause = DAY
        if isinstance(failure, ServiceUnavailable) or failure.exit_code == ServiceUnavailable.exit_code:
            # Half an interval less: passes take time, and the intended pass must find it due.
            pause = 0.0 if attempts == 1 else self._every * (2.0 ** min(attempts - 2, 20) - 0.5)
            pause = min(pause, LONGEST_PAUSE)
        error = redaction.text(failure.message)[:_MAX_TEXT]
        self._write(name, Entry(failure.exit_code, attempts, self._clock() + pause, error))

    def done(self, name: str) -> None:
        """Forget a run: it is mirrored."""
        self._store.change({self._prefix + name: None})
        self._entries.pop(name, None)

    def _write(self, name: str, entry: Entry) -> None:
        self._store.change({self._prefix + name: entry.as_json()})
        self._entries[name] = entry
