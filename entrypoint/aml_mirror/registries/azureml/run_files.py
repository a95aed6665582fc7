"""Small files of a version: stored with it in the datastore, and shown by its run in Azure ML studio.

The run refers to the file if the service supports that. Otherwise the bytes are sent a second time, to the
run.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from mlflow.entities import Run as MlflowRun

from aml_mirror.core.errors import DataError
from aml_mirror.registries.azureml.artifact_references import ArtifactReferences, NotOffered
from aml_mirror.registries.azureml.artifact_service import Refused
from aml_mirror.registries.azureml.run_artifacts import File, RunArtifacts
from aml_mirror.registries.azureml.version_files import VersionFiles
from aml_mirror.registries.azureml.version_folder import SHOWN, VersionFolder
from aml_mirror.registries.azureml.version_tags import ARTIFACTS
from aml_mirror.registries.records import Upload
from aml_mirror.sources.tree import Tree
from aml_mirror.transfer.senders import Call

if TYPE_CHECKING:
    from aml_mirror.registries.azureml.workspace import AzureMLRegistry

RECEIPT = "receipt.json"
# From this many files on, registering their paths together is worth the names that a kill would leave.
REGISTER_TOGETHER = 20


class RunFiles:
    """Writes small files to a version and its run.

    ``texts`` are those that were written as texts, except the receipt.

    Args:
        workspace: the workspace of the run.
        run: the run as it was when it was continued or created.
        folder: the folder of the version.
        files: the version's files.
        guarded: runs each request, and first checks whether this mirror may still write.
        require_claim: only checks.
        warn: called with warnings for the user.
        adopted: whether an earlier attempt may have written to the run.
    """

    def __init__(
        self,
        workspace: AzureMLRegistry,
        run: MlflowRun,
        folder: VersionFolder,
        files: VersionFiles,
        guarded: Call,
        require_claim: Callable[[], None],
        warn: Callable[[str], None],
        adopted: bool,
    ) -> None:
        self.texts: dict[str, str] = {}
        self._workspace = workspace
        self._run = run
        self._folder = folder
        self._files = files
        self._retry = guarded
        self._require_claim = require_claim
        self._warn = warn
        self._artifacts: RunArtifacts | None = None
        self._references: ArtifactReferences | None = None
        self._own = workspace.azure.datastore_uri(folder.own, folder.datastore)
        self._refused = adopted and run.data.tags.get(ARTIFACTS) == self._own
        """Whether the artifact service accepts nothing, so files are only in the datastore."""

    def put_files(self, tree: Tree, uploads: list[Upload], progress: Callable[[int], None]) -> int:
        """See :meth:`aml_mirror.registries.base.Writer.put_files`."""
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
                    "wait until the training has ended and nothing writes there, then run the command again",
                )
            progress(upload.bytes)
        return sent

    def put_texts(self, texts: dict[str, str]) -> None:
        """See :meth:`aml_mirror.registries.base.Writer.put_texts`."""
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
                self.texts[file.path] = texts[file.path]
            self._show_with_run(file, [later.path for later in files[number:]], data)

    def _open_artifacts(self) -> None:
        if self._refused or self._artifacts is not None:
            return
        info = self._run.info
        azure = self._workspace.azure
        self._artifacts = RunArtifacts(
            azure, info.artifact_uri or "", info.experiment_id, self._run.info.run_id, self._retry
        )
        self._references = ArtifactReferences(azure, self._artifacts, self._run.info.run_id)

    def _show_with_run(self, file: File, coming: list[str], text: bytes | None = None) -> int:
        """Make the run show a file that is stored with the version; return the bytes sent for that.

        The run refers to the file if the service supports that. Otherwise the bytes are sent a second time,
        to the run.

        Args:
            file: the file.
            coming: its path and those of the files after it.
            text: the bytes of a small file that each release writes in its own words. The run then shows a
                copy. An earlier release that continues this run would overwrite the target of a reference,
                but the version's own file must keep its digest.
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
            self._warn(f"{file.path} belongs to an earlier attempt; the artifact of this one is {path}")

    def _go_beside(self, refused: Refused) -> None:
        """From now on, keep small files only in the version's own folder, and let the run say where."""
        self._refused = True
        self._retry(lambda: self._workspace.client.set_tag(self._run.info.run_id, ARTIFACTS, self._own))
        self._warn(f"the run's artifacts are in the datastore, at {self._own}, because {refused.why}")


def _opener(tree: Tree, source: str) -> Callable[[], BinaryIO]:
    return lambda: tree.open(source)
