"""Writes parameters and points of a run in an Azure ML workspace: part of step 4 of :mod:`.workspace`."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from mlflow.entities import Param
from mlflow.entities import Run as MlflowRun

from aml_mirror.core.errors import ConfigurationError, DataError, MirrorError
from aml_mirror.registries.azureml.blob_lease import BlobLease
from aml_mirror.registries.azureml.limits import LEAST_PARAM_VALUE, cut
from aml_mirror.registries.azureml.log_batch import log_batch
from aml_mirror.registries.azureml.metric_partitions import Batch, log_points, tag_of
from aml_mirror.registries.azureml.retry_with_read_back import RetryWithReadBack
from aml_mirror.registries.azureml.service_client import single_attempt
from aml_mirror.registries.mlflow_runs import RunWriter
from aml_mirror.registries.records import Point

if TYPE_CHECKING:
    from aml_mirror.registries.azureml.workspace import AzureMLRegistry

T = TypeVar("T")


class MetricWriter(RunWriter):
    """Writes what a run logged. ``warnings`` has messages for the user.

    Args:
        workspace, run, claim, tags, adopted: see :class:`aml_mirror.registries.mlflow_runs.RunWriter`.
    """

    _claim: BlobLease

    def __init__(
        self,
        workspace: AzureMLRegistry,
        run: MlflowRun,
        claim: BlobLease,
        tags: dict[str, str],
        adopted: bool,
    ) -> None:
        super().__init__(workspace, run, claim, tags, adopted)
        self._workspace = workspace
        self._only_finite = False
        self._telling = threading.Lock()
        self._patient = workspace.retry
        self._retry = self._guarded

    def _guarded(self, operation: Callable[[], T], /) -> T:
        """Run an operation with retries. Each attempt first checks whether we may still write.

        MLflow's client must not retry by itself meanwhile, because it would not check.
        """

        def attempt() -> T:
            self._require_claim()
            return operation()

        with single_attempt():
            return self._patient(attempt)

    def log_params(self, params: dict[str, str]) -> None:
        there = self._run.data.params if self._adopted else {}
        fresh = {
            key: cut(value, self._limits.param_value) for key, value in params.items() if key not in there
        }
        items = list(fresh.items())
        step = self._limits.params_in_batch
        for start in range(0, len(items), step):
            self._log_params(items[start : start + step])

    def _log_params(self, items: list[tuple[str, str]]) -> None:
        try:
            self._log_batch(params=[Param(key, value) for key, value in items])
        except MirrorError as error:
            if "size limit" not in error.message and "length" not in error.message:
                raise
            # The maximum length of a value is not documented. The length that every server accepts is sent
            # instead.
            self.warnings.append(f"parameters were cut to {LEAST_PARAM_VALUE} characters: {error.message}")
            shorter = [Param(key, cut(value, LEAST_PARAM_VALUE)) for key, value in items]
            self._log_batch(params=shorter)

    def log_metrics(self, points: Callable[[], Iterator[Point]], progress: Callable[[int], None]) -> int:
        there = self._run.data.tags if self._adopted else {}
        # Around all partitions, because it holds for the whole process.
        with single_attempt():
            return log_points(points, self._limits.batch, there, self._send_batch, progress)

    def _send_batch(self, batch: Batch, go_on: Callable[[], None]) -> None:
        self._require_claim()
        finite = [point for point in batch.points if math.isfinite(point[1])]
        if self._only_finite or len(finite) == len(batch.points):
            self._send_points(finite, batch, go_on)
            return
        try:
            self._send_points(batch.points, batch, go_on)
        except (ConfigurationError, DataError) as refusal:
            # It is not documented whether Azure ML accepts NaN and infinities. The event files contain them
            # anyway.
            with self._telling:
                if not self._only_finite:
                    self._warn(f"metric values that are not finite were left out: {refusal.message}")
                self._only_finite = True
            self._send_points(finite, batch, go_on)

    def _send_points(self, points: list[Point], batch: Batch, go_on: Callable[[], None]) -> None:
        tag = tag_of(batch.partition)

        def look() -> bool:
            # The mark, which is sent with the points, shows whether they arrived.
            return bool(self._client.get_run(self.run_id).data.tags.get(tag) == batch.mark)

        def send() -> bool:
            log_batch(self._client, self.run_id, points, {tag: batch.mark})
            return True

        self._retry(RetryWithReadBack(look, send, go_on))

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        self._workspace.notice(f"warning: {text}")
