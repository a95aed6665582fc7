"""A fixed number of threads that send, fed by one that reads; the first failure ends them all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")

_LOOK_SECONDS = 0.5  # how soon a reader that waits for a free sender sees that another one failed


class Call(Protocol):
    """Runs a request, again and again where it fails for now. See :class:`aml_mirror.support.retry.Retry`."""

    def __call__(self, operation: Callable[[], T], /) -> T: ...


class Stopped(Exception):
    """A sender gives up its pauses because another one failed; never seen outside."""


class Senders:
    """Use as a context manager: leaving it waits for all that was submitted and raises the first failure.

    Args:
        count: threads. At most one task more than that is held, with the bytes it carries.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="sender")
        self._slots = threading.Semaphore(count + 1)
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._lock = threading.Lock()

    def submit(self, task: Callable[[], T]) -> Future[T]:
        """Hand over a task, waiting for a free place; raises the failure of an earlier one."""
        while not self._slots.acquire(timeout=_LOOK_SECONDS):
            self._raise()
        self._raise()
        future = self._pool.submit(task)
        future.add_done_callback(self._done)
        return future

    def sleep(self, seconds: float) -> None:
        """Pause, but not longer than the others work."""
        if self._stop.wait(seconds):
            raise Stopped

    def __enter__(self) -> Senders:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self._pool.shutdown(wait=True)
            self._raise()
            return
        self._stop.set()
        # After a signal nothing is waited for: what is on its way arrives or does not.
        self._pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)

    def _done(self, future: Future[T]) -> None:
        self._slots.release()
        if future.cancelled():
            return
        error = future.exception()
        if error is not None:
            with self._lock:
                self._failure = self._failure or error
            self._stop.set()

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure
