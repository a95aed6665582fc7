"""An Azure ML workspace.

One identity has one run and one version, whatever happens on the way:

1. *Look* (:mod:`.known_versions`). If a version of the run and checkpoint exists, nothing is written.
2. *Claim* (:mod:`.blob_lease`). Only one program can hold the claim on an identity. A program that had to
   wait looks again.
3. *Continue or create the run* (:mod:`.run_adoption`). The claim remembers it, so a search that does not show
   it yet misleads nobody. A request that creates a run is sent once. If its answer is lost, runs are searched
   before another is created. Of several, the one that the claim remembers counts, else the one that was
   created first. The others are retired.
4. *Write* parameters and metrics (:mod:`.metric_writer`), the checkpoint into the default datastore
   (:mod:`aml_mirror.transfer`), small files to the run (:mod:`.run_files`). It is not known whether Azure ML
   drops a metric row that arrives twice. So a batch of metrics is sent once, and after a failure the run is
   asked whether it arrived.
5. *Register* a version (:mod:`.version_registration`) that points to the datastore.
6. Look once more for runs that a lost answer created. *Finish* the run, then mark the version complete.
   Nothing appears to be complete before that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from aml_mirror.core.errors import ConfigurationError, DataError
from aml_mirror.core.manifest import Manifest, TransferResult
from aml_mirror.registries import keys
from aml_mirror.registries.azureml.blob_lease import BlobLease
from aml_mirror.registries.azureml.coordinates import Coordinates
from aml_mirror.registries.azureml.known_versions import each_version_of, versions_of
from aml_mirror.registries.azureml.limits import FOLDER, LIMITS, check_names, fit_tags, safe_part, tag_filter
from aml_mirror.registries.azureml.model_service import ModelService
from aml_mirror.registries.azureml.model_versions import Models
from aml_mirror.registries.azureml.prune_mark import wait_while_pruned
from aml_mirror.registries.azureml.read_once import is_worth_it, one_pass, remove_staged
from aml_mirror.registries.azureml.run_adoption import take_up
from aml_mirror.registries.azureml.service_client import PATIENCE, AzureML
from aml_mirror.registries.azureml.version_folder import folder_in
from aml_mirror.registries.azureml.version_registration import Registration
from aml_mirror.registries.azureml.version_tags import RETIRED
from aml_mirror.registries.azureml.writer import AzureMLWriter
from aml_mirror.registries.mlflow_runs import RunStore, lost_claim
from aml_mirror.registries.pages import Pages, studio_pages
from aml_mirror.registries.records import FileDigest, Point, Version
from aml_mirror.sources.base import Source
from aml_mirror.sources.tree import Tree
from aml_mirror.storage.azure_cloud import resource_manager
from aml_mirror.transfer.one_pass import OnePass
from aml_mirror.transfer.requests import Requests
from aml_mirror.transfer.staged_files import StagedFiles
from aml_mirror.transfer.transfer import Transfer
from aml_mirror.transfer.transfer_options import BLOCK_BYTES, CONCURRENCY

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient
    from mlflow import MlflowClient

    from aml_mirror.registries.azureml.leftovers import AzureMLLeftovers
    from aml_mirror.registries.azureml.log_writer import AzureMLLogWriter
    from aml_mirror.registries.azureml.model_registry import ModelRegistry
    from aml_mirror.registries.azureml.reader import AzureMLVersionReader
    from aml_mirror.registries.azureml.stage_store import AzureMLStageStore
    from aml_mirror.registries.base import StateStore


class AzureMLRegistry(RunStore):
    """See :class:`aml_mirror.registries.base.Registry`. Nothing is sent before it is needed.

    Args:
        coordinates: the coordinates of the workspace.
        retry_seconds: how long an operation may keep failing for temporary reasons.
        notice: called with messages for the user while waiting.
        concurrency: requests that carry checkpoint bytes at the same time.
        block_bytes: the size of what one of them carries.
    """

    def __init__(
        self,
        coordinates: Coordinates,
        retry_seconds: float,
        notice: Callable[[str], None],
        concurrency: int = CONCURRENCY,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self.azure = AzureML(coordinates, retry_seconds, notice, concurrency)
        super().__init__(self.azure.retry, LIMITS)
        self.service = ModelService(coordinates, PATIENCE)
        self.models = Models(self.service, self.retry)
        self.registration = Registration(self.models, self.service, self.azure, notice)
        self.notice = notice
        self._said: set[str] = set()
        self._retry_seconds = retry_seconds
        self.concurrency = concurrency
        self.block_bytes = block_bytes
        # Name -> id of the experiments that are known to exist.
        self.experiments: dict[str, str] = {}
        # Model and quick key -> the files that were sent while they were hashed.
        self._staged: dict[tuple[str, str], StagedFiles] = {}
        # Identity -> number of incomplete versions that were seen without their run.
        self.orphans: dict[str, str] = {}

    @property
    def client(self) -> MlflowClient:
        return self.azure.mlflow

    @property
    def description(self) -> str:
        return self.azure.coordinates.description

    def say_once(self, text: str) -> None:
        """Report something that applies to all runs, once."""
        if text not in self._said:
            self._said.add(text)
            self.notice(text)

    def pages(self, model: str, number: str, run_id: str) -> Pages:
        return studio_pages(resource_manager(), self.azure.coordinates.scope, model, number, run_id)

    def find_experiment(self, name: str) -> str | None:
        if name not in self.experiments:
            found = self.retry(lambda: self.client.get_experiment_by_name(name))
            if found is None:
                return None
            if found.lifecycle_stage == "deleted":
                # Its runs still exist. begin reports that nothing can be written.
                return str(found.experiment_id)
            self.experiments[name] = str(found.experiment_id)
        return self.experiments[name]

    def run_filter(self, key: str, value: str) -> str:
        return tag_filter(key, value)

    def versions(self, experiment: str, model: str, run_id: str) -> list[Version]:
        check_names(model, experiment)
        return versions_of(self, experiment, model, run_id)

    def each_version(self, experiment: str, model: str, take: Callable[[Version], None]) -> None:
        check_names(model, experiment)
        each_version_of(self, experiment, model, take)

    def model_names(self) -> Iterator[str]:
        return self.models.names()

    def state_store(self, experiment: str, name: str) -> StateStore:
        # Imported late: only a watcher and a long backfill need it.
        from aml_mirror.registries.azureml.state_store import BlobStateStore

        return BlobStateStore(self.azure, name)

    def be_patient_for(self, seconds: float) -> None:
        super().be_patient_for(seconds)
        self._retry_seconds = seconds

    def find_version(self, model: str, number: str) -> Version | None:
        return self.models.get(model, number)

    def version_reader(self, version: Version) -> AzureMLVersionReader:
        # Imported late: only verify needs it.
        from aml_mirror.registries.azureml.reader import AzureMLVersionReader

        return AzureMLVersionReader(self, version)

    def continue_logs(self, version: Version) -> AzureMLLogWriter | None:
        # Imported late: few mirrors need it.
        from aml_mirror.registries.azureml.log_writer import AzureMLLogWriter

        claim = self._claim(version.tags[keys.IDENTITY], version.model)
        claim.acquire()
        try:
            # Its current state: the previous holder of the claim may have continued the logs.
            now = self.models.get(version.model, version.number)
            folder = folder_in(now.path, {**now.tags, keys.MODEL_NAME: now.model}) if now else None
            if now is None or folder is None or not now.tags.get(keys.MLFLOW_RUN_ID):
                claim.release()
                return None
            return AzureMLLogWriter(self, now, folder, claim)
        except BaseException:
            claim.release()
            raise

    def repair(
        self,
        version: Version,
        tree: Tree,
        manifest: Manifest,
        right: Mapping[str, FileDigest],
        progress: Callable[[int], None],
    ) -> TransferResult:
        # Imported late: only repair needs it.
        from aml_mirror.registries.azureml.version_repair import repair

        claim = self._claim(version.tags[keys.IDENTITY], version.model)
        claim.acquire()

        def require_allowed() -> None:
            if claim.lost:
                raise lost_claim(f"the repair of version {version.number} of {version.model}")

        try:
            return repair(self, version, tree, manifest, right, progress, require_allowed)
        finally:
            claim.release()

    def _claim(self, identity: str, model: str) -> BlobLease:
        name = f"{FOLDER}/claims/{identity}/{safe_part(model)}"
        return BlobLease(self.azure.container.get_blob_client(name), self.retry, self.notice)

    def refresh(self, version: Version, quick_key: str) -> None:
        run_id = version.tags.get(keys.MLFLOW_RUN_ID, "")
        try:
            self.retry(lambda: self.client.set_tag(run_id, keys.QUICK_KEY, quick_key))
        except (ConfigurationError, DataError):
            # The run was deleted. Then the version states it, because it is found without a run. The given
            # version may come from a list without paths.
            now = self.find_version(version.model, version.number)
            if now is not None and now.tags.get(keys.IDENTITY) == version.tags.get(keys.IDENTITY):
                self.annotate(now, {keys.QUICK_KEY: quick_key})

    def annotate(self, version: Version, tags: dict[str, str]) -> None:
        # A version is written as a whole. Changes that another program writes at the same moment, such as a
        # stage, would be lost.
        claim = self.claim(version)
        claim.acquire()

        def require_allowed() -> None:
            if claim.lost:
                raise lost_claim(f"version {version.number} of {version.model}")

        try:
            self.models.tag(version, tags, require_allowed)
        finally:
            claim.release()

    def claim(self, version: Version) -> BlobLease:
        """Return the claim on a version. It must be held to write its tags, run or files."""
        return self._claim(version.tags[keys.IDENTITY], version.model)

    def attach(
        self, version: Version, name: str, text: str, points: Sequence[Point], tags: dict[str, str]
    ) -> list[str]:
        # Imported late: only an evaluation needs it.
        from aml_mirror.registries.azureml.attachments import attach

        return attach(self, version, name, text, points, tags)

    def stages(self, model: str) -> AzureMLStageStore:
        # Imported late: only a gate needs it.
        from aml_mirror.registries.azureml.stage_store import AzureMLStageStore

        return AzureMLStageStore(self, model)

    def sharing(self, name: str) -> ModelRegistry:
        # Imported late: only share needs it.
        from aml_mirror.registries.azureml.model_registry import ModelRegistry

        return ModelRegistry(self, name)

    def leftovers(self) -> AzureMLLeftovers:
        # Imported late: only prune needs it.
        from aml_mirror.registries.azureml.leftovers import AzureMLLeftovers

        return AzureMLLeftovers(self)

    def user(self) -> str:
        return self.azure.user()

    def read_once(self, source: Source, model: str, quick_key: str, size: int) -> OnePass | None:
        if not is_worth_it(source, size, self.block_bytes):
            return None
        reading = one_pass(self, model, quick_key)
        self._staged[model, quick_key] = reading.staged
        return reading

    def staged(self, model: str, quick_key: str) -> StagedFiles | None:
        return self._staged.get((model, quick_key))

    def unstage(self, model: str, quick_key: str) -> None:
        remove_staged(self.requests(), model, quick_key)
        self._staged.pop((model, quick_key), None)

    def requests(self) -> Requests:
        """Return the object that sends requests to the container of the default datastore."""
        return Requests(self.azure.container, self._retry_seconds, self.notice)

    def unfinished(self, experiment: str, run_id: str) -> Iterable[dict[str, str]]:
        return [tags for tags in super().unfinished(experiment, run_id) if tags.get(keys.STATE) != RETIRED]

    def begin(self, experiment: str, run_name: str, tags: dict[str, str]) -> AzureMLWriter | Version:
        tags, told = fit_tags(tags)
        model, identity = tags[keys.MODEL_NAME], tags[keys.IDENTITY]
        experiment_id = self.experiments.get(experiment) or self.experiment(experiment)
        self.experiments[experiment] = experiment_id
        claim = self._claim(identity, model)
        claim.acquire()
        try:
            wait_while_pruned(self.azure.container, identity, self.retry, self.notice)
            found = take_up(self, experiment_id, run_name, tags, claim)
        except BaseException:
            claim.release()
            raise
        if isinstance(found, Version):
            claim.release()
            if (model, tags[keys.QUICK_KEY]) in self._staged:
                self.unstage(model, tags[keys.QUICK_KEY])
        else:
            found.warnings.extend(told)
        return found

    def transfer(self, container: ContainerClient) -> Transfer:
        return Transfer(container, self.concurrency, self.block_bytes, self._retry_seconds, self.notice)
