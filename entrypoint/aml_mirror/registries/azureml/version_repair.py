"""Restores the files of a registered version.

Only the bytes of its manifest are written, each bound to the ETag of the blob that was found wrong. The list
of what was stored is written again. Its digest becomes a tag of the version, because a property cannot
change.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

from aml_mirror.core.errors import DataError, MirrorError
from aml_mirror.core.manifest import Manifest, StoredFile, TransferResult
from aml_mirror.registries import keys
from aml_mirror.registries.azureml.artifact_service import Refused
from aml_mirror.registries.azureml.reader import LIST
from aml_mirror.registries.azureml.run_artifacts import File, RunArtifacts
from aml_mirror.registries.azureml.version_files import VersionFiles
from aml_mirror.registries.azureml.version_folder import folder_in
from aml_mirror.registries.azureml.version_tags import STORED
from aml_mirror.registries.file_digests import hashed
from aml_mirror.registries.records import FileDigest, Version
from aml_mirror.sources.growing import log_view
from aml_mirror.sources.tree import Tree

if TYPE_CHECKING:
    from aml_mirror.registries.azureml.workspace import AzureMLRegistry

MANIFEST = "manifest.json"
MAX_OWN_BYTES = 64 << 20
_CHUNK_BYTES = 4 << 20


def repair(
    workspace: AzureMLRegistry,
    version: Version,
    tree: Tree,
    manifest: Manifest,
    right: Mapping[str, FileDigest],
    progress: Callable[[int], None],
    require_allowed: Callable[[], None],
) -> TransferResult:
    """See :meth:`aml_mirror.registries.base.Registry.repair`.

    Args:
        require_allowed: called before each request that writes; raises if another mirror works there.
    """
    folder = folder_in(version.path, {**version.tags, keys.MODEL_NAME: version.model})
    if folder is None:
        raise DataError(f"version {version.number} of {version.model} was not made by aml-mirror")
    container = workspace.azure.container_of(folder.datastore)
    files = VersionFiles(container, folder, workspace.retry)
    files.load(version.tags)
    known = {
        path: StoredFile(digest.bytes, digest.etag, digest.sha256)
        for path, digest in right.items()
        if digest.etag
    }
    moved = workspace.transfer(container).put(
        tree, manifest.items, folder.bytes, progress, known=known, require_allowed=require_allowed
    )
    files.list.files = moved.stored
    texts = _restore_own(workspace, version, manifest, files)
    _restore_logs(tree, files, require_allowed)
    if files.is_lost and not files.digest:
        lost = (
            f"the {LIST} is lost, and so is its copy: its information about the card, the statement and the "
            "logs can no longer be checked"
        )
        moved = replace(moved, warnings=(*moved.warnings, lost))
    files.save(lambda digest: workspace.models.tag(version, {STORED: digest}, require_allowed), texts)
    return moved


def _restore_own(
    workspace: AzureMLRegistry, version: Version, manifest: Manifest, files: VersionFiles
) -> dict[str, str]:
    """Rewrite each wrong copy of an own file from a correct copy. Return the correct texts."""
    service = _artifacts(workspace, version)
    texts: dict[str, str] = {}
    for name, wanted in {MANIFEST: "", **files.list.own}.items():
        copies: list[bytes | None] = [files.read(name, MAX_OWN_BYTES)]
        if service is not None:
            try:
                copies.append(service.read(name, MAX_OWN_BYTES))
            except Refused:
                service = None
        if name == MANIFEST:
            good = manifest.as_json().encode()
            wanted = hashlib.sha256(good).hexdigest()
        else:
            spare = files.copies.texts.get(name, "").encode()
            found = [data for data in (*copies, spare) if data and hashlib.sha256(data).hexdigest() == wanted]
            if not found:
                continue
            good = found[0]
        texts[name] = good.decode(errors="replace")
        if copies[0] != good:
            files.put(name, good)
            files.list.own[name] = wanted
        if service is not None and copies[1:] != [good] and _stands_alone(service, name, good):
            try:
                # A new client for a file whose path was not read yet, because the reading client cannot
                # write.
                writer = _artifacts(workspace, version) or service
                writer.put(File(name, len(good), lambda good=good: io.BytesIO(good)))  # type: ignore[misc]
            except Refused:
                service = None
    return texts


def _stands_alone(service: RunArtifacts, name: str, good: bytes) -> bool:
    """Tell whether the run's artifact is still wrong after the version's own file was restored.

    An artifact that refers to the own file is restored with it.
    """
    try:
        return service.read(name, MAX_OWN_BYTES) != good
    except Refused:
        return False


def _restore_logs(tree: Tree, files: VersionFiles, require_allowed: Callable[[], None]) -> None:
    """Rewrite each stored log that is wrong, if the run still has the bytes that were mirrored."""
    for name, log in files.list.logs.items():
        if files.digest_of(name, log.bytes) == log.sha256:
            continue
        entry = tree.files.get(log.source)
        if entry is None or entry.bytes < log.bytes:
            continue
        start = log_view(tree, [log.source], {log.source: log.bytes})

        def open_file(start: Tree = start, source: str = log.source) -> BinaryIO:
            return start.open(source)

        with open_file() as stream:
            found = hashed(iter(lambda stream=stream: stream.read(_CHUNK_BYTES), b""))  # type: ignore[misc]
        if found.sha256 == log.sha256:
            require_allowed()
            files.put_log(name, log.source, log.bytes, open_file)


def _artifacts(workspace: AzureMLRegistry, version: Version) -> RunArtifacts | None:
    run_id = version.tags.get(keys.MLFLOW_RUN_ID, "")
    try:
        run = workspace.retry(lambda: workspace.client.get_run(run_id))
    except MirrorError:
        return None  # deleted
    return RunArtifacts(workspace.azure, run.info.artifact_uri or "", run.info.experiment_id, run_id)
