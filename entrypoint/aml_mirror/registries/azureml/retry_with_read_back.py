"""Requests that failed and may be carried out all the same, now or in a moment.

A 504 or a lost answer says nothing about whether the service acts, nor when. What must not be there twice, a
run or a batch of points, is therefore looked for several times before its request is sent again. How long a
request may still be under way is not documented; a few seconds cost little, since they pass only after such
a failure. A 429 was not carried out: of Azure's limits that is the point.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from aml_mirror.registries import http_status

T = TypeVar("T")

# Seconds between the looks, which begin at once.
PAUSES = (1.0, 2.0, 3.0)


class RetryWithReadBack(Generic[T]):
    """One request that is sent at most until its effect is seen.

    Args:
        look: returns what shows that an earlier attempt was carried out; anything false: it was not, so far.
        send: sends it.
        go_on: called before each look; raises where nothing is to be sent any more.
    """

    def __init__(
        self, look: Callable[[], T], send: Callable[[], T], go_on: Callable[[], None] = lambda: None
    ) -> None:
        self._look = look
        self._send = send
        self._go_on = go_on
        self.was_lost = False
        """Whether an attempt failed that may have been carried out."""

    def __call__(self) -> T:
        """Make one attempt; raises as the request does."""
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
