"""An Azure ML workspace.

One identity has one run and one version, whatever happens on the way:

1. *Look.* The runs of the experiment are searched for the run id. A finished one names its version, whose
   immutable identity is compared. Only where no run tells, the model's versions are looked through.
2. *Claim* (:mod:`claims`). Whoever holds the claim on an identity is alone; who waited looks again first.
3. *Take up or create the run.* A request that creates a run is sent once; if its answer is lost, runs are
   searched before another is created. Of several the lowest (start time, id) counts; the others are
   retired.
4. *Write* parameters and metrics (:mod:`runs`), the checkpoint into the default datastore
   (:mod:`aml_mirror.transfer`), small files to the run (:mod:`run_artifacts`). Whether Azure ML drops a
   metric row that arrives twice is not known: a batch of metrics is sent once, and after a failure the run
   is asked whether it arrived.
5. *Register* a version (:mod:`azureml_models`) that points at the datastore.
6. *Finish* the run, then mark the version complete. Nothing reads as done before.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, BinaryIO

from mlflow.entities import Metric, Param, RunTag
from mlflow.entities import Run as MlflowRun

from aml_mirror.errors import (
    ConfigurationError,
    DataError,
    MirrorError,
    ServiceUnavailable,
)
from aml_mirror.manifest import Manifest
from aml_mirror.sources.azure_blob import BlobSource
from aml_mirror.sources.base import Source
from aml_mirror.sources.tree import Tree
from aml_mirror.transfer import BLOCK_BYTES, CONCURRENCY, Transfer
from aml_mirror.workspaces import base
from aml_mirror.workspaces.azureml_client import AzureML, single_attempt
from aml_mirror.workspaces.azureml_limits import (
    FOLDER,
    LEAST_PARAM_VALUE,
    LIMITS,
    check_names,
    cut,
    fit_tags,
    safe_part,
)
from aml_mirror.workspaces.azureml_models import PROPERTIES, Models
from aml_mirror.workspaces.base import Moved, Point, Upload, Version
from aml_mirror.workspaces.claims import Claim
from aml_mirror.workspaces.run_artifacts import File, Refused, RunArtifacts
from aml_mirror.workspaces.runs import RunStore, RunWriter, quotable, quoted

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Tags of a run, beside those of base.py.
VERSION = "mirror.model_version"
ARTIFACTS = "mirror.artifacts"
# From so many files on, registering their paths together is worth the names that a kill would leave.
REGISTER_TOGETHER = 20
# The state of a run that a lost answer made beside the one that counts.
RETIRED = "retired"


class AzureMLWorkspace(RunStore):
    """See :class:`aml_mirror.workspaces.base.Workspace`. Nothing is sent before it is needed.

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
        self.models = Models(lambda: self.azure.ml, self.retry, self.azure.shown)
        self.notice = notice
        self._retry_seconds = retry_seconds
        self._concurrency = concurrency
        self._block_bytes = block_bytes
        self._experiments: dict[str, str] = {}

    @property
    def client(self) -> MlflowClient:
        return self.azure.mlflow

    @property
    def description(self) -> str:
        return f"Azure ML workspace {self.azure.name} (resource group {self.azure.resource_group})"

    def find_experiment(self, name: str) -> str | None:
        if name not in self._experiments and (found := super().find_experiment(name)):
            self._experiments[name] = found
        return self._experiments.get(name)

    def run_filter(self, key: str, value: str) -> str:
        # Without the backticks that MLflow allows around a key: Azure ML reads the language by itself, and
        # documents dotted keys as they stand (Learn, "Query and compare experiments and runs").
        return f"tags.{key} = {quoted(value)}" if quotable(value) else ""

    def versions(self, experiment: str, model: str, run_id: str) -> list[Version]:
        check_names(model, experiment)
        found: list[Version] = []
        experiment_id = self.find_experiment(experiment)
        runs = self.search_runs(experiment_id, base.RUN_ID, run_id) if experiment_id else []
        for run in runs:
            if run.data.tags.get(base.MODEL_NAME) == model and (version := self._version_of(run)):
                found.append(version)
        # Only an answer without a finished run leaves open that the version was mirrored from elsewhere.
        return found or self.models.of_run(model, run_id)

    def _version_of(self, run: MlflowRun) -> Version | None:
        """The version that a finished run names, if it is there and is this run's."""
        tags = run.data.tags
        if tags.get(base.STATE) != base.COMPLETE or not tags.get(VERSION):
            return None
        version = self.models.get(tags[base.MODEL_NAME], tags[VERSION])
        if version is None or version.tags.get(base.IDENTITY) != tags.get(base.IDENTITY):
            return None
        # The run keeps what may change: the key under which the files are known now.
        return Version(
            version.model,
            version.number,
            {**version.tags, base.QUICK_KEY: tags.get(base.QUICK_KEY, "")},
        )

    def can_copy(self, source: Source) -> bool:
        # A blob source is in the cloud that the settings name (aml_mirror.login.blob_suffix), as we are.
        return isinstance(source, BlobSource)

    def refresh(self, version: Version, quick_key: str) -> None:
        run_id = version.tags.get(base.MLFLOW_RUN_ID, "")
        try:
            self.retry(lambda: self.client.set_tag(run_id, base.QUICK_KEY, quick_key))
        except (ConfigurationError, DataError):
            # The run was deleted; the version says it then, where it is found without a run.
            self.models.tag(version, {base.QUICK_KEY: quick_key})

    def unfinished(self, experiment: str, run_id: str) -> Iterable[dict[str, str]]:
        return [tags for tags in super().unfinished(experiment, run_id) if tags.get(base.STATE) != RETIRED]

    def begin(self, experiment: str, run_name: str, tags: dict[str, str]) -> AzureMLWriter | Version:
        tags, told = fit_tags(tags)
        model, identity = tags[base.MODEL_NAME], tags[base.IDENTITY]
        experiment_id = self._experiments.get(experiment) or self.experiment(experiment)
        self._experiments[experiment] = experiment_id
        name = f"{FOLDER}/claims/{identity}/{safe_part(model)}"
        claim = Claim(self.azure.container.get_blob_client(name), self.retry, self.notice)
        claim.acquire()
        try:
            found = self._take_up(experiment_id, run_name, tags, claim)
        except BaseException:
            claim.release()
            raise
        if isinstance(found, Version):
            claim.release()
        else:
            found.warnings.extend(told)
        return found

    def _take_up(
        self, experiment_id: str, run_name: str, tags: dict[str, str], claim: Claim
    ) -> AzureMLWriter | Version:
        model, identity = tags[base.MODEL_NAME], tags[base.IDENTITY]
        runs = self._runs(experiment_id, identity, model)
        for run in runs:
            if version := self._version_of(run):
                return self._completed(run, version)
        if not runs and claim.waited:
            # Whoever was before us may have worked in another experiment.
            version = self.models.with_identity(model, identity)
            if version is not None and version.complete:
                return version
        adopted = bool(runs)
        if runs and not self._reopen(runs[0], tags):
            runs, adopted = [], False
        if not runs:
            runs = self._create(experiment_id, run_name, tags)
        for other in runs[1:]:
            self.retire(other)
        return AzureMLWriter(self, runs[0], claim, tags, adopted)

    def _completed(self, run: MlflowRun, version: Version) -> Version:
        """Write what a mirror that was killed in its last moment left out: all else was verified before."""
        if run.info.status != "FINISHED":
            self.retry(lambda: self.client.set_terminated(run.info.run_id, "FINISHED"))
        if not version.complete:
            self.models.tag(version, {base.STATE: base.COMPLETE})
        return Version(version.model, version.number, {**version.tags, base.STATE: base.COMPLETE})

    def _runs(self, experiment_id: str, identity: str, model: str) -> list[MlflowRun]:
        runs = self.search_runs(experiment_id, base.IDENTITY, identity)
        return [run for run in runs if run.data.tags.get(base.MODEL_NAME) == model]

    def _reopen(self, run: MlflowRun, tags: dict[str, str]) -> bool:
        """Make an earlier try's run ours; False where Azure ML does not let it be written any more."""
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
        tries = 0

        def create() -> list[MlflowRun]:
            nonlocal tries
            tries += 1
            if tries > 1:
                made = self._runs(experiment_id, tags[base.IDENTITY], tags[base.MODEL_NAME])
                if made:
                    return made
            with single_attempt():
                return [self.client.create_run(experiment_id, tags=tags, run_name=run_name)]

        made = self.retry(create)
        if tries > 1:
            # Found only now: one whose answer was lost, and that the search did not show at once.
            seen = {run.info.run_id: run for run in made}
            for run in self._runs(experiment_id, tags[base.IDENTITY], tags[base.MODEL_NAME]):
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

    def transfer(self) -> Transfer:
        """What brings a checkpoint into the default datastore."""
        return Transfer(
            self.azure.container, self._concurrency, self._block_bytes, self._retry_seconds, self.notice
        )


class AzureMLWriter(RunWriter):
    """See :class:`aml_mirror.workspaces.base.Writer`. ``warnings`` is what the person should know."""

    _claim: Claim

    def __init__(
        self,
        workspace: AzureMLWorkspace,
        run: MlflowRun,
        claim: Claim,
        tags: dict[str, str],
        adopted: bool,
    ) -> None:
        super().__init__(workspace, run, claim, tags, adopted)
        self._workspace = workspace
        self._artifacts: RunArtifacts | None = None
        self._only_finite = False
        self._beside = ""
        self._folder = "/".join(
            (
                FOLDER,
                safe_part(tags[base.RUN_ID]),
                safe_part(tags[base.CHECKPOINT]),
                tags[base.MANIFEST_SHA256],
            )
        )
        if adopted and (earlier := run.data.tags.get(ARTIFACTS)):
            self._beside = earlier.partition("/paths/")[2].strip("/")

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
            # How long a value may be is not documented: what every server takes is sent instead.
            self.warnings.append(f"parameters were cut to {LEAST_PARAM_VALUE} characters: {error.message}")
            shorter = [Param(key, cut(value, LEAST_PARAM_VALUE)) for key, value in items]
            self._log_batch(params=shorter)

    def _log_points(self, batch: list[Point], mark: str) -> None:
        self._require_claim()
        finite = [point for point in batch if math.isfinite(point[1])]
        if self._only_finite or len(finite) == len(batch):
            self._send_points(finite, mark)
            return
        try:
            self._send_points(batch, mark)
        except (ConfigurationError, DataError) as refusal:
            # Whether Azure ML takes NaN and infinities is not documented; the event files have them anyway.
            self._only_finite = True
            self._warn(f"metric values that are not finite were left out: {refusal.message}")
            self._send_points(finite, mark)

    def _send_points(self, batch: list[Point], mark: str) -> None:
        metrics = [Metric(name, value, timestamp, step) for name, value, timestamp, step in batch]
        tries = 0

        def send() -> None:
            nonlocal tries
            tries += 1
            # The answer to an earlier try may have been lost: the mark, sent with the points, tells.
            if tries > 1 and self._client.get_run(self.run_id).data.tags.get(base.POINTS) == mark:
                return
            with single_attempt():
                self._client.log_batch(
                    self.run_id, metrics=metrics, tags=[RunTag(base.POINTS, mark)], synchronous=True
                )

        self._retry(send)

    def put_model(self, tree: Tree, manifest: Manifest, progress: Callable[[int], None]) -> Moved:
        self._require_claim()

        def guarded(count: int) -> None:
            progress(count)
            self._require_claim()

        moved = self._workspace.transfer().put(tree, manifest.items, self._folder, guarded)
        # Told here as well, so that they are in the receipt whatever else reads them.
        return Moved(moved.sent, moved.copied, (*moved.warnings, *self.warnings))

    def put_files(self, tree: Tree, uploads: list[Upload], progress: Callable[[int], None]) -> int:
        files = [File(upload.path, upload.bytes, _opener(tree, upload.source)) for upload in uploads]
        sent = 0
        self._register([file.path for file in files])
        for upload, file in zip(uploads, files, strict=True):
            sent += self._put(file)
            if not tree.source.is_unchanged(tree.entry(upload.source)):
                raise DataError(
                    f"{upload.source} changed while it was sent",
                    "wait until the training has ended and nothing writes there any more, then run again",
                )
            progress(upload.bytes)
        return sent

    def put_texts(self, texts: dict[str, str]) -> None:
        files = []
        for path, text in texts.items():
            data = text.encode()
            files.append(File(path, len(data), lambda data=data: io.BytesIO(data)))  # type: ignore[misc]
        self._register([file.path for file in files])
        for file in files:
            self._put(file)

    def _register(self, paths: list[str]) -> None:
        """Register many paths in a few requests, where they go to the artifact service.

        A few are registered each before it is sent: a kill leaves one name behind, not all.
        """
        if self._beside:
            return
        self._require_claim()
        if self._artifacts is None:
            info = self._run.info
            self._artifacts = RunArtifacts(
                self._workspace.azure, info.artifact_uri or "", info.experiment_id, self.run_id
            )
        if len(paths) < REGISTER_TOGETHER:
            return
        try:
            self._artifacts.register(paths)
        except Refused as refused:
            self._go_beside(refused)

    def _put(self, file: File) -> int:
        self._require_claim()
        if not self._beside and self._artifacts is not None:
            try:
                done = self._artifacts.put(file)
            except Refused as refused:
                self._go_beside(refused)
            else:
                if done.path != file.path:
                    self._warn(f"{file.path} is of an earlier try; this one's is the artifact {done.path}")
                return done.sent
        return self._put_beside(file)

    def _go_beside(self, refused: Refused) -> None:
        """Keep small files beside the checkpoint from now on, and let the run say where."""
        self._beside = f"{self._folder}.artifacts"
        uri = self._workspace.azure.datastore_uri(self._beside)
        self._retry(lambda: self._client.set_tag(self.run_id, ARTIFACTS, uri))
        self._warn(f"the run's artifacts are in the datastore, at {uri}, because {refused.why}")

    def _put_beside(self, file: File) -> int:
        blob = self._workspace.azure.container.get_blob_client(f"{self._beside}/{file.path}")

        def send() -> None:
            with file.open() as stream:
                blob.upload_blob(stream, length=file.bytes, overwrite=True)
            size = blob.get_blob_properties().size
            if size != file.bytes:
                raise ServiceUnavailable(
                    f"{file.path} arrived with {size} of {file.bytes} bytes in the datastore",
                    "run the same command again: what is there is not sent again",
                )

        self._retry(send)
        return file.bytes

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        self._workspace.notice(f"warning: {text}")

    def register(self, description: str, tags: dict[str, str]) -> Version:
        self._require_claim()
        tags, _ = fit_tags(tags)
        properties = {name: tags[name] for name in PROPERTIES if tags.get(name)}
        properties[base.MLFLOW_RUN_ID] = self.run_id
        return self._workspace.models.register(
            self._tags[base.MODEL_NAME],
            self._workspace.azure.datastore_uri(self._folder),
            description,
            properties,
            {name: value for name, value in tags.items() if name not in base.RESERVED},
            self._run.data.tags.get(VERSION) if self._adopted else None,
            self._intend,
        )

    def _intend(self, number: str) -> None:
        self._require_claim()
        self._retry(lambda: self._client.set_tag(self.run_id, VERSION, number))

    def finish(self, version: Version) -> None:
        self._require_claim()
        tags = [RunTag(base.STATE, base.COMPLETE), RunTag(VERSION, version.number)]
        self._log_batch(tags=tags)
        self._retry(lambda: self._client.set_terminated(self.run_id, "FINISHED"))
        self._require_claim()
        self._workspace.models.tag(version, {base.STATE: base.COMPLETE})
        self._claim.release()

    def abandon(self, status: str, why: str) -> None:
        super().abandon(status, why)
        # Last: until then the run is still ours to close.
        self._claim.release()

    def _release(self) -> None:
        return


def _opener(tree: Tree, source: str) -> Callable[[], BinaryIO]:
    return lambda: tree.open(source)
