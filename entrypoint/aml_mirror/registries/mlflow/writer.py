"""Writes one MLflow run: its files, its version, its end."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from mlflow.entities import Run as MlflowRun

from aml_mirror.core.errors import MirrorError, ServiceUnavailable
from aml_mirror.core.manifest import Manifest, TransferResult
from aml_mirror.registries import keys, run_times
from aml_mirror.registries.about_model import about_model
from aml_mirror.registries.artifact_folder import entries_of
from aml_mirror.registries.log_sizes import LOG_SIZES, MAX_SIZES_BYTES
from aml_mirror.registries.mlflow.file_upload import put_file, put_text
from aml_mirror.registries.mlflow.files_uri import files_uri
from aml_mirror.registries.mlflow.log_writer import OWN, read_own
from aml_mirror.registries.mlflow.role_aliases import RoleAliases
from aml_mirror.registries.mlflow.run_lease import Keeper
from aml_mirror.registries.mlflow.version_presence import MODEL, file_tags
from aml_mirror.registries.mlflow_errors import is_there_already
from aml_mirror.registries.mlflow_runs import RunWriter
from aml_mirror.registries.records import Upload, Version
from aml_mirror.sources.tree import Tree

if TYPE_CHECKING:
    from aml_mirror.registries.mlflow.tracking_server import MlflowRegistry

# If an upload is incomplete this often in a row, another attempt will not help.
UPLOAD_ATTEMPTS = 3


class MlflowWriter(RunWriter):
    """See :class:`aml_mirror.registries.base.Writer`."""

    def __init__(
        self, workspace: MlflowRegistry, run: MlflowRun, keeper: Keeper, tags: dict[str, str], adopted: bool
    ) -> None:
        super().__init__(workspace, run, keeper, tags, adopted)
        self._workspace = workspace
        self._keeper = keeper
        self._location = location = str(run.info.artifact_uri)
        self._store_retry = workspace.stores.retry_for(location)
        self._store = self._store_retry(lambda: workspace.stores.open(location))
        self._files: dict[str, str] = {}

    def files_uri(self) -> str:
        return files_uri(f"{self._location}/model")

    def put_model(self, tree: Tree, manifest: Manifest, progress: Callable[[int], None]) -> TransferResult:
        self._files = file_tags(manifest)
        uploads = [Upload(item.source, f"{MODEL}/{item.path}", item.bytes) for item in manifest.items]
        return TransferResult(sent=self.put_files(tree, uploads, progress))

    def put_files(self, tree: Tree, uploads: list[Upload], progress: Callable[[int], None]) -> int:
        sent = 0
        there = self._listing(uploads) if self._adopted else {}
        for attempt in range(UPLOAD_ATTEMPTS):
            missing = [upload for upload in uploads if there.get(upload.path, -1) != upload.bytes]
            if attempt == 0:
                progress(sum(upload.bytes for upload in uploads) - sum(upload.bytes for upload in missing))
            if not missing:
                return sent
            for upload in missing:
                self._require_claim()
                put_file(self._store, self._store_retry, tree, upload.source, upload.path)
                sent += upload.bytes
                if attempt == 0:
                    progress(upload.bytes)
            there = self._listing(uploads)
        short = [upload for upload in uploads if there.get(upload.path, -1) != upload.bytes]
        if not short:
            return sent
        first = short[0]
        arrived = there.get(first.path, 0)
        raise ServiceUnavailable(
            f"{first.path} arrived with only {arrived} of {first.bytes} bytes, {UPLOAD_ATTEMPTS} times",
            "check the server's artifact store, then run the command again: files that arrived are not sent "
            "again",
        )

    def pin_logs(self, sizes: dict[str, int]) -> dict[str, int]:
        # A file store keeps a point twice if it is sent twice, so the sizes that an earlier attempt saw
        # count.
        if self._adopted and (data := read_own(self._store, self._store_retry, LOG_SIZES, MAX_SIZES_BYTES)):
            return {str(path): int(size) for path, size in json.loads(data).items()}
        self.put_texts({f"{OWN}/{LOG_SIZES}": json.dumps(sizes)})
        return sizes

    def put_log_state(self, name: str, text: str) -> bool:
        self.put_texts({f"{OWN}/{name}": text})
        return True

    def put_texts(self, texts: dict[str, str]) -> None:
        for path, text in texts.items():
            put_text(self._store, self._store_retry, path, text)

    def _listing(self, uploads: list[Upload]) -> dict[str, int]:
        """Return the sizes in bytes of what the artifact store has in the upload folders."""
        found: dict[str, int] = {}
        for folder in sorted({upload.path.rpartition("/")[0] for upload in uploads}):
            for item in self._store_retry(lambda: entries_of(self._store, folder or None)):  # noqa: B023
                if not item.is_dir:
                    # MLflow leaves a size of zero out of its answers.
                    found[item.path] = int(item.file_size or 0)
        return found

    def register(self, description: str, tags: dict[str, str]) -> Version:
        self._retry(self._keeper.look)
        self._require_claim()
        model = self._tags[keys.MODEL_NAME]
        identity = self._tags[keys.IDENTITY]
        found = self._workspace.versions_of(model, identity)
        if not found:
            try:
                self._retry(
                    lambda: self._client.create_registered_model(model, description=about_model(self._tags))
                )
            except MirrorError as error:
                if not is_there_already(error.__cause__):
                    raise
            properties = {
                # The file belongs to the version's model, so its name need not contain it.
                **{name: value for name, value in tags.items() if name != keys.MODEL_NAME},
                **self._files,
                keys.MLFLOW_RUN_ID: self.run_id,
                keys.STATE: keys.INCOMPLETE,
            }
            self._retry(
                lambda: self._client.create_model_version(
                    model,
                    f"runs:/{self.run_id}/model",
                    self.run_id,
                    tags=properties,
                    description=description,
                    await_creation_for=0,
                )
            )
            found = self._workspace.search_versions(model, keys.IDENTITY, identity)
        for other in found[1:]:
            self._workspace.discard(lambda: self._client.delete_model_version(model, other.number))  # noqa: B023
        # If an earlier attempt registered it, or its files were lost, it now gets the current values.
        now = {key: tags[key] for key in (keys.QUICK_KEY, keys.LOGS) if key in tags} | self._files
        changed = {key: value for key, value in now.items() if found[0].tags.get(key) != value}
        self._workspace.annotate(found[0], changed)
        return found[0]

    def finish(self, version: Version) -> None:
        self._require_claim()
        self._claim.stop()
        self._retry(lambda: self._client.set_tag(self.run_id, keys.STATE, keys.COMPLETE))
        run_times.end_run(self._client, self._retry, self._run, self._tags)
        aliases = RoleAliases(self._workspace, version, self._tags.get(keys.ROLE, ""))
        aliases.before_completion()
        self._retry(
            lambda: self._client.set_model_version_tag(
                version.model, version.number, keys.STATE, keys.COMPLETE
            )
        )
        aliases.after_completion()
        # If somebody deletes the version, the next mirror need not wait to see that the writer has gone.
        with suppress(Exception):
            self._release()

    def _release(self) -> None:
        # An empty lease: the next attempt need not wait to see that the writer has gone.
        self._client.set_tag(self.run_id, keys.LEASE, "")
