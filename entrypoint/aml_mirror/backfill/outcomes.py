"""Handles the results of a backfill's runs: reports and counts them, and decides whether to continue."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import replace

from aml_mirror.backfill.copied_runs import CopiedRuns
from aml_mirror.backfill.discovery import failure_of
from aml_mirror.backfill.summary import Summary
from aml_mirror.core.errors import (
    ConfigurationError,
    Interrupted,
    MirrorError,
    NotAllowed,
    ServiceUnavailable,
)
from aml_mirror.core.settings import Settings
from aml_mirror.pipeline.receipt import Facts, Progress, Receipt, failed, receipt_of
from aml_mirror.support.progress import Console
from aml_mirror.telemetry.record import span

SHORT_RETRY = 60.0  # seconds
GIVE_UP_AFTER = 3  # runs
_MAX_WARNINGS = 20

Work = Callable[[list[Receipt]], str]
"""Mirrors one run and adds its receipts to a list, or returns why the run was left out."""


class Outcomes:
    """Takes the results of runs, one after the other.

    If a service is unavailable, the first run waits as long as ``--retry-for`` says, later runs wait
    ``SHORT_RETRY`` seconds.

    Args:
        settings: of this call.
        console: output for the user.
        tell: receives the receipt of each version, and of each run that failed or was skipped.
        summary: counts the results.
        be_patient_for: sets how long a request may keep failing, in seconds.
        require_services: called with the failure and the number of runs after ``GIVE_UP_AFTER`` runs in a row
            found a service unavailable; raises if no other run can be mirrored either.
    """

    def __init__(
        self,
        settings: Settings,
        console: Console,
        tell: Callable[[Receipt], None],
        summary: Summary,
        be_patient_for: Callable[[float], None],
        require_services: Callable[[MirrorError, int], None],
    ) -> None:
        self.summary = summary
        self._settings = settings
        self._console = console
        self._tell = tell
        self._be_patient_for = be_patient_for
        self._require_services = require_services
        self._copies = CopiedRuns()
        self._down = 0
        # The current run, and its results so far.
        self._current: tuple[Progress, list[Receipt], float] | None = None

    @property
    def copies(self) -> CopiedRuns:
        """Which run had which files first."""
        return self._copies

    def take(self, progress: Progress, work: Work) -> MirrorError | None:
        """Do the work of one run. If it fails for a reason of its own, return the failure.

        Raises:
            NotAllowed, ConfigurationError: every other run would fail in the same way.
            ServiceUnavailable: several runs in a row found the service unavailable.
        """
        started = time.monotonic()
        done: list[Receipt] = []
        self._current = progress, done, started
        failure: MirrorError | None = None
        skipped = ""
        try:
            with span("run", run_id=progress.facts.run_id):
                skipped = work(done)
        except Exception as error:  # noqa: BLE001 - a bug that one run reveals must not stop the others
            failure = failure_of(error)
        self._current = None
        if failure is None:
            if skipped:
                self.skipped(progress.facts, skipped)
            else:
                self._done(done)
            return None
        if self._settings.debug:
            self._console.say("".join(traceback.format_exception(failure)))
        self._failed(progress, done, started, failure)
        # One run may be unreadable. But if the target refuses, every remaining run would fail the same way.
        if isinstance(failure, (NotAllowed, ConfigurationError)) and not failure.concerns_one_run:
            raise failure
        if isinstance(failure, ServiceUnavailable):
            self._wait_less(failure)
        return failure

    def stopped(self, error: MirrorError | Interrupted) -> None:
        """Record why the work ended early."""
        if isinstance(error, Interrupted) and self._current is not None:
            self._failed(*self._current, error)
        summary = self.summary
        summary.outcome, summary.stop_code = "stopped", error.exit_code
        summary.error, summary.hint = error.message, error.hint or None

    def skipped(self, facts: Facts, why: str) -> None:
        """Report a run that was left out."""
        receipt = receipt_of(facts, outcome="skipped", exit_code=0, warnings=(why,))
        self._tell(receipt)
        self.summary.add([receipt])

    def _done(self, receipts: list[Receipt]) -> None:
        for place, receipt in enumerate(receipts):
            if other := self._copies.note(str(receipt.run_id), receipt.manifest_sha256):
                told = f"its files are those of {other}; --skip-copies registers one of them"
                receipts[place] = replace(receipt, warnings=(*receipt.warnings, told))
                self.summary.add_copy(str(receipt.run_id), other)
        for receipt in receipts:
            self._tell(receipt)
        self.summary.add(receipts)
        mirrored = [receipt for receipt in receipts if receipt.outcome in ("mirrored", "updated")]
        for receipt in mirrored:
            for warning in receipt.warnings[:_MAX_WARNINGS]:
                self._console.warn(f"{receipt.run_id}: {warning}")
            self._console.say(f"{receipt.outcome} {receipt.run_id} as {receipt.model_uri}")
        if mirrored and self._down:
            self._down = 0
            self._be_patient_for(self._settings.retry_seconds)

    def _failed(
        self, progress: Progress, done: list[Receipt], started: float, failure: MirrorError | Interrupted
    ) -> None:
        seconds = time.monotonic() - started
        receipt = failed(progress.facts, failure.exit_code, failure.message, failure.hint, seconds)
        receipts = [*done, receipt]
        for one in receipts:
            self._tell(one)
        self.summary.add(receipts)
        hint = f"; {failure.hint}" if failure.hint else ""
        self._console.fail(f"{receipt.run_id}: {failure.message}{hint}")

    def _wait_less(self, failure: ServiceUnavailable) -> None:
        self._down += 1
        self._be_patient_for(min(self._settings.retry_seconds, SHORT_RETRY))
        if self._down >= GIVE_UP_AFTER:
            self._require_services(failure, self._down)
