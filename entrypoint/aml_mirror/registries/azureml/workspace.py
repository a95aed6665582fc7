"""An Azure ML workspace.

One identity has one run and one version, whatever happens on the way:

1. *Look.* The runs of the experiment are searched for the run id. A finished one names its version, whose
   immutable identity is compared. Only where no run tells, the model's versions are looked through.
2. *Claim* (:mod:`claims`). Whoever holds the claim on an identity is alone; who waited looks again first.
3. *Take up or create the run.* The claim remembers it, so that a search that does not show it yet misleads
   nobody. A request that creates a run is sent once; if its answer is lost, runs are
   searched before another is created. Of several the lowest (start time, id) counts; the others are
   retired.
4. *Write* parameters and metrics (:mod:`runs`), the checkpoint into the default datastore
   (:mod:`aml_mirror.transfer`), small files to the run (:mod:`run_artifacts`). Whether Azure ML drops a
   metric row that arrives twice is not known: a batch of metrics is sent once, and after a failure the run
   is asked whether it arrived.
5. *Register* a version (:mod:`models`) that points at the datastore.
6. Look once more for runs that a lost answer made; *finish* the run, then mark the version complete.
   Nothing reads as done before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from mlflow.entities import Run as MlflowRun
from mlflow.entities import RunTag

from aml_mirror.core.errors import ConfigurationError, DataError
from aml_mirror.core.manifest import Manifest, TransferResult
from aml_mirror.registries import base
from aml_mirror.registries.azureml.blob_lease import BlobLease
from aml_mirror.registries.azureml.limits import FOLDER, LIMITS, check_names, fit_tags, safe_part, tag_filter
from aml_mirror.registries.azureml.model_service import ModelService
from aml_mirror.registries.azureml.model_versions import Models
from aml_mirror.registries.azureml.prune_mark import wait_while_pruned
from aml_mirror.registries.azureml.read_once import is_worth_it, one_pass, remove_staged
from aml_mirror.registries.azureml.retry_with_read_back import RetryWithReadBack
from aml_mirror.registries.azureml.service_client import PATIENCE, AzureML, single_attempt
from aml_mirror.registries.azureml.version_folder import VersionFolder, folder_in, folder_of, is_ours
from aml_mirror.registries.azureml.version_tags import RETIRED, VERSION, named_by, names_version
from aml_mirror.registries.azureml.writer import AzureMLWriter, Place
from aml_mirror.registries.base import FileDigest, Point, Version
from aml_mirror.registries.mlflow_errors import is_missing
from aml_mirror.registries.mlflow_runs import lost_claim
from aml_mirror.registries.pinned_manifest import pinned_manifest
from aml_mirror.sources.base import Source
from aml_mirror.sources.tree import Tree
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


class AzureMLRegistry(Place):
    """See :class:`aml_mirror.registries.base.Registry`. Nothing is sent before it is needed.

    Args:
        subscription_id, resource_group, workspace_name: where it is.
        retry_seconds: how long an operation may go on failing for reasons that pass.
        notice: told, in words, what the person should know while waiting.
        concurrency: requests that carry checkpoint bytes at the same time.
        block_bytes: size of what one of them carries.

    Raises:
        ConfigurationError: a coordinate is missing or malformed.
    """

    def __init__(
        self,
        subscription_id: str,
        resource_group: str,
        workspace_name: str,
        retry_seconds: float,
        notice: Callable[[str], None],
        concurrency: int = CONCURRENCY,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self.azure = AzureML(
            subscription_id, resource_group, workspace_name, retry_seconds, notice, concurrency
        )
        super().__init__(self.azure.retry, LIMITS)
        self.service = ModelService(self.azure, PATIENCE)
        self.models = Models(self.service, self.retry, self._locked)
        self.notice = notice
        self._retry_seconds = retry_seconds
        self.concurrency = concurrency
        self.block_bytes = block_bytes
        # Name -> id of those that are known to be there.
        self.experiments: dict[str, str] = {}
        # Quick key -> the files that were sent as they were hashed.
        self._staged: dict[str, StagedFiles] = {}
        # Identity -> number of incomplete versions that were seen without their run.
        self._orphans: dict[str, str] = {}

    @contextmanager
    def _locked(self, model: str) -> Iterator[None]:
        """Hold the lease under which the numbers of a model's versions are taken."""
        lease = BlobLease(
            self.azure.container.get_blob_client(f"{FOLDER}/numbers/{safe_part(model)}"),
            self.retry,
            self.notice,
            f"another mirror registers a version of {model}; waiting for it",
        )
        lease.acquire()
        try:
            yield
        finally:
            lease.release()

    @property
    def client(self) -> MlflowClient:
        return self.azure.mlflow

    @property
    def description(self) -> str:
        return f"Azure ML workspace {self.azure.name} (resource group {self.azure.resource_group})"

    def find_experiment(self, name: str) -> str | None:
        if name not in self.experiments:
            found = self.retry(lambda: self.client.get_experiment_by_name(name))
            if found is None:
                return None
            if found.lifecycle_stage == "deleted":
                # Its runs are there still; begin says that nothing can be written.
                return str(found.experiment_id)
            self.experiments[name] = str(found.experiment_id)
        return self.experiments[name]

    def run_filter(self, key: str, value: str) -> str:
        return tag_filter(key, value)

    def versions(self, experiment: str, model: str, run_id: str) -> list[Version]:
        check_names(model, experiment)
        found: list[Version] = []
        experiment_id = self.find_experiment(experiment)
        runs = self.search_runs(experiment_id, base.RUN_ID, run_id) if experiment_id else []
        for run in runs:
            if run.data.tags.get(base.MODEL_NAME) == model and (version := self._version_of(run)):
                found.append(version)
        if not found:
            # Only an answer without a finished run leaves open that the version was mirrored from elsewhere.
            found = self.models.of_run(model, run_id)
            begun = [item for item in found if not item.complete]
            self._orphans = {item.tags.get(base.IDENTITY, ""): item.number for item in reversed(begun)}
        return found

    def _version_of(self, run: MlflowRun) -> Version | None:
        """The version that a finished run names, if it is there and is this run's."""
        tags = run.data.tags
        if not names_version(tags):
            return None
        return named_by(tags, self.models.get(tags[base.MODEL_NAME], tags[VERSION]))

    def each_version(self, experiment: str, model: str, take: Callable[[Version], None]) -> None:
        check_names(model, experiment)
        # The runs tell the keys under which files are known now, the versions all else.
        keys: dict[str, tuple[str, str]] = {}
        if experiment_id := self.find_experiment(experiment):
            for run in self.each_run(experiment_id, base.MODEL_NAME, model):
                tags = run.data.tags
                if names_version(tags):
                    keys[tags[VERSION]] = (tags.get(base.IDENTITY, ""), tags.get(base.QUICK_KEY, ""))

        def with_key(version: Version) -> None:
            if not version.tags.get(base.RUN_ID) or not is_ours(version):
                return
            identity, key = keys.get(version.number, ("", ""))
            if key and identity == version.tags.get(base.IDENTITY):
                version = replace(version, tags={**version.tags, base.QUICK_KEY: key})
            take(version)

        self.models.each(model, with_key)

    def model_names(self) -> Iterator[str]:
        return self.models.names()

    def state_store(self, experiment: str, name: str) -> StateStore:
        # Late: only a watcher and a long backfill need it.
        from aml_mirror.registries.azureml.state_store import BlobStateStore

        return BlobStateStore(self.azure, name)

    def be_patient_for(self, seconds: float) -> None:
        super().be_patient_for(seconds)
        self._retry_seconds = seconds

    def find_version(self, model: str, number: str) -> Version | None:
        return self.models.get(model, number)

    def version_reader(self, version: Version) -> AzureMLVersionReader:
        # Late: only verify needs it.
        from aml_mirror.registries.azureml.reader import AzureMLVersionReader

        return AzureMLVersionReader(self, version)

    def continue_logs(self, version: Version) -> AzureMLLogWriter | None:
        # Late: few mirrors need it.
        from aml_mirror.registries.azureml.log_writer import AzureMLLogWriter

        claim = self._claim(version.tags[base.IDENTITY], version.model)
        claim.acquire()
        try:
            # As it is now: whoever had the claim before may have continued the logs.
            now = self.models.get(version.model, version.number)
            folder = folder_in(now.path, {**now.tags, base.MODEL_NAME: now.model}) if now else None
            if now is None or folder is None or not now.tags.get(base.MLFLOW_RUN_ID):
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
        # Late: only repair needs it.
        from aml_mirror.registries.azureml.version_repair import repair

        claim = self._claim(version.tags[base.IDENTITY], version.model)
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
        run_id = version.tags.get(base.MLFLOW_RUN_ID, "")
        try:
            self.retry(lambda: self.client.set_tag(run_id, base.QUICK_KEY, quick_key))
        except (ConfigurationError, DataError):
            # The run was deleted; the version says it then, where it is found without a run. The one that is
            # given may come from a list without paths.
            now = self.find_version(version.model, version.number)
            if now is not None and now.tags.get(base.IDENTITY) == version.tags.get(base.IDENTITY):
                self.annotate(now, {base.QUICK_KEY: quick_key})

    def annotate(self, version: Version, tags: dict[str, str]) -> None:
        # A version is written whole: what another writes at the same moment, a stage for one, would be lost.
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
        """Return the claim on a version: whoever writes its tags, run or files holds it."""
        return self._claim(version.tags[base.IDENTITY], version.model)

    def attach(
        self, version: Version, name: str, text: str, points: Sequence[Point], tags: dict[str, str]
    ) -> list[str]:
        # Late: only an evaluation needs it.
        from aml_mirror.registries.azureml.attachments import attach

        return attach(self, version, name, text, points, tags)

    def stages(self, model: str) -> AzureMLStageStore:
        # Late: only a gate needs it.
        from aml_mirror.registries.azureml.stage_store import AzureMLStageStore

        return AzureMLStageStore(self, model)

    def sharing(self, name: str) -> ModelRegistry:
        # Late: only share needs it.
        from aml_mirror.registries.azureml.model_registry import ModelRegistry

        return ModelRegistry(self, name)

    def leftovers(self) -> AzureMLLeftovers:
        # Late: only prune needs it.
        from aml_mirror.registries.azureml.leftovers import AzureMLLeftovers

        return AzureMLLeftovers(self)

    def user(self) -> str:
        return self.azure.user()

    def read_once(self, source: Source, model: str, quick_key: str, size: int) -> OnePass | None:
        if not is_worth_it(source, size, self.block_bytes):
            return None
        reading = one_pass(self, model, quick_key)
        self._staged[quick_key] = reading.staged
        return reading

    def staged(self, quick_key: str) -> StagedFiles | None:
        return self._staged.get(quick_key)

    def unstage(self, quick_key: str) -> None:
        remove_staged(self.requests(), quick_key)
        self._staged.pop(quick_key, None)

    def requests(self) -> Requests:
        """Return what runs requests to the container of the default datastore."""
        return Requests(self.azure.container, self._retry_seconds, self.notice)

    def unfinished(self, experiment: str, run_id: str) -> Iterable[dict[str, str]]:
        return [tags for tags in super().unfinished(experiment, run_id) if tags.get(base.STATE) != RETIRED]

    def begin(self, experiment: str, run_name: str, tags: dict[str, str]) -> AzureMLWriter | Version:
        tags, told = fit_tags(tags)
        model, identity = tags[base.MODEL_NAME], tags[base.IDENTITY]
        experiment_id = self.experiments.get(experiment) or self.experiment(experiment)
        self.experiments[experiment] = experiment_id
        claim = self._claim(identity, model)
        claim.acquire()
        try:
            wait_while_pruned(self.azure.container, identity, self.retry, self.notice)
            found = self._take_up(experiment_id, run_name, tags, claim)
        except BaseException:
            claim.release()
            raise
        if isinstance(found, Version):
            claim.release()
            if tags[base.QUICK_KEY] in self._staged:
                self.unstage(tags[base.QUICK_KEY])
        else:
            found.warnings.extend(told)
        return found

    def _take_up(
        self, experiment_id: str, run_name: str, tags: dict[str, str], claim: BlobLease
    ) -> AzureMLWriter | Version:
        model, identity = tags[base.MODEL_NAME], tags[base.IDENTITY]
        runs = self._runs_now(experiment_id, identity, model, claim.run_id)
        for run in runs:
            version = self._version_of(run)
            if version is not None and version.complete:
                return self._completed(run, version)
            if version is not None and self._is_whole(version):
                marked = replace(version, tags={**version.tags, base.STATE: base.COMPLETE})
                self.models.tag(version, {base.STATE: base.COMPLETE})
                return self._completed(run, marked)
            if version is not None:
                # Only the mark was missing, and what was verified then changed since.
                claim.remember(str(run.info.run_id))
                folder = self._folder(tags, version.number)
                return AzureMLWriter(self, run, claim, tags, True, version.number, folder)
        # One that is complete counts wherever it is; taken up is only one of this experiment.
        runs = [run for run in runs if run.info.experiment_id == experiment_id]
        if not runs and claim.waited:
            # Whoever was before us may have worked in another experiment.
            version = self.models.with_identity(model, identity)
            if version is not None and version.complete:
                return version
        intended = next((run.data.tags[VERSION] for run in runs if run.data.tags.get(VERSION)), None)
        while runs and not self._reopen(runs[0], tags):
            runs = runs[1:]
        adopted = bool(runs)
        if not runs:
            runs = self._create(experiment_id, run_name, tags)
        claim.remember(str(runs[0].info.run_id))
        for other in runs[1:]:
            self.retire(other)
        intended = intended or self._orphans.get(identity)
        return AzureMLWriter(self, runs[0], claim, tags, adopted, intended, self._folder(tags, intended))

    def _folder(self, tags: dict[str, str], intended: str | None) -> VersionFolder:
        """Where the version goes: the folder that an earlier attempt registered wins."""
        begun = self.models.get(tags[base.MODEL_NAME], intended) if intended else None
        if begun is not None and begun.tags.get(base.IDENTITY) == tags[base.IDENTITY]:
            named = folder_in(begun.path, {**begun.tags, base.MODEL_NAME: begun.model})
            if named is not None:
                return named
        return folder_of(tags)

    def _is_whole(self, version: Version) -> bool:
        """Whether the bytes of a version that lacks nothing but the mark are right still."""
        reader = self.version_reader(version)
        marked = replace(version, tags={**version.tags, base.STATE: base.COMPLETE})
        try:
            return not reader.changed(pinned_manifest(marked, reader))
        except DataError:
            return False

    def _completed(self, run: MlflowRun, version: Version) -> Version:
        """Close the run of a complete version, which a mirror that was killed at its end left open."""
        if run.info.status != "FINISHED":
            self.retry(lambda: self.client.set_terminated(run.info.run_id, "FINISHED"))
        return version

    def _runs(self, experiment_id: str, identity: str, model: str) -> list[MlflowRun]:
        runs = self.search_runs(experiment_id, base.IDENTITY, identity)
        return [run for run in runs if run.data.tags.get(base.MODEL_NAME) == model]

    def _runs_now(self, experiment_id: str, identity: str, model: str, known: str) -> list[MlflowRun]:
        """The runs of an identity, those that the search finds and the one known by its id, as they are.

        Each is asked for by its id: what a search shows of a run may be what it was a while ago, and an
        earlier attempt's marks, the number of its version among them, decide what is written again.
        """
        ids = dict.fromkeys(str(run.info.run_id) for run in self._runs(experiment_id, identity, model))
        if known:
            ids.setdefault(known)
        found = (self._run(run_id) for run_id in ids)
        runs = [
            run
            for run in found
            if run is not None
            and run.info.lifecycle_stage != "deleted"
            and run.data.tags.get(base.IDENTITY) == identity
            and run.data.tags.get(base.MODEL_NAME) == model
        ]
        return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))

    def _run(self, run_id: str) -> MlflowRun | None:
        try:
            return self.retry(lambda: self.client.get_run(run_id))
        except (ConfigurationError, DataError) as error:
            if not is_missing(error.__cause__):
                raise
            return None

    def _reopen(self, run: MlflowRun, tags: dict[str, str]) -> bool:
        """Make an earlier attempt's run ours; False where Azure ML does not let it be written any more."""
        if run.info.status != "RUNNING":
            self.notice(
                f"taking up the MLflow run {run.info.run_id}, which an earlier mirror left {run.info.status}"
            )
        try:
            self.update_tags(run, {key: value for key, value in tags.items() if key != base.STATE})
            if run.info.status != "RUNNING":
                self.retry(lambda: self.client.update_run(run.info.run_id, "RUNNING"))
        except (ConfigurationError, DataError):
            self.retire(run)
            return False
        return True

    def _create(self, experiment_id: str, run_name: str, tags: dict[str, str]) -> list[MlflowRun]:
        """Create a run; where an answer was lost, return all that were made, the one that counts first."""

        def look() -> list[MlflowRun]:
            return self._runs(experiment_id, tags[base.IDENTITY], tags[base.MODEL_NAME])

        def send() -> list[MlflowRun]:
            with single_attempt():
                return [self.client.create_run(experiment_id, tags=tags, run_name=run_name)]

        create = RetryWithReadBack(look, send)
        made: list[MlflowRun] = self.retry(create)
        if create.was_lost:
            # Found only now: one whose answer was lost, and that the search did not show at once.
            seen = {run.info.run_id: run for run in made}
            for run in look():
                seen.setdefault(run.info.run_id, run)
            made = sorted(seen.values(), key=lambda run: (run.info.start_time, run.info.run_id))
        return made

    def retire(self, run: MlflowRun) -> None:
        """Take a run out of every search, and delete it where Azure ML lets us.

        Deleting runs is in Azure ML's older documentation and missing in the newer; so the run is first
        marked, and closed, and then a refusal does no harm.
        """
        run_id = run.info.run_id
        marks = {base.IDENTITY: f"{RETIRED}:{run_id}", base.STATE: RETIRED}
        self.retry(
            lambda: self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in marks.items()])
        )
        for end in ("close", "delete"):
            try:
                if end == "close":
                    self.client.set_terminated(run_id, "KILLED")
                else:
                    self.client.delete_run(run_id)
            except Exception:  # noqa: BLE001, S112 - marked as it is, it misleads nobody
                continue

    def retire_others(self, run: MlflowRun) -> None:
        tags = run.data.tags
        for other in self._runs(run.info.experiment_id, tags[base.IDENTITY], tags[base.MODEL_NAME]):
            if other.info.run_id != run.info.run_id:
                self.retire(other)

    def transfer(self, container: ContainerClient) -> Transfer:
        return Transfer(container, self.concurrency, self.block_bytes, self._retry_seconds, self.notice)
