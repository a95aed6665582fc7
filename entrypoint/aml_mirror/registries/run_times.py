"""When a run began: for people when its training did, for this program when a mirror made it.

A backlog is mirrored long after it was trained, and a list of runs is read by date. So a run is given the
times of its training, where the server takes them. Which of two runs is the first is decided by the mirror's
own time, the tag ``mirror.began``. Runs of earlier releases have no such tag: their start time is the
mirror's own.

MLflow takes any ``start_time`` in ``runs/create`` and any ``end_time`` in ``runs/update``. Of Azure ML
neither is documented: it may refuse them, or keep the times of its own clock.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aml_mirror.core.errors import ConfigurationError, DataError
from aml_mirror.registries import keys

if TYPE_CHECKING:
    # Not loaded here: fast_lookup reads before the clients are loaded.
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

    from aml_mirror.transfer.senders import Call

# A server may keep seconds where it was given milliseconds.
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
    """Return a time that a tag says, in milliseconds since the epoch; None: it says none.

    Args:
        tags, key: which tag.
        at: 0 for the beginning of an interval, -1 for its end.
    """
    try:
        return round(datetime.fromisoformat(tags[key].split("/")[at]).timestamp() * 1000)
    except (KeyError, ValueError, OverflowError):
        return None


def mirrored_at(tags: Mapping[str, str], start_time: int | str | None) -> int:
    """Return when a mirror made a run, in milliseconds since the epoch.

    Args:
        tags: of the run.
        start_time: the one that the server says, for runs of earlier releases.
    """
    found = of_tag(tags, keys.BEGAN)
    return int(start_time or 0) if found is None else found


def by_age(run: MlflowRun) -> tuple[int, str]:
    """A sort key: the run that was made first comes first."""
    return mirrored_at(run.data.tags, run.info.start_time), str(run.info.run_id)


def last_active(run: MlflowRun) -> int:
    """Return when a mirror began a run or gave up on it last, in milliseconds since the epoch."""
    tags, info = run.data.tags, run.info
    if of_tag(tags, keys.BEGAN) is None:
        return max(int(info.end_time or 0), int(info.start_time or 0))
    # An earlier release that takes up our run writes no tag when it fails, and ends the run then.
    ended = int(info.end_time or 0) if str(info.status) in ("FAILED", "KILLED") else 0
    return max(mirrored_at(tags, 0), of_tag(tags, keys.STOPPED) or 0, ended)


def start_of(tags: Mapping[str, str]) -> int | None:
    """Return the time at which a new run is to begin; None: now."""
    found = of_tag(tags, keys.TRAINED)
    return found if found is not None and found <= now() else None


def is_kept(run: MlflowRun, tags: Mapping[str, str]) -> bool:
    """Return whether a new run begins when it was to begin."""
    wanted = start_of(tags)
    return wanted is None or abs(int(run.info.start_time or 0) - wanted) <= _SAME_MS


def end_run(client: MlflowClient, retry: Call, run: MlflowRun, tags: Mapping[str, str]) -> None:
    """Set a run to FINISHED at the end of its training; now where it began later, or the server refuses.

    Args:
        client, retry: of the server.
        run: as it was when it was taken up.
        tags: of the run.
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
