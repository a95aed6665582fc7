"""Write the files of a version again that are not what they were."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping

from mlflow import MlflowClient

from aml_mirror.core.manifest import Manifest, TransferResult
from aml_mirror.registries import base
from aml_mirror.registries.base import FileDigest, Version
from aml_mirror.registries.mlflow.artifact_store import ArtifactStores
from aml_mirror.registries.staging import staged
from aml_mirror.sources.tree import Tree
from aml_mirror.support.retry import Retry


def repair_files(
    client: MlflowClient,
    stores: ArtifactStores,
    patience: Retry,
    version: Version,
    tree: Tree,
    manifest: Manifest,
    right: Mapping[str, FileDigest],
    progress: Callable[[int], None],
) -> TransferResult:
    """See :meth:`aml_mirror.registries.base.Registry.repair`."""
    location = str(patience(lambda: client.get_run(version.tags[base.MLFLOW_RUN_ID])).info.artifact_uri)
    retry, sent = stores.retry_for(location), 0
    store = retry(lambda: stores.open(location))
    for item in manifest.items:
        if item.path not in right:
            folder, _, name = f"model/{item.path}".rpartition("/")
            with staged(tree, item.source, name) as path:
                retry(lambda: store.log_artifact(path, folder))  # noqa: B023
            sent += item.bytes
        progress(item.bytes)
    with tempfile.TemporaryDirectory(prefix="aml-mirror-") as scratch:
        local = os.path.join(scratch, "manifest.json")
        with open(local, "w", encoding="utf-8") as stream:
            stream.write(manifest.as_json())
        retry(lambda: store.log_artifact(local))
    return TransferResult(sent=sent)
