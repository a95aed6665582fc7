"""Makes pass after pass over OSMO's list, and mirrors what has completed.

Each pass starts again from the registry: versions show what is mirrored, the journal shows what failed. So a
watcher can be killed and started anywhere, and two at once do no harm: a version is created under a claim, as
by any two mirrors. A watcher does not notice a log that grew after its run was mirrored; ``aml-mirror
backfill`` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from aml_mirror.backfill.osmo_backfill import OsmoBackfill
from aml_mirror.backfill.summary import Summary
from aml_mirror.core.errors import Interrupted, ServiceUnavailable, UsageError
from aml_mirror.core.settings import Settings
from aml_mirror.pipeline.receipt import Receipt
from aml_mirror.registries.keys import STATE_EXPERIMENT
from aml_mirror.registries.registry import open_registry
from aml_mirror.support.progress import Console
from aml_mirror.watch.journal import NAME, Journal

SCHEMA = "aml-mirror/watch/v1"
SHORTEST_PAUSE = 1.0  # seconds


class Watch:
    """One call of ``aml-mirror watch``.

    Args:
        settings: of this call.
        console: output for the user.
        tell: receives the receipt of each version that is made, and of each run that failed.
        summed_up: receives the summary of each pass.
        clock, sleep: seconds since the epoch, and a pause in seconds; for tests.

    Raises:
        UsageError: it is not specified which workflows opted in, or the settings contradict each other.
    """

    def __init__(
        self,
        settings: Settings,
        console: Console,
        tell: Callable[[Receipt], None],
        summed_up: Callable[[Summary], None],
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not settings.labels and not settings.match:
            raise UsageError(
                "it is not specified which workflows to mirror",
                "pass --label mirror=on for workflows with this label (OSMO 6.4), or --match 'train-*' for "
                "those with such an id; --match '*' selects every workflow",
            )
        if settings.every_seconds < SHORTEST_PAUSE:
            raise UsageError("--every is shorter than a second", "for example: --every 10m")
        self._settings = settings
        self._console = console
        self._tell = tell
        self._summed_up = summed_up
        self._clock = clock
        self._sleep = sleep

    def run(self) -> int:
        """Watch until a signal, or a failure that no later pass can fix; return the exit code.

        With ``--once`` it is 0 if the pass was completed, whatever happened to single runs.

        Raises:
            MirrorError: the first pass cannot begin.
        """
        while True:
            began = self._clock()
            summary = self.one_pass()
            self._summed_up(summary)
            if self._settings.once or summary.stop_code not in (0, ServiceUnavailable.exit_code):
                return summary.stop_code
            left = self._settings.every_seconds - (self._clock() - began)
            try:
                self._sleep(max(left, SHORTEST_PAUSE))
            except Interrupted as stop:
                return stop.exit_code

    def one_pass(self) -> Summary:
        """Make one pass.

        Raises:
            MirrorError: it cannot begin, for a reason that would also affect the next pass.
        """
        settings = self._settings
        try:
            registry = open_registry(settings, self._console.say)
        except ServiceUnavailable as error:
            return Summary(
                source="OSMO", model_name=settings.model_name, schema=SCHEMA, outcome="stopped",
                error=error.message, hint=error.hint or None, listed=0, stop_code=error.exit_code,
            )  # fmt: skip
        store = registry.state_store(settings.experiment or STATE_EXPERIMENT, NAME)
        journal = Journal(store, settings, self._clock)
        backfill = OsmoBackfill(settings, self._console, self._tell, journal, tells_already=False)
        backfill.summary.schema = SCHEMA
        return backfill.run(self._since())

    def _since(self) -> datetime | None:
        window = self._settings.window
        if isinstance(window, timedelta):
            return datetime.fromtimestamp(self._clock(), UTC) - window
        return window
