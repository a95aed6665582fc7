"""Stores the receipts of a long backfill in the registry: OSMO keeps only the last 1,000 lines of a task's
log.

They are texts of JSON lines in the state store ``backfill-<id>``, written while the work continues. All
shards of one backfill have the same id. The name of a process's receipts contains its start time. So a task
that OSMO runs again adds to those of its first attempt. A backfill of few runs stores nothing, because its
log is complete.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from aml_mirror.core.errors import MirrorError, SourceNotFound
from aml_mirror.core.settings import Settings
from aml_mirror.pipeline.receipt import Receipt
from aml_mirror.registries.base import Registry, StateStore
from aml_mirror.registries.keys import STATE_EXPERIMENT
from aml_mirror.registries.registry import open_registry
from aml_mirror.support.progress import one_line

# With fewer receipts than this, the log contains them all.
KEEP_FROM = 100
# A text is written after this many receipts, or this many seconds.
TEXT_RECEIPTS = 200
TEXT_SECONDS = 300.0


def new_id() -> str:
    """Return an id for a backfill without one."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"


def _store(registry: Registry, settings: Settings, backfill_id: str) -> StateStore:
    return registry.state_store(settings.experiment or STATE_EXPERIMENT, f"backfill-{backfill_id}")


class KeptReceipts:
    """Takes the receipts of one process, and stores them once there are many.

    Args:
        settings: of this call.
        backfill_id: names the backfill.
        warn: called once, to say that they cannot be stored; the work continues.
    """

    def __init__(self, settings: Settings, backfill_id: str, warn: Callable[[str], None]) -> None:
        self._settings, self._id, self._warn = settings, backfill_id, warn
        self._lines: list[str] = []
        self._count = self._texts = 0
        self._written = time.monotonic()
        shard = str(settings.shard).replace("/", "-of-") if settings.shard else "all"
        self._name = f"{shard}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:4]}"
        self._store: StateStore | None = None
        self._failed = False

    def take(self, receipt: Receipt) -> None:
        """Add one receipt."""
        self._lines.append(receipt.line())
        self._count += 1
        late = time.monotonic() - self._written > TEXT_SECONDS
        if self._count >= KEEP_FROM and (late or len(self._lines) >= TEXT_RECEIPTS or not self._texts):
            self._write()

    def close(self) -> bool:
        """Store the remaining receipts; return whether receipts are stored."""
        if self._texts and self._lines:
            self._write()
        return bool(self._texts) and not self._failed

    def _write(self) -> None:
        if self._failed:
            return
        try:
            if self._store is None:
                self._store = _store(
                    open_registry(self._settings, lambda text: None), self._settings, self._id
                )
            self._store.put_text(f"{self._name}-{self._texts:05d}.jsonl", "\n".join(self._lines) + "\n")
        except MirrorError as error:
            self._failed = True
            self._warn(
                "the receipts are only in the log, because they cannot be stored in the registry "
                f"({error.message})"
            )
            return
        self._lines.clear()
        self._texts += 1
        self._written = time.monotonic()


def kept_receipts(settings: Settings, notice: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Yield the receipts of the backfill that the settings name: for each version or failed run, the last
    one.

    Raises:
        SourceNotFound: none are stored under this id.
        MirrorError: the registry cannot be read.
    """
    registry = open_registry(settings, notice)
    store = _store(registry, settings, settings.backfill_id)
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    texts = sorted(store.texts(), key=lambda item: re.sub(r"^.*?-(?=\d{8}T)", "", item[0]))
    for _, text in texts:
        for line in text.splitlines():
            receipt = json.loads(line)
            key = tuple(receipt.get(name) for name in ("run_id", "model_name", "checkpoint"))
            failed = receipt.get("outcome") == "failed"
            found.pop(key, None)
            found[(*key, "failed") if failed else key] = receipt
            if not failed:
                found.pop((*key, "failed"), None)
    if not texts:
        raise SourceNotFound(
            f"no receipts of the backfill {settings.backfill_id} are stored",
            f"check the id, which is in the last line of the backfill; a backfill of fewer than {KEEP_FROM} "
            "runs has its receipts only in its log; if it used --experiment, pass the same one",
        )
    yield from found.values()


def text(receipt: dict[str, Any]) -> str:
    """Return one receipt as a line of text."""
    what = receipt.get("model_uri") or receipt.get("error") or "; ".join(receipt.get("warnings") or ())
    return one_line(f"{receipt.get('outcome'):<17}{receipt.get('run_id')}  {what}")
