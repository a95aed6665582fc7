"""Continues the logs of a complete version: see :class:`aml_mirror.registries.base.LogWriter`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from aml_mirror.registries import keys, log_sizes, run_times
from aml_mirror.registries.azureml.artifact_references import ArtifactReferences, NotOffered
from aml_mirror.registries.azureml.artifact_service import Refused
from aml_mirror.registries.azureml.blob_lease import BlobLease
from aml_mirror.registries.azureml.log_batch import log_batch
from aml_mirror.registries.azureml.metric_partitions import canonical_batches
from aml_mirror.registries.azureml.retry_with_read_back import RetryWithReadBack
from aml_mirror.registries.azureml.run_artifacts import File, RunArtifacts
from aml_mirror.registries.azureml.service_client import single_attempt
from aml_mirror.registries.azureml.version_files import VersionFiles
from aml_mirror.registries.azureml.version_folder import VersionFolder
from aml_mirror.registries.azureml.version_tags import STORED
from aml_mirror.registries.mlflow_runs import lost_claim
from aml_mirror.registries.records import Limits, Point, Upload, Version
from aml_mirror.sources.tree import Tree

if TYPE_CHECKING:
    from aml_mirror.registries.azureml.workspace import AzureMLRegistry

T = TypeVar("T")

# Tag of the run: which update, how many of its points were sent, and their digest.
PROGRESS = "mirror.update"


class AzureMLLogWriter:
    """Args:
    workspace, version: the workspace, and the version to continue.
    folder: the folder of the version's files.
    claim: a held claim, which :meth:`close` releases.
    """

    def __init__(
        self, workspace: AzureMLRegistry, version: Version, folder: VersionFolder, claim: BlobLease
    ) -> None:
        self.limits: Limits = workspace.limits
        self.tags = dict(version.tags)
        self._workspace = workspace
        self._version = version
        self._claim = claim
        self._run_id = version.tags[keys.MLFLOW_RUN_ID]
        self._folder = folder
        container = workspace.azure.container_of(folder.datastore)
        self._files = VersionFiles(container, folder, self._guarded)

    def _guarded(self, operation: Callable[[], T], /) -> T:
        def attempt() -> T:
            if self._claim.lost:
                raise lost_claim(f"the MLflow run {self._run_id}")
            return operation()

        with single_attempt():
            return self._workspace.retry(attempt)

    def read(self, name: str, limit: int) -> bytes | None:
        return self._files.read_beside(name, limit)

    def begun(self, sizes: dict[str, int]) -> dict[str, int]:
        return log_sizes.begun(
            self.read,
            lambda name, text: self._files.put_beside(name, text.encode()),
            self.tags.get(keys.LOGS),
            sizes,
        )

    def seen_sizes(self) -> list[dict[str, int]]:
        return log_sizes.seen_sizes(self.read)

    def log_points(self, points: Callable[[], Iterator[Point]], target: str) -> int:
        client, size = self._workspace.client, self.limits.batch

        def progress() -> str:
            return str(client.get_run(self._run_id).data.tags.get(PROGRESS, ""))

        mark = self._guarded(progress)
        done = 0
        if mark.startswith(f"{target}:"):
            _, count, digest = mark.split(":")
            if any(
                item.total == int(count) and item.digest == digest
                for item in canonical_batches(points(), size)
            ):
                done = int(count)
        sent = 0
        for batch in canonical_batches(points(), size):
            if batch.total <= done:
                continue
            wanted = f"{target}:{batch.total}:{batch.digest}"
            self._guarded(
                RetryWithReadBack(
                    lambda wanted=wanted: progress() == wanted,  # type: ignore[misc]
                    lambda batch=batch, wanted=wanted: self._send(batch.points, wanted),  # type: ignore[misc]
                )
            )
            sent += len(batch.points)
        return sent + done

    def _send(self, points: list[Point], mark: str) -> bool:
        log_batch(self._workspace.client, self._run_id, points, {PROGRESS: mark})
        return True

    def put_logs(self, tree: Tree, uploads: list[Upload]) -> int:
        run = self._guarded(lambda: self._workspace.client.get_run(self._run_id))
        azure = self._workspace.azure
        service: RunArtifacts | None = RunArtifacts(
            azure, run.info.artifact_uri or "", run.info.experiment_id, self._run_id, self._guarded
        )
        references = ArtifactReferences(azure, service, self._run_id) if service else None
        self._files.load(self.tags)
        # A killed update may have stored some of them.
        self._files.is_taken_up = True
        store = self._folder.datastore or azure.datastore.name
        sent = 0
        for upload in uploads:

            def open_file(source: str = upload.source) -> BinaryIO:
                return tree.open(source)

            # Overwrites the shorter one, to which the run's artifact already refers.
            sent += self._files.put_log(upload.path, upload.source, upload.bytes, open_file)
            if references is not None:
                try:
                    references.refer(upload.path, store, f"{self._folder.own}/{upload.path}")
                    continue
                except NotOffered:
                    references = None
            if service is None:
                continue
            try:
                # A path can be created once. The longer file gets the next name.
                service.put(File(upload.path, upload.bytes, open_file))
            except Refused:
                service = None
        return sent

    def finish(self, name: str, text: str, tag: str, trained: str = "") -> None:
        self._files.put_beside(name, text.encode())
        if trained:
            client = self._workspace.client
            run = self._guarded(lambda: client.get_run(self._run_id))
            if run.data.tags.get(keys.TRAINED) != trained:
                self._guarded(lambda: client.set_tag(self._run_id, keys.TRAINED, trained))
                run_times.end_run(client, self._guarded, run, {keys.TRAINED: trained})
        self._files.load(self.tags)
        marks = {keys.LOGS: tag}

        def write_tags(digest: str = "") -> None:
            if digest:
                marks[STORED] = digest
            self._workspace.models.tag(self._version, marks, self._require_claim)
            self.tags.update(marks)

        # A lost list is restored by a repair.
        if self._files.digest and self._files.list_digest != self._files.digest:
            self._files.save(write_tags, self._files.copies.texts)
        else:
            write_tags()

    def _require_claim(self) -> None:
        if self._claim.lost:
            raise lost_claim(f"the MLflow run {self._run_id}")

    def close(self) -> None:
        self._claim.release()
