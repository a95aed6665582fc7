"""Writes one run of an Azure ML workspace: steps 4 to 6 of :mod:`.workspace`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from mlflow.entities import Run as MlflowRun
from mlflow.entities import RunTag

from aml_mirror.core.manifest import Manifest, StoredFile, TransferResult
from aml_mirror.registries import keys, run_times
from aml_mirror.registries.about_model import about_model
from aml_mirror.registries.azureml import job_link
from aml_mirror.registries.azureml.blob_lease import BlobLease
from aml_mirror.registries.azureml.block_list import BLOCKS_SHA256
from aml_mirror.registries.azureml.limits import fit_tags
from aml_mirror.registries.azureml.metric_writer import MetricWriter
from aml_mirror.registries.azureml.model_versions import PROPERTIES
from aml_mirror.registries.azureml.read_once import is_worth_it
from aml_mirror.registries.azureml.retired_runs import retire_others
from aml_mirror.registries.azureml.run_files import RunFiles
from aml_mirror.registries.azureml.stored_files import digest_in
from aml_mirror.registries.azureml.version_files import VersionFiles
from aml_mirror.registries.azureml.version_folder import VersionFolder
from aml_mirror.registries.azureml.version_tags import STORED, STORED_SHA256, VERSION
from aml_mirror.registries.log_sizes import LOG_SIZES, MAX_SIZES_BYTES
from aml_mirror.registries.records import Upload, Version
from aml_mirror.sources.tree import Tree
from aml_mirror.storage.blob_client import account_of
from aml_mirror.transfer.staged_files import StagedFiles

if TYPE_CHECKING:
    from aml_mirror.registries.azureml.workspace import AzureMLRegistry

# After this many bytes, the list of stored files is worth two requests before the version is registered.
SAVE_FROM_BYTES = 64 << 20


class AzureMLWriter(MetricWriter):
    """See :class:`aml_mirror.registries.base.Writer`. ``warnings`` has messages for the user.

    Args:
        workspace, run, claim, tags, adopted: see :class:`aml_mirror.registries.mlflow_runs.RunWriter`.
        intended: the version number that an earlier attempt used, or intended to use.
        folder: the place of the version's files.
    """

    def __init__(
        self,
        workspace: AzureMLRegistry,
        run: MlflowRun,
        claim: BlobLease,
        tags: dict[str, str],
        adopted: bool,
        intended: str | None,
        folder: VersionFolder,
    ) -> None:
        super().__init__(workspace, run, claim, tags, adopted)
        self._intended = intended
        self._folder = folder
        container = workspace.azure.container_of(folder.datastore)
        self._files = VersionFiles(container, folder, self._guarded)
        self._files.is_taken_up = adopted
        self._small = RunFiles(
            workspace, run, folder, self._files, self._guarded, self._require_claim, self._warn, adopted
        )
        self._logs = ""
        self._checkpoint: tuple[Tree, Manifest] | None = None

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
        staged = self._workspace.staged(self._tags[keys.MODEL_NAME], self._tags[keys.QUICK_KEY])
        moved = self._bring(progress, staged)
        if staged is not None:
            moved = replace(moved, sent=moved.sent + staged.sent, reused=moved.reused + staged.reused)
        if moved.sent > SAVE_FROM_BYTES:
            self._save_list()
        # Added here as well, so that the receipt contains them in any case.
        return replace(moved, warnings=(*moved.warnings, *self.warnings))

    def _bring(
        self, progress: Callable[[int], None] = lambda count: None, staged: StagedFiles | None = None
    ) -> TransferResult:
        """Make the folder of the version contain exactly the bytes of the manifest."""
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
        return self._small.put_files(tree, uploads, progress)

    def put_texts(self, texts: dict[str, str]) -> None:
        self._small.put_texts(texts)

    def files_uri(self) -> str:
        container = self._files.container
        return f"azure://{account_of(container.url)}/{container.container_name}/{self._folder.bytes}"

    def register(self, description: str, tags: dict[str, str]) -> Version:
        self._require_claim()
        self._logs = tags.get(keys.LOGS, "")
        tags, _ = fit_tags({name: text for name, text in tags.items() if name != keys.LOGS})
        properties = {name: tags[name] for name in PROPERTIES if tags.get(name)}
        properties[keys.MLFLOW_RUN_ID] = self.run_id
        self._save_list(self._small.texts)
        properties[STORED_SHA256] = self._files.digest
        if self._checkpoint is not None and (blocks := self._files.save_blocks(self._checkpoint[1].items)):
            properties[BLOCKS_SHA256] = blocks
        return self._workspace.registration.register(
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
            about_model(self._tags),
        )

    def _intend(self, number: str) -> None:
        self._require_claim()
        self._retry(lambda: self._client.set_tag(self.run_id, VERSION, number))

    def finish(self, version: Version) -> None:
        self._require_claim()
        # First: a mirror that finds the run complete no longer looks for staged files.
        self._unstage()
        if not self._adopted:
            # It is not documented how soon a search shows a new run. A run of a killed attempt or a lost
            # answer may be visible only now.
            retire_others(self._workspace, self._run)
        tags = [RunTag(keys.STATE, keys.COMPLETE), RunTag(VERSION, version.number)]
        self._log_batch(tags=tags)
        run_times.end_run(self._client, self._retry, self._run, self._tags)
        # The last check: whatever happened to the folder since, the version is complete with the right bytes.
        before = self._files.digest
        self._bring()
        self._save_list(self._small.texts if self._files.list_digest != before else None)
        marks = {keys.STATE: keys.COMPLETE}
        if self._logs and version.tags.get(keys.LOGS) != self._logs:
            marks[keys.LOGS] = self._logs
        if digest_in(version.tags) != self._files.digest:
            marks[STORED] = self._files.digest
        if version.tags.get(keys.MLFLOW_RUN_ID) != self.run_id:
            # Created by an earlier attempt whose run no longer exists. The property cannot change, so the tag
            # states it.
            marks[keys.MLFLOW_RUN_ID] = self.run_id
        self._require_claim()
        self._workspace.models.tag(version, marks, self._require_claim)
        self._claim.release()

    def _unstage(self) -> None:
        """Remove staged files, perhaps of an earlier attempt. Files that are never staged have none."""
        if self._checkpoint is None:
            return
        tree, manifest = self._checkpoint
        if is_worth_it(tree.source, manifest.bytes, self._workspace.block_bytes):
            self._workspace.unstage(self._tags[keys.MODEL_NAME], self._tags[keys.QUICK_KEY])

    def abort(self, status: str, why: str) -> None:
        super().abort(status, why)
        # Last: until then we can still close the run.
        self._claim.release()

    def _release(self) -> None:
        return
