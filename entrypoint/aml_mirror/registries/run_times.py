"""When a run began. People see the time of its training, this program uses the time of the mirror.

A backlog is mirrored long after it was trained, and people read a list of runs by date. So a run gets the
times of its training, if the server accepts them. Which of two runs is first is decided by the mirror's own
time, the tag ``mirror.began``. Runs of earlier releases have no such tag: their start time is the mirror's.

MLflow accepts any ``start_time`` in ``runs/create`` and any ``end_time`` in ``runs/update``. Azure ML
documents neither: it may refuse them, or use its own clock.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aml_mirror.core.errors import ConfigurationError, DataError
from aml_mirror.registries import keys

if TYPE_CHECKING:
    # Not imported here: fast_lookup reads before the clients are loaded.
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

    from aml_mirror.transfer.senders import Call

# A server may store seconds if it gets milliseconds.
_SAME_MS = 1000


def now() -> int:
    """Return the time in milliseconds since the epoch."""
    return int(time.time() * 1000)


def as_tag(*moments: float) -> str:
    """Return the value of a tag for a time, or an interval, in milliseconds since the epoch.

    It is in UTC as ISO 8601: ``2026-11-30T20:21:46.123+00:00``, and ``FROM/TO``.
    """
    return "/".join(
        datetime.fromtimestamp(moment / 1000, UTC).isoformat(timespec="milliseconds") for moment in moments
    )


def of_tag(tags: Mapping[str, str], key: str, at: int = 0) -> int | None:
    """Return the time in a tag, in milliseconds since the epoch; None: it has none.

    Args:
        tags, key: which tag.
        at: 0 for the beginning of an interval, -1 for its end.
    """
    try:
        return round(datetime.fromisoformat(tags[key].split("/")[at]).timestamp() * 1000)
    except (KeyError, ValueError, OverflowError):
        return None


def mirrored_at(tags: Mapping[str, str], start_time: int | str | None) -> int:
    """Return when a mirror created a run, in milliseconds since the epoch.

    Args:
        tags: the run's tags.
        start_time: the server's start time, for runs of earlier releases.
    """
    found = of_tag(tags, keys.BEGAN)
    return int(start_time or 0) if found is None else found


def by_age(run: MlflowRun) -> tuple[int, str]:
    """A sort key: the run that was created first comes first."""
    return mirrored_at(run.data.tags, run.info.start_time), str(run.info.run_id)


def last_active(run: MlflowRun) -> int:
    """Return when a mirror last began a run or gave up on it, in milliseconds since the epoch."""
    tags, info = run.data.tags, run.info
    if of_tag(tags, keys.BEGAN) is None:
        return max(int(info.end_time or 0), int(info.start_time or 0))
    # If an earlier release continues our run and fails, it writes no tag, but ends the run.
    ended = int(info.end_time or 0) if str(info.status) in ("FAILED", "KILLED") else 0
    return max(mirrored_at(tags, 0), of_tag(tags, keys.STOPPED) or 0, ended)


def start_of(tags: Mapping[str, str]) -> int | None:
    """Return the time at which a new run should begin; None: now."""
    found = of_tag(tags, keys.TRAINED)
    return found if found is not None and found <= now() else None


def is_kept(run: MlflowRun, tags: Mapping[str, str]) -> bool:
    """Tell whether a new run began at the requested time."""
    wanted = start_of(tags)
    return wanted is None or abs(int(run.info.start_time or 0) - wanted) <= _SAME_MS


def end_run(client: MlflowClient, retry: Call, run: MlflowRun, tags: Mapping[str, str]) -> None:
    """Set a run to FINISHED at the end of its training; now if it began later, or if the server refuses.

    Args:
        client, retry: of the server.
        run: the run as it was when it was continued or created.
        tags: the run's tags.
    """
    run_id, wanted = run.info.run_id, of_tag(tags, keys.TRAINED, -1)
    if wanted is not None and int(run.info.start_time or 0) <= wanted <= now():
        try:
            retry(lambda: client.set_terminated(run_id, "FINISHED", wanted))
        except (ConfigurationError, DataError):
            pass
        else:
            return
    retry(lambda: client.set_terminated(run_id, "FINISHED"))
