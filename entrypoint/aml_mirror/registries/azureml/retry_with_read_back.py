"""Repeats requests that failed but may still be carried out, now or in a moment.

A 504 or a lost answer does not say whether, or when, the service acts. So before a request for something that
must exist only once, a run or a batch of points, is sent again, we look several times whether it exists. It
is not documented how long a request may still be under way. A few seconds cost little, because they pass only
after such a failure. A 429 was not carried out: that is the purpose of Azure's limits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from aml_mirror.registries import http_status

T = TypeVar("T")

# Seconds between the looks. The first one is immediate.
PAUSES = (1.0, 2.0, 3.0)


class RetryWithReadBack(Generic[T]):
    """One request that is repeated at most until its effect is seen.

    Args:
        look: returns what shows that an earlier attempt was carried out; any false value: not so far.
        send: sends it.
        go_on: called before each look; raises if nothing more may be sent.
    """

    def __init__(
        self, look: Callable[[], T], send: Callable[[], T], go_on: Callable[[], None] = lambda: None
    ) -> None:
        self._look = look
        self._send = send
        self._go_on = go_on
        self.was_lost = False
        """Whether an attempt failed but may have been carried out."""

    def __call__(self) -> T:
        """Make one attempt. Raises the errors of the request."""
        self._go_on()
        if self.was_lost:
            for pause in (0.0, *PAUSES):
                time.sleep(pause)
                self._go_on()
                if found := self._look():
                    return found
        http_status.forget()
        try:
            return self._send()
        except Exception:
            self.was_lost = self.was_lost or http_status.last() != 429
            raise
