"""Continues the logs of a complete version: see :class:`aml_mirror.registries.base.LogWriter`.

The lease on the version's run, which every mirror of it holds, keeps two updates apart. The state of the logs
is in the folder ``mirror`` of the run's artifacts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag

from aml_mirror.registries import keys, log_sizes, run_times
from aml_mirror.registries.marked_points import send_points
from aml_mirror.registries.mlflow.file_parts import limited, parts_of
from aml_mirror.registries.mlflow.file_upload import put_file, put_text
from aml_mirror.registries.mlflow.run_lease import SETTLE_SECONDS, Keeper, Lease, Watch
from aml_mirror.registries.mlflow_runs import lost_claim
from aml_mirror.registries.records import Limits, Point, Upload, Version
from aml_mirror.sources.tree import Tree
from aml_mirror.support.retry import Retry

if TYPE_CHECKING:
    from aml_mirror.registries.mlflow.tracking_server import MlflowRegistry

# The folder of the run's artifacts for files that only the mirror uses.
OWN = "mirror"
# Tag of the run: which update, how many of its points were sent, and their digest.
PROGRESS = "mirror.update"
POLL_SECONDS = 2.0


def note_of(client: MlflowClient, run_id: str) -> tuple[Callable[[], str], Callable[[str], None]]:
    """Return functions that read and write the note of the lease on a run, each in one request."""

    def read() -> str:
        return str(client.get_run(run_id).data.tags.get(keys.LEASE, ""))

    def write(note: str) -> None:
        client.set_tag(run_id, keys.LEASE, note)

    return read, write


def lease_on(registry: MlflowRegistry, run_id: str, notice: Callable[[str], None]) -> Keeper:
    """Wait until nobody writes a run, and take the lease on it.

    If several take it at once, the last one to write it continues. The others notice that when they read it
    back, or with their first renewal.
    """
    retry, keeper, watch, told = registry.retry, Keeper(), Watch(), False
    read, write = note_of(registry.client, run_id)
    while True:
        lease = Lease.parse(retry(read))
        if lease is None or watch.is_dead(lease):
            note = keeper.note()
            retry(lambda: write(note))  # noqa: B023
            time.sleep(SETTLE_SECONDS)
            if keeper.holds(retry(read)):
                keeper.start(read, write)
                return keeper
            continue
        if not told:
            told = True
            notice(f"another mirror is working on this run (MLflow run {run_id}); waiting for it")
        time.sleep(POLL_SECONDS)


class RunClaim:
    """The lease on one run, until :meth:`close`."""

    def __init__(self, registry: MlflowRegistry, run_id: str, notice: Callable[[str], None]) -> None:
        self._registry = registry
        self._run_id = run_id
        self._keeper = lease_on(registry, run_id, notice)

    def require(self) -> None:
        """Raises:
        ServiceUnavailable: another mirror has the run now.
        """
        if self._keeper.lost:
            raise lost_claim(f"the MLflow run {self._run_id}")

    def require_now(self) -> None:
        """Like :meth:`require`, but with a request: before a step that must not be done twice."""
        self._registry.retry(self._keeper.look)
        self.require()

    def close(self) -> None:
        """Release the lease. Never raises."""
        self._keeper.stop()
        if self._keeper.lost:
            return
        try:
            self._registry.client.set_tag(self._run_id, keys.LEASE, "")
        except Exception:  # noqa: BLE001 - the lease expires by itself
            return


class MlflowLogWriter:
    """Args:
    registry, version: the registry, and the current state of the version to continue.
    claim: the claim on its run, which :meth:`close` releases.
    """

    def __init__(self, registry: MlflowRegistry, version: Version, claim: RunClaim) -> None:
        self.limits: Limits = registry.limits
        self.tags = dict(version.tags)
        self._registry = registry
        self._version = version
        self._claim = claim
        self._run_id = version.tags[keys.MLFLOW_RUN_ID]
        run = registry.retry(lambda: registry.client.get_run(self._run_id))
        self._run = run
        self._mark = str(run.data.tags.get(PROGRESS, ""))
        uri = str(run.info.artifact_uri)
        self._retry: Retry = registry.stores.retry_for(uri)
        self._store: Any = self._retry(lambda: registry.stores.open(uri))

    def read(self, name: str, limit: int) -> bytes | None:
        return read_own(self._store, self._retry, name, limit)

    def begun(self, sizes: dict[str, int]) -> dict[str, int]:
        return log_sizes.begun(self.read, self._put, self.tags.get(keys.LOGS), sizes)

    def seen_sizes(self) -> list[dict[str, int]]:
        return log_sizes.seen_sizes(self.read)

    def log_points(self, points: Callable[[], Iterator[Point]], target: str) -> int:
        which, _, mark = self._mark.partition(":")

        def send(batch: list[Point], mark: str) -> None:
            self._claim.require()
            metrics = [Metric(name, value, timestamp, step) for name, value, timestamp, step in batch]
            tags = [RunTag(PROGRESS, f"{target}:{mark}")]
            client = self._registry.client
            self._registry.retry(
                lambda: client.log_batch(self._run_id, metrics=metrics, tags=tags, synchronous=True)
            )

        return send_points(points, self.limits.batch, mark if which == target else "", send)[1]

    def put_logs(self, tree: Tree, uploads: list[Upload]) -> int:
        for upload in uploads:
            self._claim.require()
            put_file(self._store, self._retry, tree, upload.source, upload.path)
        return sum(upload.bytes for upload in uploads)

    def finish(self, name: str, text: str, tag: str, trained: str = "") -> None:
        self._put(name, text)
        self._claim.require_now()
        if trained and self._run.data.tags.get(keys.TRAINED) != trained:
            tags = {keys.TRAINED: trained}
            self._registry.update_tags(self._run, tags)
            run_times.end_run(self._registry.client, self._registry.retry, self._run, tags)
        self._registry.annotate(self._version, {keys.LOGS: tag})
        self.tags[keys.LOGS] = tag

    def _put(self, name: str, text: str) -> None:
        self._claim.require()
        put_text(self._store, self._retry, f"{OWN}/{name}", text)

    def close(self) -> None:
        self._claim.close()


def read_own(store: Any, retry: Retry, name: str, limit: int) -> bytes | None:
    """Return one of the mirror's own files of a run; None if there is none, or it is too long."""
    data = b"".join(retry(lambda: list(limited(parts_of(store, f"{OWN}/{name}"), limit))))
    return data or None
