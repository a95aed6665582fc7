"""One run of an Azure ML workspace, being written: steps 4 to 6 of :mod:`.workspace`."""

from __future__ import annotations

import hashlib
import io
import json
import math
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from mlflow.entities import Param, RunTag
from mlflow.entities import Run as MlflowRun

from aml_mirror.core.errors import ConfigurationError, DataError, MirrorError
from aml_mirror.core.manifest import Manifest, StoredFile, TransferResult
from aml_mirror.registries import keys
from aml_mirror.registries.azureml import job_link
from aml_mirror.registries.azureml.artifact_references import ArtifactReferences, NotOffered
from aml_mirror.registries.azureml.blob_lease import BlobLease
from aml_mirror.registries.azureml.block_list import BLOCKS_SHA256
from aml_mirror.registries.azureml.limits import LEAST_PARAM_VALUE, cut, fit_tags
from aml_mirror.registries.azureml.log_batch import log_batch
from aml_mirror.registries.azureml.metric_partitions import Batch, log_points, tag_of
from aml_mirror.registries.azureml.model_versions import PROPERTIES, Models
from aml_mirror.registries.azureml.read_once import is_worth_it
from aml_mirror.registries.azureml.retry_with_read_back import RetryWithReadBack
from aml_mirror.registries.azureml.run_artifacts import File, Refused, RunArtifacts
from aml_mirror.registries.azureml.service_client import AzureML, single_attempt
from aml_mirror.registries.azureml.stored_files import digest_in
from aml_mirror.registries.azureml.version_files import LOG_SIZES, VersionFiles
from aml_mirror.registries.azureml.version_folder import SHOWN, VersionFolder
from aml_mirror.registries.azureml.version_tags import ARTIFACTS, STORED, STORED_SHA256, VERSION
from aml_mirror.registries.mlflow_runs import RunStore, RunWriter
from aml_mirror.registries.records import Point, Upload, Version
from aml_mirror.sources.tree import Tree
from aml_mirror.storage.blob_client import account_of
from aml_mirror.transfer.staged_files import StagedFiles
from aml_mirror.transfer.transfer import Transfer

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

T = TypeVar("T")

RECEIPT = "receipt.json"
MAX_SIZES_BYTES = 16 << 20
# After so many bytes the list of what was stored is worth two requests before the version is registered.
SAVE_FROM_BYTES = 64 << 20
# From so many files on, registering their paths together is worth the names that a kill would leave.
REGISTER_TOGETHER = 20


class Place(RunStore):
    """What a writer needs of its workspace."""

    azure: AzureML
    models: Models
    block_bytes: int
    notice: Callable[[str], None]

    @abstractmethod
    def transfer(self, container: ContainerClient) -> Transfer:
        """What brings a checkpoint into a container."""

    @abstractmethod
    def staged(self, quick_key: str) -> StagedFiles | None:
        """The files of a checkpoint that were sent as they were hashed."""

    @abstractmethod
    def unstage(self, quick_key: str) -> None:
        """Remove the staging folder of a checkpoint, and those that nobody goes on with."""

    @abstractmethod
    def retire_others(self, run: MlflowRun) -> None:
        """Retire the runs that a lost answer made beside this one, if by now the search shows any."""


class AzureMLWriter(RunWriter):
    """See :class:`aml_mirror.registries.base.Writer`. ``warnings`` is what the person should know.

    Args:
        workspace, run, claim, tags, adopted: see :class:`aml_mirror.registries.mlflow_runs.RunWriter`.
        intended: the version number that an earlier attempt took, or meant to take.
        folder: where the version's files go.
    """

    _claim: BlobLease

    def __init__(
        self,
        workspace: Place,
        run: MlflowRun,
        claim: BlobLease,
        tags: dict[str, str],
        adopted: bool,
        intended: str | None,
        folder: VersionFolder,
    ) -> None:
        super().__init__(workspace, run, claim, tags, adopted)
        self._workspace = workspace
        self._intended = intended
        self._artifacts: RunArtifacts | None = None
        self._only_finite = False
        self._telling = threading.Lock()
        self._patient = workspace.retry
        self._retry = self._guarded
        self._folder = folder
        container = workspace.azure.container_of(folder.datastore)
        self._files = VersionFiles(container, folder, self._guarded)
        self._files.is_taken_up = adopted
        self._references: ArtifactReferences | None = None
        self._texts: dict[str, str] = {}
        self._logs = ""
        self._checkpoint: tuple[Tree, Manifest] | None = None
        own = workspace.azure.datastore_uri(folder.own, folder.datastore)
        self._refused = adopted and run.data.tags.get(ARTIFACTS) == own
        """Whether the artifact service takes nothing, so that files are in the datastore alone."""

    def _guarded(self, operation: Callable[[], T], /) -> T:
        """Run an operation with patience; each attempt begins with the question whether we may still write.

        MLflow's client does not send again by itself meanwhile: it would not ask.
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
            # How long a value may be is not documented: what every server takes is sent instead.
            self.warnings.append(f"parameters were cut to {LEAST_PARAM_VALUE} characters: {error.message}")
            shorter = [Param(key, cut(value, LEAST_PARAM_VALUE)) for key, value in items]
            self._log_batch(params=shorter)

    def log_metrics(self, points: Callable[[], Iterator[Point]], progress: Callable[[int], None]) -> int:
        there = self._run.data.tags if self._adopted else {}
        # Around all lanes, since it holds for the whole process.
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
            # Whether Azure ML takes NaN and infinities is not documented; the event files have them anyway.
            with self._telling:
                if not self._only_finite:
                    self._warn(f"metric values that are not finite were left out: {refusal.message}")
                self._only_finite = True
            self._send_points(finite, batch, go_on)

    def _send_points(self, points: list[Point], batch: Batch, go_on: Callable[[], None]) -> None:
        tag = tag_of(batch.lane)

        def look() -> bool:
            # The mark, sent with the points, tells.
            return bool(self._client.get_run(self.run_id).data.tags.get(tag) == batch.mark)

        def send() -> bool:
            log_batch(self._client, self.run_id, points, {tag: batch.mark})
            return True

        self._retry(RetryWithReadBack(look, send, go_on))

    def pin_logs(self, sizes: dict[str, int]) -> dict[str, int]:
        data = self._files.read_beside(LOG_SIZES, MAX_SIZES_BYTES) if self._adopted else None
        if data:
            return {str(path): int(size) for path, size in json.loads(data).items()}
        self._files.put_beside(LOG_SIZES, json.dumps(sizes).encode())
        return sizes

    def put_log_state(self, name: str, text: str) -> bool:
        self._files.put_beside(name, text.encode())
        return True

    def put_model(self, tree: Tree, manifest: Manifest, progress: Callable[[int], None]) -> TransferResult:
        self._require_claim()
        self._checkpoint = (tree, manifest)
        if self._adopted:
            self._files.load(self._run.data.tags)
        staged = self._workspace.staged(self._tags[keys.QUICK_KEY])
        moved = self._bring(progress, staged)
        if staged is not None:
            moved = replace(moved, sent=moved.sent + staged.sent, reused=moved.reused + staged.reused)
        if moved.sent > SAVE_FROM_BYTES:
            self._save_list()
        # Told here as well, so that they are in the receipt whatever else reads them.
        return replace(moved, warnings=(*moved.warnings, *self.warnings))

    def _bring(
        self, progress: Callable[[int], None] = lambda count: None, staged: StagedFiles | None = None
    ) -> TransferResult:
        """Make the folder of the version hold the bytes of the manifest and nothing else."""
        if self._checkpoint is None:
            raise RuntimeError("put_model comes first")
        tree, manifest = self._checkpoint
        moved = self._workspace.transfer(self._files.container).put(
            tree,
            manifest.items,
            self._folder.bytes,
            progress,
            known=dict(self._files.list.files),
            committed=self._committed,
            require_allowed=self._require_claim,
            staged=staged,
        )
        self._files.list.files = moved.stored
        return moved

    def _committed(self, path: str, stored: StoredFile) -> None:
        if self._files.note(path, stored):
            self._save_list()

    def _save_list(self, texts: dict[str, str] | None = None) -> None:
        def name_it(digest: str) -> None:
            self._retry(lambda: self._client.set_tag(self.run_id, STORED, digest))

        self._files.save(name_it, texts)

    def put_files(self, tree: Tree, uploads: list[Upload], progress: Callable[[int], None]) -> int:
        files = [File(upload.path, upload.bytes, _opener(tree, upload.source)) for upload in uploads]
        self._open_artifacts()
        sent = 0
        for number, (upload, file) in enumerate(zip(uploads, files, strict=True)):
            self._require_claim()
            sent += self._files.put_log(file.path, upload.source, file.bytes, file.open)
            sent += self._show_with_run(file, [later.path for later in files[number:]])
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
        self._open_artifacts()
        for number, file in enumerate(files):
            data = texts[file.path].encode()
            self._require_claim()
            self._files.put(file.path, data)
            if file.path != RECEIPT:
                # The receipt names the version, which is registered with the digests of the others.
                self._files.list.own[file.path] = hashlib.sha256(data).hexdigest()
                self._texts[file.path] = texts[file.path]
            self._show_with_run(file, [later.path for later in files[number:]], data)

    def _open_artifacts(self) -> None:
        if self._refused or self._artifacts is not None:
            return
        info = self._run.info
        azure = self._workspace.azure
        self._artifacts = RunArtifacts(
            azure, info.artifact_uri or "", info.experiment_id, self.run_id, self._guarded
        )
        self._references = ArtifactReferences(azure, self._artifacts, self.run_id)

    def _show_with_run(self, file: File, coming: list[str], text: bytes | None = None) -> int:
        """Let the run show a file that is stored with the version; return the bytes sent for that.

        By reference where the service takes that. Else the bytes are sent once more, to the run.

        Args:
            file: the file.
            coming: its path and those of the files after it.
            text: its bytes, of a small file that each release writes in its own words. The run then shows a
                copy: an earlier release that goes on with this run writes over what its artifacts stand for,
                and the version's own file has to keep its digest.
        """
        if self._refused or self._artifacts is None:
            return 0
        if self._references is not None:
            store = self._folder.datastore or self._workspace.azure.datastore.name
            shown = file.path if text is None else f"{SHOWN}/{file.path}"
            try:
                if text is not None:
                    self._files.put(shown, text)
                name = self._references.refer(file.path, store, f"{self._folder.own}/{shown}")
            except NotOffered:
                self._references = None
            else:
                self._tell_name(file, name)
                return 0
        try:
            if len(coming) >= REGISTER_TOGETHER and not self._artifacts.knows(file.path):
                self._artifacts.register(coming)
            done = self._artifacts.put(file)
        except Refused as refused:
            self._go_beside(refused)
            return 0
        self._tell_name(file, done.path)
        return done.sent

    def _tell_name(self, file: File, path: str) -> None:
        if path != file.path:
            self._warn(f"{file.path} is of an earlier attempt; this one is the artifact {path}")

    def _go_beside(self, refused: Refused) -> None:
        """Keep small files in the version's own folder alone from now on, and let the run say where."""
        self._refused = True
        uri = self._workspace.azure.datastore_uri(self._folder.own, self._folder.datastore)
        self._retry(lambda: self._client.set_tag(self.run_id, ARTIFACTS, uri))
        self._warn(f"the run's artifacts are in the datastore, at {uri}, because {refused.why}")

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        self._workspace.notice(f"warning: {text}")

    def files_uri(self) -> str:
        container = self._files.container
        return f"azure://{account_of(container.url)}/{container.container_name}/{self._folder.bytes}"

    def register(self, description: str, tags: dict[str, str]) -> Version:
        self._require_claim()
        self._logs = tags.get(keys.LOGS, "")
        tags, _ = fit_tags({name: text for name, text in tags.items() if name != keys.LOGS})
        properties = {name: tags[name] for name in PROPERTIES if tags.get(name)}
        properties[keys.MLFLOW_RUN_ID] = self.run_id
        self._save_list(self._texts)
        properties[STORED_SHA256] = self._files.digest
        if self._checkpoint is not None and (blocks := self._files.save_blocks(self._checkpoint[1].items)):
            properties[BLOCKS_SHA256] = blocks
        return self._workspace.models.register(
            self._tags[keys.MODEL_NAME],
            self._workspace.azure.datastore_uri(self._folder.bytes, self._folder.datastore),
            description,
            properties,
            {
                name: value
                for name, value in tags.items()
                if name not in keys.RESERVED or name in keys.CONSUMER_TAGS
            }
            | ({keys.LOGS: self._logs} if self._logs else {}),
            self._intended,
            self._intend,
            self._require_claim,
            self.run_id if job_link.works(self._workspace.azure.container) else None,
        )

    def _intend(self, number: str) -> None:
        self._require_claim()
        self._retry(lambda: self._client.set_tag(self.run_id, VERSION, number))

    def finish(self, version: Version) -> None:
        self._require_claim()
        # First: whoever finds the run complete does not look for staged files any more.
        self._unstage()
        if not self._adopted:
            # How soon a search shows a new run is not documented: one that a killed try or a lost answer
            # made may be seen only now.
            self._workspace.retire_others(self._run)
        tags = [RunTag(keys.STATE, keys.COMPLETE), RunTag(VERSION, version.number)]
        self._log_batch(tags=tags)
        self._retry(lambda: self._client.set_terminated(self.run_id, "FINISHED"))
        # The last look: whatever happened to the folder since, the version is complete with the right bytes.
        before = self._files.digest
        self._bring()
        self._save_list(self._texts if self._files.list_digest != before else None)
        marks = {keys.STATE: keys.COMPLETE}
        if self._logs and version.tags.get(keys.LOGS) != self._logs:
            marks[keys.LOGS] = self._logs
        if digest_in(version.tags) != self._files.digest:
            marks[STORED] = self._files.digest
        if version.tags.get(keys.MLFLOW_RUN_ID) != self.run_id:
            # Made by an earlier attempt, whose run is gone: the property cannot change, the tag says it.
            marks[keys.MLFLOW_RUN_ID] = self.run_id
        self._require_claim()
        self._workspace.models.tag(version, marks, self._require_claim)
        self._claim.release()

    def _unstage(self) -> None:
        """Remove what was staged, by an earlier attempt perhaps; files that are never staged have nothing."""
        if self._checkpoint is None:
            return
        tree, manifest = self._checkpoint
        if is_worth_it(tree.source, manifest.bytes, self._workspace.block_bytes):
            self._workspace.unstage(self._tags[keys.QUICK_KEY])

    def abort(self, status: str, why: str) -> None:
        super().abort(status, why)
        # Last: until then the run is still ours to close.
        self._claim.release()

    def _release(self) -> None:
        return


def _opener(tree: Tree, source: str) -> Callable[[], BinaryIO]:
    return lambda: tree.open(source)
