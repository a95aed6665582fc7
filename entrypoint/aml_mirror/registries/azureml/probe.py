"""Tries in a real workspace what no documentation says and the mirror can handle: ``doctor --probe``.

Each probe does one small thing with its own run and model version, and reports in one line what the service
did. No answer is a fault: the mirror handles all of them, but a person who plans with it wants to know. A
probe fails only if the mirror cannot work without the feature.

Afterwards the run is deleted, or closed if runs may not be deleted. The version is archived, because Azure
ML's client cannot delete versions. The blob that it points to is deleted.
"""

from __future__ import annotations

import io
import math
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from azure.core.exceptions import HttpResponseError
from mlflow.entities import Metric, Param, RunTag
from mlflow.entities import Run as MlflowRun

from aml_mirror.core.errors import MirrorError, ServiceUnavailable
from aml_mirror.registries import keys, records, run_times
from aml_mirror.registries.azureml import job_link
from aml_mirror.registries.azureml.artifact_references import ArtifactReferences, NotOffered
from aml_mirror.registries.azureml.artifact_service import Refused
from aml_mirror.registries.azureml.limits import FOLDER, LIMITS
from aml_mirror.registries.azureml.run_artifacts import File, RunArtifacts
from aml_mirror.registries.azureml.service_client import single_attempt
from aml_mirror.registries.azureml.workspace import AzureMLRegistry
from aml_mirror.storage import azure_errors as azure_errors
from aml_mirror.support.library_internals import metric_history_page

# The experiment and model of every probe, so that a person finds them, and may delete them, in one place.
NAME = "aml-mirror-probe"
# How many seconds a search may take to show a new run.
SHOWN_SECONDS = 30.0
_PAUSE_SECONDS = 0.5
_ROUNDS, _AT_ONCE = 4, 4
_PAST_MS = 86_400_000

Answer = tuple[str, str, MirrorError | None]
"""A probe's name, its finding, and the failure if the mirror cannot work without it."""


def next_number(workspace: AzureMLRegistry) -> str:
    """Return the next free number of the probes' model."""
    try:
        return str(workspace.service.container(NAME).get("nextVersion") or "1")
    except HttpResponseError as error:
        if not azure_errors.is_missing(error):
            raise
        return "1"


class Probe:
    """One call of ``doctor --probe``.

    Args:
        workspace: opened without retries.
    """

    def __init__(self, workspace: AzureMLRegistry) -> None:
        self._workspace = workspace
        self._id = f"probe-{uuid.uuid4().hex}"

    def answers(self) -> Iterator[Answer]:
        """Yield an answer for each question. A failed probe does not stop the others."""
        try:
            experiment = self._workspace.experiment(NAME)
            past = run_times.now() - _PAST_MS
            tags = {keys.RUN_ID: self._id, keys.MODEL_NAME: NAME, keys.TRAINED: run_times.as_tag(past, past)}
            run = self._workspace.create_run(experiment, self._id, tags)
        except MirrorError as failure:
            yield "probe: a run", failure.message, failure
            return
        try:
            # The order matters: the probe that ends the run comes last.
            yield self._asked("times in the past", lambda: self._past(run, tags))
            yield self._asked("search", lambda: self._search(run))
            yield self._asked("rows sent twice", lambda: self._twice(run))
            yield self._asked("tags of requests at once", lambda: self._at_once(run))
            yield self._asked("values that are not finite", lambda: self._not_finite(run))
            yield self._asked("long parameters", lambda: self._long_parameter(run))
            yield self._asked("datastore", self._datastore, needed=True)
            yield self._asked("artifacts", lambda: self._artifact(run))
            yield self._asked("artifacts by reference", lambda: self._reference(run))
            yield self._asked("model version", self._version, needed=True)
            yield self._asked("link from version to run", lambda: self._job_name(run))
            yield self._asked("a closed run", lambda: self._reopened(run))
        finally:
            deleted = self._asked("deleting runs", lambda: self._deleted(run))
        yield deleted

    def _asked(self, name: str, probe: Callable[[], str], needed: bool = False) -> Answer:
        try:
            return f"probe: {name}", self._workspace.retry(probe), None
        except MirrorError as failure:
            found = failure.message if needed else f"refused: {failure.message}"
            return f"probe: {name}", found, failure if needed else None

    def _past(self, run: MlflowRun, tags: dict[str, str]) -> str:
        if run_times.is_kept(run, tags):
            return "a run may begin in the past: runs show when their training began"
        return f"a run does not begin in the past: its tag {keys.TRAINED} says when its training began"

    def _search(self, run: MlflowRun) -> str:
        started = time.monotonic()
        while True:
            found = self._workspace.search_runs(run.info.experiment_id, keys.RUN_ID, self._id)
            after = time.monotonic() - started
            if any(one.info.run_id == run.info.run_id for one in found):
                return f"a new run is found by the tag {keys.RUN_ID} after {after:.1f} s"
            if after > SHOWN_SECONDS:
                return f"a new run is not found by the tag {keys.RUN_ID} within {SHOWN_SECONDS:.0f} s"
            time.sleep(_PAUSE_SECONDS)

    def _twice(self, run: MlflowRun) -> str:
        client, row = self._workspace.client, Metric("probe/twice", 1.0, int(time.time() * 1000), 7)
        with single_attempt():
            for _ in range(2):
                client.log_batch(run.info.run_id, metrics=[row], synchronous=True)
        count = len(metric_history_page(client, run.info.run_id, row.key, 10))
        return "a metric row that is sent twice is kept " + {1: "once", 2: "twice"}.get(
            count, f"{count} times"
        )

    def _at_once(self, run: MlflowRun) -> str:
        client, run_id = self._workspace.client, run.info.run_id
        lost = 0
        for number in range(_ROUNDS):
            wanted = {f"probe.{partition}": f"{number}" for partition in range(_AT_ONCE)}
            with ThreadPoolExecutor(_AT_ONCE) as partitions:
                list(
                    partitions.map(
                        lambda item: client.log_batch(run_id, tags=[RunTag(*item)], synchronous=True),
                        wanted.items(),
                    )
                )
            kept = client.get_run(run_id).data.tags
            lost += sum(kept.get(key) != value for key, value in wanted.items())
        sent = _ROUNDS * _AT_ONCE
        return f"of {sent} tags written {_AT_ONCE} at a time, {sent - lost} were kept"

    def _not_finite(self, run: MlflowRun) -> str:
        now = int(time.time() * 1000)
        rows = [Metric("probe/odd", value, now, step) for step, value in enumerate((math.nan, math.inf))]
        self._workspace.client.log_batch(run.info.run_id, metrics=rows, synchronous=True)
        return "NaN and infinity are accepted"

    def _long_parameter(self, run: MlflowRun) -> str:
        length = LIMITS.param_value
        long = Param("probe/long", "x" * length)
        self._workspace.client.log_batch(run.info.run_id, params=[long], synchronous=True)
        kept = len(self._workspace.client.get_run(run.info.run_id).data.params[long.key])
        return f"of a parameter of {length:,} characters {kept:,} are kept"

    def _artifact(self, run: MlflowRun) -> str:
        info, data = run.info, self._id.encode()
        service = RunArtifacts(
            self._workspace.azure, info.artifact_uri or "", info.experiment_id, info.run_id
        )
        try:
            service.put(File("probe.txt", len(data), lambda: io.BytesIO(data)))
        except Refused as refused:
            return f"go into the datastore, since the run's own are refused: {refused.why}"
        return "are accepted by the run"

    def _datastore(self) -> str:
        azure = self._workspace.azure
        blob = azure.container.get_blob_client(f"{FOLDER}/probes/{self._id}/datastore.txt")
        data = self._id.encode()
        blob.upload_blob(data, overwrite=True)
        try:
            if blob.download_blob().readall() != data:
                raise ServiceUnavailable(f"{azure.datastore.name} returned other bytes than were written")
        finally:
            blob.delete_blob()
        return f"a blob was written to {azure.datastore.name}, read back and deleted"

    def _reference(self, run: MlflowRun) -> str:
        azure, info = self._workspace.azure, run.info
        service = RunArtifacts(azure, info.artifact_uri or "", info.experiment_id, info.run_id)
        blob = azure.container.get_blob_client(f"{FOLDER}/probes/{self._id}/reference.txt")
        data = self._id.encode()
        blob.upload_blob(data, overwrite=True)
        try:
            references = ArtifactReferences(azure, service, info.run_id)
            name = references.refer("reference.txt", azure.datastore.name, blob.blob_name)
            shown = service.read(name, len(data))
        except NotOffered as not_offered:
            return f"are not accepted: {not_offered.why}"
        except Refused as refused:
            return f"are accepted; reading one through the run is refused: {refused.why}"
        finally:
            blob.delete_blob()
        return "are accepted, and read back" if shown == data else "are accepted, but return other bytes"

    def _job_name(self, run: MlflowRun) -> str:
        """Try what no client of Azure ML sends: a version that names its run. See :mod:`.job_link`."""
        azure, service = self._workspace.azure, self._workspace.service
        folder = f"{FOLDER}/probes/{self._id}-job"
        blob = azure.container.get_blob_client(f"{folder}/probe.txt")
        blob.upload_blob(self._id.encode(), overwrite=True)
        number = next_number(self._workspace)
        made = {
            "modelType": "custom_model",
            "modelUri": service.long_path(azure.datastore_uri(folder)),
            "properties": {keys.IDENTITY: self._id},
            "tags": {},
            "jobName": run.info.run_id,
        }
        works = False
        try:
            service.put(NAME, number, made)
            kept = service.version(NAME, number)
            works = kept.get("jobName") == run.info.run_id
            service.put(NAME, number, {**kept, "isArchived": True})
        finally:
            blob.delete_blob()
            job_link.note(azure.container, works)
        if works:
            return "jobName is kept: mirrors of this workspace write it from now on"
        return "jobName is not kept: mirrors leave it out"

    def _version(self) -> str:
        azure = self._workspace.azure
        folder = f"{FOLDER}/probes/{self._id}"
        blob = azure.container.get_blob_client(f"{folder}/probe.txt")
        blob.upload_blob(self._id.encode(), overwrite=True)
        try:
            path = azure.datastore_uri(folder)
            properties = {keys.IDENTITY: self._id, keys.RUN_ID: self._id}
            version = self._workspace.registration.register(
                NAME, path, "", properties, {}, None, lambda number: None
            )
            if not version.path.rstrip("/").endswith(folder):
                raise ServiceUnavailable(f"version {version.number} of {NAME} points to another place")
            changed = self._changed_property(version)
            azure.ml.models.archive(NAME, version.number)
        finally:
            blob.delete_blob()
        return (
            f"a custom_model that points into the datastore is accepted (version {version.number} of {NAME}, "
            f"archived); {changed}"
        )

    def _changed_property(self, version: records.Version) -> str:
        operations = self._workspace.azure.ml.models
        found = operations.get(NAME, version.number)
        found.properties = {**found.properties, keys.IDENTITY: "another"}
        try:
            operations.create_or_update(found)
        except Exception as error:  # noqa: BLE001 - any error is the answer
            status = azure_errors.status_of(error) or type(error).__name__
            return f"another value of a property is refused with {status}"
        kept = operations.get(NAME, version.number).properties.get(keys.IDENTITY)
        return "another value of a property is " + (
            "passed over" if kept == self._id else "ACCEPTED, so properties prove nothing here"
        )

    def _reopened(self, run: MlflowRun) -> str:
        client, run_id = self._workspace.client, run.info.run_id
        client.set_terminated(run_id, "KILLED")
        client.update_run(run_id, "RUNNING")
        status = client.get_run(run_id).info.status
        return f"a KILLED run that is set to RUNNING is {status}"

    def _deleted(self, run: MlflowRun) -> str:
        client, run_id = self._workspace.client, run.info.run_id
        try:
            client.delete_run(run_id)
        except Exception:
            client.set_terminated(run_id, "KILLED")
            raise
        return "runs may be deleted; the probe's is"
