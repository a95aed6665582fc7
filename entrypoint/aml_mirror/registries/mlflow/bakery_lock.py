"""Decides who may write a checkpoint to an MLflow server, which has no compare-and-set operation.

A mirror that finds no run of a checkpoint creates one, and several mirrors may do so at once. Their leases
are then places in a queue, as in Lamport's bakery algorithm (A New Solution of Dijkstra's Concurrent
Programming Problem, 1974). A mirror creates a run in the state "choosing", looks at the others, and takes a
ticket above theirs. Then it looks again, and writes once nobody is choosing and nobody alive has a lower
ticket. A mirror with a higher ticket deletes its run and waits for the winner. So it does not matter how long
a request is under way: a mirror that sees a writer has the higher ticket. The start times of runs come from
their clients, and would not be reliable.

If the writer of a run no longer runs, another mirror continues the run by writing its own lease over the old
one. If several do, the last one continues.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

from mlflow.entities import Run as MlflowRun

from aml_mirror.registries import keys
from aml_mirror.registries.mlflow.run_lease import CHOOSING, SETTLE_SECONDS, Keeper, Lease, Watch
from aml_mirror.registries.records import Version

if TYPE_CHECKING:
    from aml_mirror.registries.mlflow.tracking_server import MlflowRegistry

POLL_SECONDS = 2.0


class BakeryLock:
    """One mirror's wait for its turn.

    Args:
        workspace: the workspace of the runs.
        experiment_id: their experiment.
        tags: of the checkpoint to write, with its identity and its model's name.
        notice: called with messages for the user while waiting.
    """

    def __init__(
        self,
        workspace: MlflowRegistry,
        experiment_id: str,
        tags: dict[str, str],
        notice: Callable[[str], None],
    ) -> None:
        self.keeper = Keeper()
        self._workspace = workspace
        self._experiment_id = experiment_id
        self._tags = tags
        self._notice = notice
        self._told = False
        self._watches: dict[str, Watch] = defaultdict(Watch)
        # Runs of dead mirrors that we continued. They are never deleted.
        self._taken: set[str] = set()

    def wait(self, run_name: str) -> tuple[MlflowRun, bool] | Version:
        """Return the run to write and whether we created it, or the version that another mirror has written.

        Raises:
            MirrorError: the server does not answer.
        """
        made = ""
        while True:
            runs = self._runs()
            mine = [run for run in runs if self.keeper.holds(_note(run))]
            if version := self._written(runs):
                self._step_back(mine)
                return version
            rivals = self._rivals(runs)
            if not mine and rivals:
                self._wait_for(rivals)
            elif not mine and not runs:
                self.keeper.ticket = CHOOSING
                lease = {keys.LEASE: self.keeper.note()}
                made = self._workspace.create_run(
                    self._experiment_id, run_name, {**self._tags, **lease}
                ).info.run_id
            elif not mine:
                self._take_up(runs[0])
            # A POST whose answer was lost may have created more than one run of ours.
            elif self._step_back(mine[1:]):
                continue
            elif self.keeper.ticket == CHOOSING:
                self.keeper.ticket = 1 + max((lease.ticket for lease in rivals.values()), default=0)
                self._hold(mine[0])
            elif self._is_behind(mine[0], rivals):
                self._step_back(mine)
            elif any(lease.ticket == CHOOSING for lease in rivals.values()):
                time.sleep(SETTLE_SECONDS)
                self._hold(mine[0])
            elif (first := next(run for run in runs if run.info.run_id not in rivals)) is not mine[0]:
                # Left by a mirror that was in the queue with us, and older than ours.
                self._take_up(first)
            else:
                return mine[0], mine[0].info.run_id == made

    def _runs(self) -> list[MlflowRun]:
        found = self._workspace.search_runs(self._experiment_id, keys.IDENTITY, self._tags[keys.IDENTITY])
        return [run for run in found if run.data.tags.get(keys.MODEL_NAME) == self._tags[keys.MODEL_NAME]]

    def _written(self, runs: list[MlflowRun]) -> Version | None:
        if not any(run.data.tags.get(keys.STATE) == keys.COMPLETE for run in runs):
            return None
        found = self._workspace.search_versions(
            self._tags[keys.MODEL_NAME], keys.IDENTITY, self._tags[keys.IDENTITY]
        )
        return next((version for version in found if version.complete), None)

    def _rivals(self, runs: list[MlflowRun]) -> dict[str, Lease]:
        """Return the leases of the other live mirrors, by run."""
        rivals = {}
        for run in runs:
            lease = Lease.parse(_note(run))
            if lease is None or self.keeper.holds(_note(run)):
                continue
            if not self._watches[run.info.run_id].is_dead(lease):
                rivals[run.info.run_id] = lease
        return rivals

    def _is_behind(self, run: MlflowRun, rivals: dict[str, Lease]) -> bool:
        own = (self.keeper.ticket, run.info.run_id)
        return any(lease.ticket > CHOOSING and (lease.ticket, where) < own for where, lease in rivals.items())

    def _take_up(self, run: MlflowRun) -> None:
        self._notice(
            f"continuing the MLflow run {run.info.run_id}, which an earlier mirror left {run.info.status}"
        )
        self._taken.add(run.info.run_id)
        self.keeper.ticket = CHOOSING
        self._hold(run)
        time.sleep(SETTLE_SECONDS)

    def _hold(self, run: MlflowRun) -> None:
        note, client = self.keeper.note(), self._workspace.client
        self._workspace.retry(lambda: client.set_tag(run.info.run_id, keys.LEASE, note))

    def _step_back(self, runs: list[MlflowRun]) -> bool:
        """Delete runs that we created, and release those that we continued; tell whether there were any."""
        client = self._workspace.client
        for run in runs:
            run_id = run.info.run_id
            if run_id not in self._taken:
                self._workspace.discard(lambda run_id=run_id: client.delete_run(run_id))  # type: ignore[misc]
            else:
                self._workspace.retry(lambda run_id=run_id: client.set_tag(run_id, keys.LEASE, ""))  # type: ignore[misc]
        return bool(runs)

    def _wait_for(self, rivals: dict[str, Lease]) -> None:
        if not self._told:
            self._told = True
            self._notice(f"another mirror is working on this run (MLflow run {min(rivals)}); waiting for it")
        time.sleep(POLL_SECONDS)


def _note(run: MlflowRun) -> str | None:
    note: str | None = run.data.tags.get(keys.LEASE)
    return note
