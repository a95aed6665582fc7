"""Put the files of a registered version right again.

Only the bytes of its manifest are written, each bound to the ETag of the blob that was found wrong. The list
of what was stored is written anew. Its digest becomes a tag of the version, since a property cannot change.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from aml_mirror.core.errors import DataError, MirrorError
from aml_mirror.core.manifest import Manifest, StoredFile, TransferResult
from aml_mirror.registries import base
from aml_mirror.registries.azureml.run_artifacts import File, Refused, RunArtifacts
from aml_mirror.registries.azureml.version_files import VersionFiles
from aml_mirror.registries.azureml.version_folder import folder_in
from aml_mirror.registries.azureml.version_tags import STORED
from aml_mirror.registries.base import FileDigest, Version
from aml_mirror.sources.tree import Tree

if TYPE_CHECKING:
    from aml_mirror.registries.azureml.workspace import AzureMLRegistry

MANIFEST = "manifest.json"
MAX_OWN_BYTES = 64 << 20


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
        require_allowed: called before each request that writes; raises where another mirror works there.
    """
    folder = folder_in(version.path, {**version.tags, base.MODEL_NAME: version.model})
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
    files.stored = moved.stored
    _restore_own(workspace, version, manifest, files)
    files.save(lambda digest: workspace.models.tag(version, {STORED: digest}, require_allowed))
    return moved


def _restore_own(
    workspace: AzureMLRegistry, version: Version, manifest: Manifest, files: VersionFiles
) -> None:
    """Write each own file where a copy of it is not right, from one that is."""
    service = _artifacts(workspace, version)
    for name, wanted in {MANIFEST: "", **files.own}.items():
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
            found = [data for data in copies if data and hashlib.sha256(data).hexdigest() == wanted]
            if not found:
                continue
            good = found[0]
        if copies[0] != good:
            files.put(name, good)
            files.own[name] = wanted
        if service is not None and copies[1:] != [good]:
            try:
                # One that has not read the path: what it got to read with cannot write.
                writer = _artifacts(workspace, version) or service
                writer.put(File(name, len(good), lambda good=good: io.BytesIO(good)))  # type: ignore[misc]
            except Refused:
                service = None


def _artifacts(workspace: AzureMLRegistry, version: Version) -> RunArtifacts | None:
    run_id = version.tags.get(base.MLFLOW_RUN_ID, "")
    try:
        run = workspace.retry(lambda: workspace.client.get_run(run_id))
    except MirrorError:
        return None  # deleted
    return RunArtifacts(workspace.azure, run.info.artifact_uri or "", run.info.experiment_id, run_id)
