"""A fixed number of sending threads, fed by one reader. The first failure ends them all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")

_LOOK_SECONDS = 0.5  # How quickly a reader that waits for a free sender notices that another one failed.


class Call(Protocol):
    """Runs a request, again if it fails temporarily. See :class:`aml_mirror.support.retry.Retry`."""

    def __call__(self, operation: Callable[[], T], /) -> T: ...


class Stopped(Exception):
    """Interrupts the pause of a sender because another one failed. Never leaves this module."""


class Senders:
    """A context manager. Leaving it waits for all submitted tasks and raises the first failure.

    Args:
        count: the number of threads. At most one more task is held, with its bytes.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="sender")
        self._slots = threading.Semaphore(count + 1)
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._lock = threading.Lock()

    def submit(self, task: Callable[[], T]) -> Future[T]:
        """Submit a task, and wait for a free place. Raises the failure of an earlier task."""
        while not self._slots.acquire(timeout=_LOOK_SECONDS):
            self._raise()
        self._raise()
        future = self._pool.submit(task)
        future.add_done_callback(self._done)
        return future

    def sleep(self, seconds: float) -> None:
        """Pause, but only as long as the other senders work."""
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
        # After a signal, nothing is waited for. Requests under way arrive or not.
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
