"""Hashes and sends files of a run in one pass: see :mod:`aml_mirror.transfer.one_pass`.

Blocks of earlier versions of the model are reused. At most ``MOST_VERSIONS`` are examined, the newest first.
A version counts if it is complete and hashed, and is where this program stores versions. Its lists of blocks
and of commits must both match its properties and tags.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from aml_mirror.core.errors import MirrorError
from aml_mirror.registries import keys
from aml_mirror.registries.azureml import block_list, stored_files
from aml_mirror.registries.azureml.limits import FOLDER
from aml_mirror.registries.azureml.version_files import read_blob
from aml_mirror.registries.azureml.version_folder import folder_in
from aml_mirror.registries.records import Version
from aml_mirror.sources.base import AzureBlobs, Source
from aml_mirror.storage.azure_login import STORAGE_SCOPE, credential
from aml_mirror.transfer.block_reuse import EarlierBlocks, EarlierFile
from aml_mirror.transfer.one_pass import ONE_PASS_BLOCKS, OnePass
from aml_mirror.transfer.requests import Requests
from aml_mirror.transfer.staging_folder import STAGING, remove_staging_folder, staging_folders, staging_key

if TYPE_CHECKING:
    from aml_mirror.registries.azureml.workspace import AzureMLRegistry

_log = logging.getLogger(__name__)

MOST_VERSIONS = 8


def is_worth_it(source: Source, size: int, block_bytes: int) -> bool:
    """Tell whether files of a source, with this total size, are read once.

    Blobs are copied by the service, and hashed only if a person asks for it.
    """
    return size > ONE_PASS_BLOCKS * block_bytes and not isinstance(source, AzureBlobs)


def one_pass(workspace: AzureMLRegistry, model: str, quick_key: str) -> OnePass:
    """Return the object that hashes the files of one checkpoint and sends them to its staging folder."""
    return OnePass(
        workspace.requests(),
        f"{FOLDER}/{STAGING}/{staging_key(model, quick_key)}",
        workspace.concurrency,
        workspace.block_bytes,
        lambda: earlier_blocks(workspace, model),
    )


def remove_staged(requests: Requests, model: str, quick_key: str) -> None:
    """Remove the staging folder of a checkpoint and model, and those that nobody will continue."""
    key = staging_key(model, quick_key)
    for folder in staging_folders(requests, FOLDER):
        if folder.key == key:
            remove_staging_folder(requests, folder.name)
        elif folder.is_stale:
            with suppress(MirrorError):  # It belongs to another mirror. The next mirror tries again.
                remove_staging_folder(requests, folder.name)


def earlier_blocks(workspace: AzureMLRegistry, model: str) -> EarlierBlocks:
    """Return the blocks of the model's newest versions.

    Raises:
        MirrorError: they cannot be read.
    """
    versions = [
        version
        for version in islice(workspace.models.newest(model), MOST_VERSIONS)
        if version.complete
        and version.tags.get(keys.INTEGRITY) == "sha256"
        and version.tags.get(block_list.BLOCKS_SHA256)
    ]
    with ThreadPoolExecutor(MOST_VERSIONS, thread_name_prefix="earlier") as pool:
        found = list(pool.map(lambda version: _files_of(workspace, version), versions))

    def authorization() -> str:
        return f"Bearer {credential().get_token(STORAGE_SCOPE).token}"

    return EarlierBlocks([file for files in found for file in files], authorization)


def _files_of(workspace: AzureMLRegistry, version: Version) -> list[EarlierFile]:
    """Return the files of a version whose blocks are known; none if anything about it is unexpected."""
    folder = folder_in(version.path, {**version.tags, keys.MODEL_NAME: version.model})
    if folder is None or folder.datastore not in ("", workspace.azure.datastore.name):
        return []
    container = workspace.azure.container
    sha256, stored_sha256 = version.tags[block_list.BLOCKS_SHA256], stored_files.digest_in(version.tags)

    def read(name: str, limit: int) -> bytes | None:
        return read_blob(container, name, limit, lambda operation: operation())

    try:
        blocks = block_list.parse(read(block_list.blob_name(folder, sha256), block_list.MAX_BYTES), sha256)
        listed = read(stored_files.name_of(folder, stored_sha256), stored_files.MAX_BYTES)
        found = stored_files.parse(listed, stored_sha256)
        stored = found.files if found else {}
    except Exception as error:  # noqa: BLE001 - then this version's blocks are sent
        _log.debug("blocks of version %s cannot be reused: %s", version.number, type(error).__name__)
        return []
    return [
        EarlierFile(
            str(container.get_blob_client(f"{folder.bytes}/{path}").url).partition("?")[0],
            stored[path].etag,
            size,
            digests,
        )
        for path, (size, digests) in blocks.items()
        if path in stored and stored[path].etag and stored[path].bytes == size
    ]
