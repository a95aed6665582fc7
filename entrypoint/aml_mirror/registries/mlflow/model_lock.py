"""A lock on a registered model of an MLflow server, which has no compare-and-set operation.

Each program that wants the lock writes its own tag, ``mirror.lock.<owner>``, with a lease
(:mod:`.run_lease`). The lease's ticket is its place in the queue, as in Lamport's bakery algorithm
(:mod:`.bakery_lock`): at first the state "choosing", then a number above all existing tickets. The program
with the lowest ticket has the lock. A lease is dead if its counter has not changed for ``STALE_SECONDS``, or
if its process is known to have ended. Any program that sees a dead lease removes it.

A holder that was suspended for so long that others may consider it dead gives up before its next write. Its
own clock shows that.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mlflow import MlflowClient

from aml_mirror.core.errors import MirrorError
from aml_mirror.registries.mlflow.run_lease import (
    CHOOSING,
    RENEW_SECONDS,
    STALE_SECONDS,
    Keeper,
    Lease,
    Watch,
)
from aml_mirror.registries.mlflow_errors import is_missing
from aml_mirror.registries.mlflow_runs import lost_claim
from aml_mirror.support.retry import Retry

PREFIX = "mirror.lock."
POLL_SECONDS = 0.5
# The owner stops trusting its lease long before another program considers it dead.
TRUST_SECONDS = STALE_SECONDS / 2


class ModelLock:
    """Args:
    client, model: the server's client and the name of the model.
    retry: retries every request.
    notice: called once, with a message that the program waits for another.
    """

    def __init__(self, client: MlflowClient, model: str, retry: Retry, notice: Callable[[str], None]) -> None:
        self._client = client
        self._model = model
        self._retry = retry
        self._notice = notice
        self._keeper = Keeper()
        self._key = PREFIX + self._keeper.owner
        self._watches: dict[str, Watch] = defaultdict(Watch)
        self._renewed = 0.0
        self._lost = False
        self._stop = threading.Event()

    @contextmanager
    def held(self) -> Iterator[Callable[[], None]]:
        """Hold the lock. Yields a function that raises if another program may have the lock by now.

        Raises:
            MirrorError: the server does not answer.
        """
        try:
            self._acquire()
            thread = threading.Thread(target=self._keep, name="model lock", daemon=True)
            thread.start()
            yield self._require
        finally:
            self._stop.set()
            self._release()

    def _acquire(self) -> None:
        told = False
        self._enter()
        while True:
            others = self._others()
            if others is None:
                # Another program considered us dead while we waited.
                self._enter()
                continue
            own = (self._keeper.ticket, self._keeper.owner)
            if not any(
                lease.ticket == CHOOSING or (lease.ticket, lease.owner) < own for lease in others.values()
            ):
                return
            if not told:
                told = True
                self._notice(f"another process changes the stages of {self._model}; waiting for it")
            time.sleep(POLL_SECONDS)
            self._write()

    def _enter(self) -> None:
        self._keeper.ticket = CHOOSING
        self._write()
        others = self._others() or {}
        self._keeper.ticket = 1 + max((lease.ticket for lease in others.values()), default=0)
        self._write()

    def _write(self) -> None:
        begun = time.monotonic()
        note = self._keeper.note()
        self._retry(lambda: self._client.set_registered_model_tag(self._model, self._key, note))
        if time.monotonic() - begun < TRUST_SECONDS:
            self._renewed = begun

    def _others(self) -> dict[str, Lease] | None:
        """The live leases of others, by key. None if our own is gone."""
        tags = self._retry(lambda: self._client.get_registered_model(self._model)).tags
        found = {}
        for key, text in tags.items():
            lease = Lease.parse(text) if key.startswith(PREFIX) and key != self._key else None
            if key.startswith(PREFIX) and key != self._key:
                if lease is None or self._watches[key].is_dead(lease):
                    self._remove(key)
                else:
                    found[key] = lease
        return found if self._keeper.holds(tags.get(self._key)) else None

    def _require(self) -> None:
        if not self._lost and time.monotonic() - self._renewed >= TRUST_SECONDS:
            self._renew()
        if self._lost or time.monotonic() - self._renewed >= TRUST_SECONDS:
            raise lost_claim(f"the stages of {self._model}")

    def _keep(self) -> None:
        while not self._stop.wait(RENEW_SECONDS) and not self._lost:
            self._renew()

    def _renew(self) -> None:
        """Renew the lease if it still exists and we were not suspended for too long."""
        begun = time.monotonic()
        if begun - self._renewed >= STALE_SECONDS:
            self._lost = True
            return
        try:
            tags = self._client.get_registered_model(self._model).tags
            if not self._keeper.holds(tags.get(self._key)):
                self._lost = True
                return
            self._client.set_registered_model_tag(self._model, self._key, self._keeper.note())
        except Exception:  # noqa: BLE001 - the next one makes up for it, or the lease counts as lost
            return
        if time.monotonic() - begun >= TRUST_SECONDS:
            # Another program may have removed it in between, and we wrote it again.
            self._lost = True
        else:
            self._renewed = begun

    def _release(self) -> None:
        try:
            self._client.delete_registered_model_tag(self._model, self._key)
        except Exception:  # noqa: BLE001 - it runs out by itself
            return

    def _remove(self, key: str) -> None:
        try:
            self._retry(lambda: self._client.delete_registered_model_tag(self._model, key))
        except MirrorError as error:
            if not is_missing(error.__cause__):
                raise
