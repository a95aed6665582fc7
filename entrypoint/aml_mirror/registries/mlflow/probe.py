"""``doctor --probe``: writes a run, an artifact and a model in the same way as a mirror, and removes them
again.

Only the server's own trash keeps something: a deleted run, and a deleted experiment if the experiment is new.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from aml_mirror.core.errors import MirrorError
from aml_mirror.core.settings import Settings
from aml_mirror.registries.mlflow.file_parts import parts_of
from aml_mirror.registries.mlflow.file_upload import put_text
from aml_mirror.registries.mlflow.tracking_server import MlflowRegistry
from aml_mirror.registries.mlflow_errors import is_missing
from aml_mirror.registries.registry_type import PROBE_NAME

Found = tuple[str, str, MirrorError | None]
_FILE = "probe.txt"


def probe(registry: MlflowRegistry, settings: Settings) -> Iterator[Found]:
    """Yield the name of each attempt, its result, and the failure or None."""
    model = settings.model_name or PROBE_NAME
    tries = _Tries(registry, settings.experiment or model, model, f"aml-mirror-probe-{uuid.uuid4().hex[:12]}")
    try:
        for name, attempt in (
            ("write a run", tries.run),
            ("write an artifact", tries.artifact),
            ("write a model", tries.a_model),
        ):
            try:
                yield name, attempt(), None
            except MirrorError as error:
                yield name, error.message, error
                if not tries.run_id:
                    return
    finally:
        tries.remove()


@dataclass
class _Tries:
    registry: MlflowRegistry
    experiment: str
    model: str
    id: str
    run_id: str = ""
    new_experiment: str = ""

    def run(self) -> str:
        registry = self.registry
        found = registry.find_experiment(self.experiment)
        if found is None:
            # Its own name stays free: a deleted experiment keeps its name.
            found = self.new_experiment = registry.experiment(self.id)
        run = registry.create_run(found, self.id, {PROBE_NAME: "true"})
        self.run_id = str(run.info.run_id)
        where = f"the experiment {self.experiment}" if not self.new_experiment else "a new experiment"
        return f"{where} accepts a run"

    def artifact(self) -> str:
        registry = self.registry
        location = str(registry.retry(lambda: registry.client.get_run(self.run_id)).info.artifact_uri)
        retry = registry.stores.retry_for(location)
        store = retry(lambda: registry.stores.open(location))
        put_text(store, retry, _FILE, self.id)
        back = b"".join(retry(lambda: list(parts_of(store, _FILE))))
        if back != self.id.encode():
            return f"{location} returned {len(back)} of {len(self.id)} bytes"
        try:
            retry(lambda: store.delete_artifacts(_FILE))
        except (NotImplementedError, MirrorError) as error:
            return f"{location} accepts a file and returns it, but did not remove it: {error}"
        return f"{location} accepts, returns and removes a file"

    def a_model(self) -> str:
        client, retry = self.registry.client, self.registry.retry
        try:
            retry(lambda: client.get_registered_model(self.model))
        except MirrorError as error:
            if not is_missing(error.__cause__):
                raise
            retry(lambda: client.create_registered_model(self.id))
            self.registry.discard(lambda: client.delete_registered_model(self.id))
            return "a new model can be created and removed"
        retry(lambda: client.set_registered_model_tag(self.model, PROBE_NAME, "true"))
        self._quietly(lambda: client.delete_registered_model_tag(self.model, PROBE_NAME))
        return f"the model {self.model} can be written"

    def remove(self) -> None:
        client = self.registry.client
        if self.run_id:
            self._quietly(lambda: client.delete_run(self.run_id))
        if self.new_experiment:
            self._quietly(lambda: client.delete_experiment(self.new_experiment))

    def _quietly(self, delete: Callable[[], object]) -> None:
        try:
            self.registry.discard(delete)
        except MirrorError:
            return  # only the result of the probe itself is reported
