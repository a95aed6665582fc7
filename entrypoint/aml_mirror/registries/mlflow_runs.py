"""MLflow runs, wherever they are kept: looked for by identity, written in a fixed order, taken up again.

A run carries its identity as a tag from the request that creates it. Of several runs with one identity
(a POST whose answer was lost is sent again) the one with the lowest (start time, id) is *the* run.
Parameters are compared with what is there. Metrics go in a fixed order, and the number of points sent so
far travels in the same request as the points, with a running digest that tells whether the event files
are still those of the earlier attempt.

What differs between workspaces (who may write, where files go, how a version is registered) is not here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, RunTag, ViewType
from mlflow.entities import Run as MlflowRun

from aml_mirror.core.errors import ConfigurationError, MirrorError, NotAllowed, ServiceUnavailable
from aml_mirror.registries import keys
from aml_mirror.registries.log_batches import in_batches
from aml_mirror.registries.marked_points import send_points
from aml_mirror.registries.mlflow_errors import is_missing, is_there_already
from aml_mirror.registries.records import Limits, Point, Version, model_uri
from aml_mirror.registries.search_filters import quotable, quoted
from aml_mirror.support import redaction
from aml_mirror.support.retry import Retry
from aml_mirror.transfer.senders import Call

# Runs a page of a search: few have one identity, but a backfill asks for all of a model, and each page is a
# round trip. 1,000 is the default of MLflow's client, so every server takes 500.
PAGE = 500


class RunLock(Protocol):
    """The right to write one run, held for as long as it is renewed."""

    @property
    def lost(self) -> bool:
        """Whether another has it now."""

    def stop(self) -> None:
        """End renewing it."""


class RunStore(ABC):
    """The runs of one MLflow server.

    Args:
        retry: the patience of every request.
        limits: what the server takes.
    """

    def __init__(self, retry: Retry, limits: Limits) -> None:
        self.retry = retry
        self.limits = limits

    @property
    @abstractmethod
    def client(self) -> MlflowClient:
        """MLflow's own client of the server."""

    @property
    @abstractmethod
    def description(self) -> str:
        """The place in words, without a secret."""

    def be_patient_for(self, seconds: float) -> None:
        """See :meth:`aml_mirror.registries.base.Registry.be_patient_for`."""
        self.retry.for_seconds = seconds

    def uri(self, version: Version) -> str:
        """See :meth:`aml_mirror.registries.base.Registry.uri`."""
        return model_uri(version)

    def find_experiment(self, name: str) -> str | None:
        """Return the id of an experiment, or None where there is none."""
        found = self.retry(lambda: self.client.get_experiment_by_name(name))
        return None if found is None else str(found.experiment_id)

    def experiment(self, name: str) -> str:
        """Return the id of an experiment, created if it is not there.

        Raises:
            ConfigurationError: it was deleted.
        """
        found = self.retry(lambda: self.client.get_experiment_by_name(name))
        if found is None:
            try:
                return str(
                    self.retry(lambda: self.client.create_experiment(name, self.artifact_location(name)))
                )
            except MirrorError as error:
                found = self._made_by_another(name, error)
        if found.lifecycle_stage == "deleted":
            raise ConfigurationError(
                f"the experiment {name!r} was deleted in {self.description}",
                "restore it (mlflow experiments restore), or pass another with --experiment",
            )
        return str(found.experiment_id)

    def _made_by_another(self, name: str, refusal: MirrorError) -> Experiment:
        """Return the experiment, if it is there, for whatever words a server refuses to make it twice in."""

        def look() -> Experiment | None:
            found = self.client.get_experiment_by_name(name)
            if found is None and is_there_already(refusal.__cause__):
                raise ServiceUnavailable(
                    f"the experiment {name!r} is said to be there, and is not shown",
                    "run the same command again",
                )
            return found

        if isinstance(refusal, (NotAllowed, ServiceUnavailable)):
            raise refusal
        found = self.retry(look)
        if found is None:
            raise refusal
        return found

    def artifact_location(self, name: str) -> str | None:
        """Where the artifacts of a new experiment go; None: where the server puts them."""
        return None

    def unfinished(self, experiment: str, run_id: str) -> Iterable[dict[str, str]]:
        """See :meth:`aml_mirror.registries.base.Registry.unfinished`."""
        found = self.find_experiment(experiment)
        if found is None:
            return []
        runs = self.search_runs(found, keys.RUN_ID, run_id)
        return [
            {**run.data.tags, "status": run.info.status, keys.MLFLOW_RUN_ID: run.info.run_id}
            for run in runs
            if run.data.tags.get(keys.STATE) != keys.COMPLETE
        ]

    def search_runs(self, experiment_id: str, key: str, value: str) -> list[MlflowRun]:
        """Return the runs of an experiment whose tag has this value, the oldest first."""
        found = self.each_run(experiment_id, key, value)
        return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))

    def each_run(self, experiment_id: str, key: str, value: str) -> Iterator[MlflowRun]:
        """Yield the runs of an experiment whose tag has this value; one page is held at a time."""
        where = self.run_filter(key, value)
        token: str | None = None
        while True:
            page = self.retry(
                lambda token=token: self.client.search_runs(  # type: ignore[misc]
                    [experiment_id], where, ViewType.ACTIVE_ONLY, max_results=PAGE, page_token=token
                )
            )
            yield from (run for run in page if run.data.tags.get(key) == value)
            token = page.token
            if not token:
                return

    def run_filter(self, key: str, value: str) -> str:
        """The search for a tag in MLflow's filter language."""
        return f"tags.`{key}` = {quoted(value)}" if quotable(value) else ""

    def create_run(self, experiment_id: str, run_name: str, tags: dict[str, str]) -> MlflowRun:
        """Create a run with its tags in one request."""
        return self.retry(lambda: self.client.create_run(experiment_id, tags=tags, run_name=run_name))

    def update_tags(self, run: MlflowRun, tags: dict[str, str]) -> None:
        """Write those tags over that the run does not have like this, in one request."""
        changed = {key: value for key, value in tags.items() if run.data.tags.get(key) != value}
        batch = [RunTag(key, value) for key, value in changed.items()]
        if batch:
            self.retry(lambda: self.client.log_batch(run.info.run_id, tags=batch))

    def discard(self, delete: Callable[[], object]) -> None:
        """Delete something of ours that is one too many; gone already (an answer was lost) is as good."""
        try:
            self.retry(delete)
        except MirrorError as error:
            if not is_missing(error.__cause__):
                raise


class RunWriter(ABC):
    """Parameters, metrics and the end of one run. See :class:`aml_mirror.registries.base.Writer`.

    Args:
        store: where the run is.
        run: as it was when it was taken up.
        claim: the right to write it.
        tags: those of the run, as the pipeline made them.
        adopted: whether an earlier attempt may have written to it.
    """

    def __init__(
        self, store: RunStore, run: MlflowRun, claim: RunLock, tags: dict[str, str], adopted: bool
    ) -> None:
        self.run_id = str(run.info.run_id)
        self.warnings: list[str] = []
        self._client = store.client
        self._retry: Call = store.retry
        self._limits = store.limits
        self._run = run
        self._claim = claim
        self._tags = tags
        self._adopted = adopted

    def log_params(self, params: dict[str, str]) -> None:
        """Write what is not there yet."""
        there = self._run.data.params if self._adopted else {}
        fresh = [Param(key, value) for key, value in params.items() if key not in there]
        for batch in in_batches(
            iter(fresh), self._limits.params_in_batch, lambda item: item.key + item.value
        ):
            self._log_batch(params=batch)

    def log_metrics(self, points: Callable[[], Iterator[Point]], progress: Callable[[int], None]) -> int:
        """Write the points in their order, going on after an earlier attempt; return how many were sent."""
        mark = self._run.data.tags.get(keys.POINTS, "") if self._adopted else ""
        # If the points are not those of the earlier attempt, all go again: a database keeps equal rows once.
        return send_points(points, self._limits.batch, mark, self._log_points, progress)[0]

    def _log_points(self, batch: list[Point], mark: str) -> None:
        """Send one batch with the mark that tells how far the run is."""
        metrics = [Metric(name, value, timestamp, step) for name, value, timestamp, step in batch]
        self._log_batch(metrics=metrics, tags=[RunTag(keys.POINTS, mark)])

    def _log_batch(self, **rows: Any) -> None:
        self._require_claim()
        self._retry(lambda: self._client.log_batch(self.run_id, synchronous=True, **rows))

    def abort(self, status: str, why: str) -> None:
        """Close the run as FAILED or KILLED, to be taken up by the next attempt. Never raises."""
        self._claim.stop()
        if self._claim.lost:
            return
        try:
            self._release()
            self._client.set_tag(self.run_id, "mirror.error", redaction.text(why)[:500])
            self._client.set_terminated(self.run_id, status)
        except Exception:  # noqa: BLE001 - the failure that brought us here is the one to be told
            return

    @abstractmethod
    def _release(self) -> None:
        """Let the next attempt begin at once."""

    def _require_claim(self) -> None:
        if self._claim.lost:
            raise lost_claim(f"the MLflow run {self.run_id}")


def lost_claim(what: str) -> ServiceUnavailable:
    """Return the error of a mirror whose claim another one has now; waiting does not bring it back."""
    failure = ServiceUnavailable(
        f"another mirror took over {what}", "it goes on with the work; run again to see what came of it"
    )
    failure.worth_trying_for = 0.0
    return failure
