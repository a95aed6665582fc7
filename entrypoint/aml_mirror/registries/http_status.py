"""The status of the last HTTP answer, which MLflow's exceptions lose.

MLflow derives the status of a failed call from the ``error_code`` of its own error bodies. A proxy, a
gateway or Azure ML answers with other bodies, and 401, 403 or 429 become an INTERNAL_ERROR. urllib3 logs
the real status of every answer at level DEBUG; here it is kept, per thread, and printed nowhere.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from aml_mirror.support.retry import asked_pause

_last = threading.local()


class _Keeper(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # '%s://%s:%s "%s %s %s" %s %s' (urllib3 2, connectionpool.py): the seventh argument is the status.
        if isinstance(record.args, tuple) and len(record.args) == 8 and isinstance(record.args[6], int):
            _last.status = record.args[6]


def watch() -> None:
    """Begin to keep the status of every answer."""
    logger = logging.getLogger("urllib3.connectionpool")
    if not any(isinstance(handler, _Keeper) for handler in logger.handlers):
        logger.addHandler(_Keeper())
        logger.setLevel(logging.DEBUG)
        # The records hold whole URLs, with their signatures: they go nowhere else.
        logger.propagate = False


def forget() -> None:
    """Let :func:`last` tell of what this thread is answered from now on."""
    _last.status = None


def last() -> int | None:
    """Return the status of the last answer that this thread got; None: there was none."""
    return getattr(_last, "status", None)


def pause_asked_in(error: BaseException) -> float:
    """Return how many seconds the answer behind one of MLflow's exceptions asks to wait; 0: it does not say.

    The exception does not hold the answer. The frame that raised it, or what caused it, still does.
    """
    cause: BaseException | None = error
    while cause is not None:
        trace = cause.__traceback__
        while trace is not None:
            headers = getattr(trace.tb_frame.f_locals.get("response"), "headers", None)
            if isinstance(headers, Mapping):
                return asked_pause(headers)
            trace = trace.tb_next
        cause = cause.__cause__ or cause.__context__
    return 0.0
