"""Keeps the status of the last HTTP answer, which MLflow's exceptions lose.

MLflow derives the status of a failed call from the ``error_code`` of its own error bodies. A proxy, a gateway
or Azure ML sends other bodies, and 401, 403 or 429 become an INTERNAL_ERROR. urllib3 logs the real status of
every answer at level DEBUG. Here it is stored per thread and never printed.
"""

from __future__ import annotations

import threading

from aml_mirror.support.library_internals import StatusOfAnswers, headers_behind
from aml_mirror.support.retry import asked_pause

_last = threading.local()


def watch() -> None:
    """Begin to record the status of every answer."""
    StatusOfAnswers.watch(_keep)


def _keep(status: int) -> None:
    _last.status = status


def forget() -> None:
    """From now on, let :func:`last` report only new answers of this thread."""
    _last.status = None


def last() -> int | None:
    """Return the status of the last answer in this thread; None: there was none."""
    return getattr(_last, "status", None)


def pause_asked_in(error: BaseException) -> float:
    """Return how many seconds the answer behind an MLflow exception asks to wait; 0: it does not say."""
    headers = headers_behind(error)
    return asked_pause(headers) if headers is not None else 0.0
