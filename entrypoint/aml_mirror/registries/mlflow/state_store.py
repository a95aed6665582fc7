"""State for the next call on an MLflow server: a separate MLflow run.

Its tags are the entries. Each tag is written separately, so two writers do not overwrite each other's
changes. Its artifacts are the texts. If several runs have the same name (two programs created the first one
at the same time), the first one is written to, and all are read.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from mlflow.entities import Run as MlflowRun
from mlflow.entities import RunTag

from aml_mirror.registries.artifact_folder import entries_of
from aml_mirror.registries.keys import OWN_PREFIX
from aml_mirror.registries.log_batches import in_batches
from aml_mirror.registries.mlflow.file_parts import parts_of

if TYPE_CHECKING:
    from aml_mirror.registries.mlflow.tracking_server import MlflowRegistry

NAME = OWN_PREFIX + "state_store"
ENTRY = OWN_PREFIX + "entry."
# A batch can have 100 tags (mlflow/utils/validation.py).
_TAGS = 100


class MlflowStateStore:
    """See :class:`aml_mirror.registries.base.StateStore`."""

    def __init__(self, registry: MlflowRegistry, experiment: str, name: str) -> None:
        self._registry, self._experiment, self._name = registry, experiment, name
        self._run_id = ""

    @property
    def place(self) -> str:
        return f"the MLflow run {self._name} of the experiment {self._experiment}"

    def entries(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for run in reversed(self._runs()):
            found.update(
                (key.removeprefix(ENTRY), value)
                for key, value in run.data.tags.items()
                if key.startswith(ENTRY)
            )
        return found

    def change(self, changes: Mapping[str, str | None]) -> None:
        client, retry, run_id = self._registry.client, self._registry.retry, self._made()
        tags = [RunTag(ENTRY + key, value) for key, value in changes.items() if value is not None]
        for batch in in_batches(iter(tags), _TAGS, lambda tag: tag.key + tag.value):
            retry(lambda: client.log_batch(run_id, tags=batch))  # noqa: B023
        gone = [ENTRY + key for key, value in changes.items() if value is None]
        for run in self._runs() if gone else []:
            for key in [key for key in gone if key in run.data.tags]:
                remove = partial(client.delete_tag, run.info.run_id, key)
                self._registry.discard(remove)

    def put_text(self, name: str, text: str) -> None:
        run_id = self._made()
        with tempfile.TemporaryDirectory(prefix="aml-mirror-") as scratch:
            path = os.path.join(scratch, name)
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(text)
            self._registry.retry(lambda: self._registry.stores.of_run(run_id).log_artifact(path))

    def texts(self) -> Iterator[tuple[str, str]]:
        retry = self._registry.retry
        found: dict[str, str] = {}
        for run in reversed(self._runs()):
            store = retry(lambda: self._registry.stores.of_run(run.info.run_id))  # noqa: B023
            for item in retry(lambda: entries_of(store)):  # noqa: B023
                data = retry(lambda: b"".join(parts_of(store, item.path)))  # noqa: B023
                found[str(item.path)] = data.decode("utf-8", "replace")
        yield from sorted(found.items())

    def _runs(self) -> list[MlflowRun]:
        found = self._registry.find_experiment(self._experiment)
        return self._registry.search_runs(found, NAME, self._name) if found else []

    def _made(self) -> str:
        if not self._run_id:
            runs = self._runs()
            if not runs:
                experiment = self._registry.store_checks.usable_experiment(self._experiment)
                made = self._registry.create_run(experiment, self._name, {NAME: self._name})
                # The first one counts, in case another program has created one too.
                runs = self._runs() or [made]
            self._run_id = str(runs[0].info.run_id)
        return self._run_id
