"""Lists the MLflow runs of this program on a server or in a workspace."""

from __future__ import annotations

import time
from collections.abc import Iterator

from mlflow.entities import Run as MlflowRun
from mlflow.entities import ViewType

from aml_mirror.registries import keys, run_times
from aml_mirror.registries.leftovers import RunLeft
from aml_mirror.registries.mlflow_runs import PAGE, RunStore

_EXPERIMENTS = 50
"""The number of experiments in one search request."""


def runs_left(store: RunStore) -> Iterator[RunLeft]:
    """Yield the runs that a mirror made, in all experiments. Reads every run, page by page."""
    ids = list(_experiments(store))
    for start in range(0, len(ids), _EXPERIMENTS):
        token: str | None = None
        while True:
            page = store.retry(
                lambda start=start, token=token: store.client.search_runs(  # type: ignore[misc]
                    ids[start : start + _EXPERIMENTS],
                    "",
                    ViewType.ACTIVE_ONLY,
                    max_results=PAGE,
                    page_token=token,
                )
            )
            yield from (left_of(run) for run in page if run.data.tags.get(keys.IDENTITY))
            token = page.token
            if not token:
                break


def _experiments(store: RunStore) -> Iterator[str]:
    token: str | None = None
    while True:
        page = store.retry(
            lambda token=token: store.client.search_experiments(  # type: ignore[misc]
                ViewType.ACTIVE_ONLY, max_results=PAGE, page_token=token
            )
        )
        yield from (str(found.experiment_id) for found in page)
        token = page.token
        if not token:
            return


def left_of(run: MlflowRun) -> RunLeft:
    """Return what matters about a run."""
    age = max(0.0, time.time() - run_times.last_active(run) / 1000)
    return RunLeft(str(run.info.run_id), str(run.info.status), dict(run.data.tags), age)


def is_as_listed(run: MlflowRun, listed: RunLeft) -> bool:
    """Tell whether nobody has continued a run since it was listed."""
    return (
        str(run.info.status) == listed.status
        and run.data.tags.get(keys.LEASE) == listed.tags.get(keys.LEASE)
        and run.data.tags.get(keys.STATE) == listed.tags.get(keys.STATE)
    )
