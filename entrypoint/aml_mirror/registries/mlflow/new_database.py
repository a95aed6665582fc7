"""Creates a SQLite file as an MLflow database: one process creates it, others wait, and a kill leaves no
partial file.

MLflow creates the tables and runs its forty migrations in the first process that opens the database. Several
processes at once disturb each other.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from contextlib import suppress

from mlflow import MlflowClient

SQLITE_FILE = re.compile(r"sqlite(?:\+\w+)?:///([^?]+)")


def make_if_missing(uri: str, path: str) -> None:
    """Create the database under a temporary name, then rename it.

    Args:
        uri: the tracking URI, ``sqlite:///…``.
        path: the path of the file, as in the URI.
    """
    place = os.path.abspath(path)
    if os.path.exists(place):
        return
    folder = os.path.dirname(place)
    os.makedirs(folder, exist_ok=True)
    # The lock is on the folder, so that no lock file is left. It ends with the process.
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(place):
            return
        making = f"{place}.making-{os.getpid()}"
        scheme = uri.partition(":///")[0]
        try:
            MlflowClient(f"{scheme}:///{making}", f"{scheme}:///{making}").search_experiments(max_results=1)
            os.rename(making, place)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(making)
    finally:
        os.close(lock)


def artifacts_beside(uri: str, name: str) -> str | None:
    """Return the folder beside a local database for an experiment's artifacts; None: it is not a file."""
    match = SQLITE_FILE.match(uri)
    if not match or match[1] == ":memory:":
        return None
    folder = os.path.dirname(os.path.abspath(match[1]))
    safe = re.sub(r"[^\w.-]", "_", name)[:80]
    return os.path.join(folder, "mlartifacts", f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}")
