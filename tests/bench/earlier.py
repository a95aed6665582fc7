"""Earlier versions in the emulated workspace: their lists of blocks are real, but their files are missing.

So the program looks up their blocks as after a real mirror. None of these blocks is equal to one of another
file.
"""

from __future__ import annotations

import hashlib
import os

from aml_mirror.core.manifest import DIGEST_BYTES, BlockDigests, ManifestEntry, StoredFile
from aml_mirror.core.options import BLOCK_BYTES
from aml_mirror.registries import keys
from aml_mirror.registries.azureml import block_list, stored_files
from aml_mirror.registries.azureml.read_once import MOST_VERSIONS
from aml_mirror.registries.azureml.stored_files import StoredList
from aml_mirror.registries.azureml.version_folder import folder_of
from aml_mirror.registries.azureml.version_tags import STORED_SHA256
from azure_emulator.client import Azure


def blocks_of(size: int) -> int:
    """How many blocks the versions have together, with one file of this size each."""
    return MOST_VERSIONS * -(-size // BLOCK_BYTES)


def seed(azure: Azure, model: str, name: str, size: int) -> None:
    """Create as many versions of a model as the program looks at, with one file of this name and size."""
    for number in range(MOST_VERSIONS):
        digest = os.urandom(32).hex()
        tags = {
            keys.RUN_ID: f"earlier-{number}",
            keys.CHECKPOINT: "checkpoint-100",
            keys.MANIFEST_SHA256: digest,
            keys.INTEGRITY: "sha256",
            keys.STATE: keys.COMPLETE,
        }
        folder = folder_of({**tags, keys.MODEL_NAME: model})
        blocks = BlockDigests(BLOCK_BYTES, os.urandom(DIGEST_BYTES * -(-size // BLOCK_BYTES)))
        listed = block_list.as_json([ManifestEntry(name, name, size, digest, blocks=blocks)]).encode()
        stored = StoredList({name: StoredFile(size, f"0x{number}", digest)}).as_json().encode()
        listed_sha256, stored_sha256 = (hashlib.sha256(data).hexdigest() for data in (listed, stored))
        azure.seed(
            {
                block_list.blob_name(folder, listed_sha256): listed,
                stored_files.name_of(folder, stored_sha256): stored,
            }
        )
        tags |= {block_list.BLOCKS_SHA256: listed_sha256, STORED_SHA256: stored_sha256}
        path = f"azureml://datastores/workspaceblobstore/paths/{folder.bytes}"
        azure.seed_versions(model, 1, properties=tags, modelUri=path)
