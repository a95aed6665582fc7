"""The status of the last HTTP answer, which MLflow's exceptions lose.

MLflow derives the status of a failed call from the ``error_code`` of its own error bodies. A proxy, a
gateway or Azure ML answers with other bodies, and 401, 403 or 429 become an INTERNAL_ERROR. urllib3 logs
the real status of every answer at level DEBUG; here it is kept, per thread, and printed nowhere.
"""

from __future__ import annotations

import threading

from aml_mirror.support.library_internals import StatusOfAnswers, headers_behind
from aml_mirror.support.retry import asked_pause

_last = threading.local()


def watch() -> None:
    """Begin to keep the status of every answer."""
    StatusOfAnswers.watch(_keep)


def _keep(status: int) -> None:
    _last.status = status


def forget() -> None:
    """Let :func:`last` tell of what this thread is answered from now on."""
    _last.status = None


def last() -> int | None:
    """Return the status of the last answer that this thread got; None: there was none."""
    return getattr(_last, "status", None)


def pause_asked_in(error: BaseException) -> float:
    """Return how many seconds the answer behind an exception of MLflow's asks to wait; 0: it does not say."""
    headers = headers_behind(error)
    return asked_pause(headers) if headers is not None else 0.0
