"""Retries temporary failures, for as long as the person allowed.

The clients retry a few times by themselves and honour Retry-After. This is above them, and applies to the
whole call. So a service that is unavailable for ten minutes costs ten minutes, not a run.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import TypeVar

from aml_mirror.core.errors import MirrorError, ServiceUnavailable

T = TypeVar("T")

FIRST_PAUSE = 1.0  # seconds
LONGEST_PAUSE = 30.0  # seconds
# A longer pause is not honoured, whatever a service asks for.
LONGEST_ASKED_PAUSE = 300.0  # seconds


class Retry:
    """Calls functions, and calls them again after a :class:`ServiceUnavailable`.

    Args:
        for_seconds: how long one operation may keep failing before its error is raised.
        translate: turns a client's error into one of ours.
        notice: called once per failing operation, with a message that it is being retried.
        sleep, clock: for tests.
    """

    def __init__(
        self,
        for_seconds: float,
        translate: Callable[[Exception], MirrorError],
        notice: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.for_seconds = for_seconds
        self._translate = translate
        self._notice = notice
        self._sleep = sleep
        self._clock = clock

    def with_translation(self, translate: Callable[[Exception], MirrorError]) -> Retry:
        """Return the same retries with another translation of errors."""
        return Retry(self.for_seconds, translate, self._notice, self._sleep, self._clock)

    def __call__(self, operation: Callable[[], T]) -> T:
        """Return the result of ``operation``.

        Raises:
            ServiceUnavailable: it still failed when the time was up.
            MirrorError: it failed in a way that another attempt does not change.
        """
        started = self._clock()
        pause = FIRST_PAUSE
        told = False
        while True:
            try:
                return operation()
            except Exception as error:
                failure = error if isinstance(error, MirrorError) else self._translate(error)
                patience = min(self.for_seconds, getattr(failure, "worth_trying_for", 0.0))
                left = patience - (self._clock() - started)
                if not isinstance(failure, ServiceUnavailable) or left <= 0:
                    if failure is error:
                        raise
                    raise failure from error
                if not told:
                    self._notice(f"{failure.message}; trying again for up to {left:.0f} s (--retry-for)")
                    told = True
            # Jitter, so that a thousand pods that failed together do not retry together.
            wait = max(pause * random.uniform(0.5, 1.0), failure.retry_after)  # noqa: S311
            self._sleep(min(left, wait))
            pause = min(pause * 2, LONGEST_PAUSE)


class Once:
    """Passes a message on, but not again for a while: several senders encounter the same problem.

    Args:
        notice: called with each message.
        seconds: how long a message with the same beginning is suppressed.
    """

    def __init__(self, notice: Callable[[str], None], seconds: float = 60.0) -> None:
        self._notice = notice
        self._seconds = seconds
        self._said: dict[str, float] = {}
        self._lock = threading.Lock()

    def __call__(self, text: str) -> None:
        """Pass on a message. The part after its first semicolon, a number of seconds, is not compared."""
        with self._lock:
            begin, now = text.partition(";")[0], time.monotonic()
            if now - self._said.get(begin, -self._seconds) < self._seconds:
                return
            self._said[begin] = now
        self._notice(text)


def asked_pause(headers: Mapping[str, str]) -> float:
    """Return how many seconds an answer asks to wait; 0 if it does not say."""
    if (text := headers.get("x-ms-retry-after-ms") or headers.get("retry-after-ms")) and text.isdigit():
        return min(int(text) / 1000, LONGEST_ASKED_PAUSE)
    text = headers.get("Retry-After") or headers.get("retry-after") or ""
    if text.isdigit():
        return min(float(text), LONGEST_ASKED_PAUSE)
    try:
        return min(max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0), LONGEST_ASKED_PAUSE)
    except (TypeError, ValueError):
        return 0.0
