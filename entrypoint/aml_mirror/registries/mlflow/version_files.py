"""Rewrites the files of a version that are wrong, and removes files that do not belong to it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from aml_mirror.core.manifest import Manifest, TransferResult
from aml_mirror.registries import keys
from aml_mirror.registries.mlflow.file_upload import put_file, put_text
from aml_mirror.registries.mlflow.version_presence import MODEL, file_tags
from aml_mirror.registries.records import FileDigest, Version
from aml_mirror.sources.tree import Tree

if TYPE_CHECKING:
    from aml_mirror.registries.mlflow.tracking_server import MlflowRegistry


def repair_files(
    registry: MlflowRegistry,
    version: Version,
    tree: Tree,
    manifest: Manifest,
    right: Mapping[str, FileDigest],
    progress: Callable[[int], None],
    require_allowed: Callable[[], None],
) -> TransferResult:
    """See :meth:`aml_mirror.registries.base.Registry.repair`.

    Args:
        require_allowed: raises when another mirror has the run.
    """
    run_id = version.tags[keys.MLFLOW_RUN_ID]
    location = str(registry.retry(lambda: registry.client.get_run(run_id)).info.artifact_uri)
    retry, sent = registry.stores.retry_for(location), 0
    store = retry(lambda: registry.stores.open(location))
    wanted = {item.path for item in manifest.items}
    warnings = []
    # In reverse: where a name is the beginning of others, it comes last.
    for path in sorted(registry.version_reader(version).files().keys() - wanted, reverse=True):
        require_allowed()
        if why := retry(lambda: _delete(store, path, wanted)):  # noqa: B023
            warnings.append(f"{path} does not belong to the version, and was left: {why}")
    for item in manifest.items:
        if item.path not in right:
            require_allowed()
            put_file(store, retry, tree, item.source, f"{MODEL}/{item.path}")
            sent += item.bytes
        progress(item.bytes)
    require_allowed()
    put_text(store, retry, "manifest.json", manifest.as_json())
    listed = {key: text for key, text in file_tags(manifest).items() if version.tags.get(key) != text}
    registry.annotate(version, listed)
    return TransferResult(sent=sent, warnings=tuple(warnings))


def _delete(store: Any, path: str, wanted: Collection[str]) -> str:
    """Delete a file of a version. Return why it was left; empty: it was deleted.

    In an object store, MLflow's repositories delete every object whose name *begins* with the path (mlflow
    3.15: S3, Azure blobs, Google Cloud Storage, and a server in front of one).
    """
    others = sorted(one for one in wanted if one.startswith(path))
    if others and not isinstance(store, LocalArtifactRepository):
        return f"MLflow's client might delete {others[0]} as well; delete it with the store's own tools"
    try:
        store.delete_artifacts(f"{MODEL}/{path}")
    except NotImplementedError:
        return "MLflow's client cannot delete files of this store; delete it with the store's own tools"
    return ""
