"""MLflow runs on any server: finds them by identity, writes them in a fixed order, continues them.

A run has its identity as a tag from the request that creates it. If several runs have one identity (a POST
whose answer was lost is sent again), the one that was created first is *the* run (:mod:`.run_times`).
Parameters are compared with the existing ones. Metrics are sent in a fixed order. The number of points sent
so far is part of the same request as the points, with a running digest that shows whether the event files are
still those of the earlier attempt.

Differences between workspaces (who may write, where files go, how a version is registered) are elsewhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, RunTag, ViewType
from mlflow.entities import Run as MlflowRun

from aml_mirror.core.errors import ConfigurationError, DataError, MirrorError, NotAllowed, ServiceUnavailable
from aml_mirror.registries import keys, run_times
from aml_mirror.registries.log_batches import in_batches
from aml_mirror.registries.marked_points import send_points
from aml_mirror.registries.mlflow_errors import is_missing, is_there_already
from aml_mirror.registries.records import Limits, Point, Version, model_uri
from aml_mirror.registries.search_filters import quotable, quoted
from aml_mirror.support import redaction
from aml_mirror.support.retry import Retry
from aml_mirror.transfer.senders import Call

# Runs per page of a search. Few have the same identity, but a backfill requests all of a model, and each page
# is a round trip. 1,000 is the default of MLflow's client, so every server accepts 500.
PAGE = 500


class RunLock(Protocol):
    """The right to write one run, held as long as it is renewed."""

    @property
    def lost(self) -> bool:
        """Whether another mirror has it now."""

    def stop(self) -> None:
        """Stop renewing it."""


class RunStore(ABC):
    """The runs of one MLflow server.

    Args:
        retry: retries every request.
        limits: what the server accepts.
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
        """Return the id of an experiment, or None if it does not exist."""
        found = self.retry(lambda: self.client.get_experiment_by_name(name))
        return None if found is None else str(found.experiment_id)

    def experiment(self, name: str) -> str:
        """Return the id of an experiment, which is created if necessary.

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
        """Return the experiment if it exists, whatever error the server gave for creating it twice."""

        def look() -> Experiment | None:
            found = self.client.get_experiment_by_name(name)
            if found is None and is_there_already(refusal.__cause__):
                raise ServiceUnavailable(
                    f"the experiment {name!r} was reported to exist, but cannot be found",
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
        """Where the artifacts of a new experiment go; None: the server's default."""
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
        return sorted(found, key=run_times.by_age)

    def each_run(self, experiment_id: str, key: str, value: str) -> Iterator[MlflowRun]:
        """Yield the runs of an experiment whose tag has this value. One page is held at a time."""
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
        """Create a run with its tags in one request. It begins with the training, if a tag says when."""
        tags = {**tags, keys.BEGAN: run_times.as_tag(run_times.now())}

        def create(start: int | None) -> MlflowRun:
            return self.retry(lambda: self.client.create_run(experiment_id, start, tags, run_name))

        if (start := run_times.start_of(tags)) is None:
            return create(None)
        try:
            return create(start)
        except (ConfigurationError, DataError):
            # The reason may be the past time. If not, this fails in the same way.
            return create(None)

    def update_tags(self, run: MlflowRun, tags: dict[str, str]) -> None:
        """Write the tags that the run does not have in this form, in one request."""
        changed = {key: value for key, value in tags.items() if run.data.tags.get(key) != value}
        batch = [RunTag(key, value) for key, value in changed.items()]
        if batch:
            self.retry(lambda: self.client.log_batch(run.info.run_id, tags=batch))

    def discard(self, delete: Callable[[], object]) -> None:
        """Delete a superfluous object of ours. If it no longer exists, that counts as deleted."""
        try:
            self.retry(delete)
        except MirrorError as error:
            if not is_missing(error.__cause__):
                raise


class RunWriter(ABC):
    """Parameters, metrics and the end of one run. See :class:`aml_mirror.registries.base.Writer`.

    Args:
        store: the store of the run.
        run: the run as it was when it was continued or created.
        claim: the right to write it.
        tags: the run's tags from the pipeline.
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
        """Write the parameters that do not exist yet."""
        there = self._run.data.params if self._adopted else {}
        fresh = [Param(key, value) for key, value in params.items() if key not in there]
        for batch in in_batches(
            iter(fresh), self._limits.params_in_batch, lambda item: item.key + item.value
        ):
            self._log_batch(params=batch)

    def log_metrics(self, points: Callable[[], Iterator[Point]], progress: Callable[[int], None]) -> int:
        """Write the points in order, continuing an earlier attempt; return how many were sent."""
        mark = self._run.data.tags.get(keys.POINTS, "") if self._adopted else ""
        # If the points differ from those of the earlier attempt, all are sent again: a database keeps equal
        # rows once.
        return send_points(points, self._limits.batch, mark, self._log_points, progress)[0]

    def _log_points(self, batch: list[Point], mark: str) -> None:
        """Send one batch with the mark that says how far the run is."""
        metrics = [Metric(name, value, timestamp, step) for name, value, timestamp, step in batch]
        self._log_batch(metrics=metrics, tags=[RunTag(keys.POINTS, mark)])

    def _log_batch(self, **rows: Any) -> None:
        self._require_claim()
        self._retry(lambda: self._client.log_batch(self.run_id, synchronous=True, **rows))

    def abort(self, status: str, why: str) -> None:
        """Close the run as FAILED or KILLED, so the next attempt can continue it. Never raises."""
        self._claim.stop()
        if self._claim.lost:
            return
        try:
            self._release()
            told = {
                "mirror.error": redaction.text(why)[:500],
                keys.STOPPED: run_times.as_tag(run_times.now()),
            }
            self._client.log_batch(self.run_id, tags=[RunTag(*item) for item in told.items()])
            self._client.set_terminated(self.run_id, status)
        except Exception:  # noqa: BLE001 - the original failure must be reported
            return

    @abstractmethod
    def _release(self) -> None:
        """Let the next attempt begin at once."""

    def _require_claim(self) -> None:
        if self._claim.lost:
            raise lost_claim(f"the MLflow run {self.run_id}")


def lost_claim(what: str) -> ServiceUnavailable:
    """Return the error for a mirror whose claim another one has now. Waiting does not help."""
    failure = ServiceUnavailable(
        f"another mirror took over {what}", "it continues the work; run the command again to see the result"
    )
    failure.worth_trying_for = 0.0
    return failure
