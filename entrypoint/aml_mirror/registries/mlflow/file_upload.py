"""Sends a file to an artifact store, in parts if MLflow's server supports that."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository

from aml_mirror.registries.staging import staged
from aml_mirror.sources.tree import Tree
from aml_mirror.support.library_internals import send_whole_from_now_on, sends_in_parts
from aml_mirror.support.retry import Retry


def put_file(store: Any, retry: Retry, tree: Tree, source: str, path: str) -> None:
    """Send a file of the tree.

    Args:
        store: MLflow's repository of the run.
        retry: retries its requests.
        source: the file's path in the tree.
        path: its path among the artifacts.

    Raises:
        DataError: it changed while it was sent.
        MirrorError: the store does not accept it.
    """
    folder, _, name = path.rpartition("/")

    def send() -> None:
        with staged(tree, source, name) as local:
            _send(store, local, folder or None)

    retry(send)


def put_text(store: Any, retry: Retry, path: str, text: str) -> None:
    """Write a small artifact, replacing any existing one. Raises the errors of :func:`put_file`."""
    folder, _, name = path.rpartition("/")
    with tempfile.TemporaryDirectory(prefix="aml-mirror-") as scratch:
        local = os.path.join(scratch, name)
        with open(local, "w", encoding="utf-8") as stream:
            stream.write(text)
        retry(lambda: store.log_artifact(local, folder or None))


def _send(store: Any, local: str, folder: str | None) -> None:
    """Send a file. If the server supports it, a large file is sent in parts to signed addresses in its store.

    Those addresses may not be reachable from here. Then the file goes through the server, which also reports
    problems best.
    """
    if not isinstance(store, HttpArtifactRepository) or not sends_in_parts(store, local):
        store.log_artifact(local, folder)
        return
    try:
        store.log_artifact(local, folder)
    except Exception:  # noqa: BLE001 - after any error, the file goes through the server
        send_whole_from_now_on(store)
        store.log_artifact(local, folder)
