"""The list of a version's blocks. It shows a later mirror, or a download, which bytes are equal.

The list is the blob ``…/sha256-<digest>/mirror/<model>.blocks-<sha256 of the list>.json``, beside the folder
of the version's own files. The property ``blocks_sha256`` of the version has the same SHA-256. So someone who
can write only to the storage cannot change a list unnoticed. A version has no list if its files were not
hashed, or if an earlier release made it. Losing a list only costs speed.

It is one JSON object::

    {"schema": "aml-mirror/blocks/v1", "digest": "blake3", "files": [
      {"path": "model.safetensors", "bytes": 20000000, "block_bytes": 8388608,
       "blocks": "<64 hexadecimal digits per block, without separators>"}]}

``path`` is the path in the version. Block *n* starts at byte ``n * block_bytes`` and has ``block_bytes``
bytes, or what is left. Files of up to 1 MiB are not listed. Block digests are BLAKE3, 32 bytes. The list of
:mod:`.stored_files` says which blob has the bytes, and with which ETag.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from aml_mirror.core.manifest import BlockDigests, ManifestEntry
from aml_mirror.registries.azureml.version_folder import VersionFolder
from aml_mirror.support.block_digest import NAME

SCHEMA = "aml-mirror/blocks/v1"
# The property of a version that names its list.
BLOCKS_SHA256 = "blocks_sha256"
# For 1 TiB in blocks of 8 MiB: 131,072 digests of 64 characters.
MAX_BYTES = 16 << 20


def blob_name(folder: VersionFolder, sha256: str) -> str:
    """Return the list's name in the container."""
    return f"{folder.own}.blocks-{sha256}.json"


def as_json(entries: Iterable[ManifestEntry]) -> str:
    """Return the list of hashed files as text; empty if none of them has blocks."""
    files = [
        {
            "path": entry.path,
            "bytes": entry.bytes,
            "block_bytes": entry.blocks.block_bytes,
            "blocks": entry.blocks.digests.hex(),
        }
        for entry in entries
        if entry.blocks is not None
    ]
    if not files:
        return ""
    text = json.dumps({"schema": SCHEMA, "digest": NAME, "files": files}, ensure_ascii=False) + "\n"
    return text if len(text.encode()) <= MAX_BYTES else ""


def parse(data: bytes | None, sha256: str) -> dict[str, tuple[int, BlockDigests]]:
    """Parse a list: path in the version -> size of the file in bytes, and its blocks.

    Args:
        data: the list as it is stored; None: there is none.
        sha256: the property of the version.

    Returns:
        An empty result if the list has another digest or another form.
    """
    if not data or not sha256 or hashlib.sha256(data).hexdigest() != sha256:
        return {}
    found: dict[str, Any] = json.loads(data)
    if found.get("schema") != SCHEMA or found.get("digest") != NAME:
        return {}
    return {
        str(file["path"]): (
            int(file["bytes"]),
            BlockDigests(int(file["block_bytes"]), bytes.fromhex(file["blocks"])),
        )
        for file in found["files"]
    }
