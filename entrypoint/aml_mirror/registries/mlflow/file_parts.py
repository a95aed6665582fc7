"""Reads a file from any artifact store in parts: a file is never held in memory or written as a whole.

MLflow's repositories can only download to a file. Here each kind of store is accessed with its own client,
with the same requests as its ``_download_file`` (mlflow 2.9 to 3.15), but the answer is passed on as it
arrives.
"""

from __future__ import annotations

import os
import posixpath
import tempfile
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.utils.request_utils import augmented_raise_for_status
from mlflow.utils.rest_utils import http_request

from aml_mirror.support.library_internals import host_credentials, s3_client

PART_BYTES = 4 << 20


def parts_of(repository: Any, path: str) -> Iterator[bytes]:
    """Yield a file's bytes in order. A missing file has no parts."""
    if isinstance(repository, HttpArtifactRepository):
        yield from _of_server(repository, path)
    elif isinstance(repository, LocalArtifactRepository):
        full = os.path.join(repository.artifact_dir, *path.split("/"))
        if os.path.isfile(full):
            yield from _of_disk(full)
    else:
        # By name: importing one of them may need a package that is not installed.
        read = _READERS.get(type(repository).__name__, _through_disk)
        yield from read(repository, path)


def limited(parts: Iterator[bytes], limit: int) -> Iterator[bytes]:
    """Yield parts as long as their total is no more than ``limit`` bytes."""
    for part in parts:
        limit -= len(part)
        if limit < 0:
            return
        yield part


def _of_server(repository: Any, path: str) -> Iterator[bytes]:
    # Without the client's own retries: they would ask for minutes for a missing file.
    with http_request(
        host_credentials(repository), f"/{path}", "GET", stream=True, max_retries=0, raise_on_status=False
    ) as answer:
        if answer.status_code == 404:
            return
        # MLflow 2 answers 500 if a file is missing.
        if answer.status_code == 500 and not _is_listed(repository, path):
            return
        augmented_raise_for_status(answer)
        yield from answer.iter_content(PART_BYTES)


def _is_listed(repository: Any, path: str) -> bool:
    folder = posixpath.dirname(path)
    return any(item.path == path for item in repository.list_artifacts(folder or None))


def _of_s3(repository: Any, path: str) -> Iterator[bytes]:
    bucket, root = repository.parse_s3_compliant_uri(repository.artifact_uri)
    client = s3_client(repository)
    try:
        found = client.get_object(Bucket=bucket, Key=posixpath.join(root, path))
    except client.exceptions.NoSuchKey:
        return
    with closing(found["Body"]) as body:
        yield from body.iter_chunks(PART_BYTES)


def _of_gcs(repository: Any, path: str) -> Iterator[bytes]:
    bucket, root = repository.parse_gcs_uri(repository.artifact_uri)
    blob = repository.client.bucket(bucket).get_blob(posixpath.join(root, path))
    if blob is None:
        return
    # Requests PART_BYTES at a time.
    with blob.open("rb", chunk_size=PART_BYTES) as stream:
        while part := stream.read(PART_BYTES):
            yield part


def _of_azure_blob(repository: Any, path: str) -> Iterator[bytes]:
    from azure.core.exceptions import ResourceNotFoundError

    container, _, root, _ = repository.parse_wasbs_uri(repository.artifact_uri)
    blob = repository.client.get_container_client(container).get_blob_client(posixpath.join(root, path))
    try:
        # In ranges of 4 MiB, each bound to the ETag of the first.
        download = blob.download_blob(max_concurrency=1)
    except ResourceNotFoundError:
        return
    yield from download.chunks()


def _of_data_lake(repository: Any, path: str) -> Iterator[bytes]:
    from azure.core.exceptions import ResourceNotFoundError

    file = repository.fs_client.get_file_client(posixpath.join(repository.base_data_lake_directory, path))
    try:
        download = file.download_file(max_concurrency=1)
    except ResourceNotFoundError:
        return
    yield from download.chunks()


_READERS = {
    "S3ArtifactRepository": _of_s3,
    "GCSArtifactRepository": _of_gcs,
    "AzureBlobArtifactRepository": _of_azure_blob,
    "AzureDataLakeArtifactRepository": _of_data_lake,
}


def _through_disk(repository: Any, path: str) -> Iterator[bytes]:
    """Read from a plugin's store, which can only write to a file."""
    with tempfile.TemporaryDirectory(prefix="aml-mirror-") as scratch:
        yield from _of_disk(repository.download_artifacts(path, scratch))


def _of_disk(path: str) -> Iterator[bytes]:
    with open(path, "rb") as stream:
        while part := stream.read(PART_BYTES):
            yield part
