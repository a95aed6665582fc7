"""The layout of an exported version: an OCI image with one layer per file, identical for the same version.

Each layer is an uncompressed tar archive with one file ``/model/<path>``, owned by root, with the time 0. So
its digest depends only on path and bytes, and a container engine can build ``FROM`` it or mount it. The
annotations are those of the CNCF ModelPack specification (model-spec, docs/annotations.md), as far as they
fit an image, and those of OCI (image-spec, annotations.md). The image contains no timestamps.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from typing import Any

from aml_mirror.core.manifest import Manifest, ManifestEntry
from aml_mirror.registries import keys
from aml_mirror.registries.records import Version

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
FOLDER = "model"
# It shows an export that the work was already done.
DIGEST_ANNOTATION = "aml-mirror.manifest-sha256"
_PATH = "org.cncf.model.filepath"
_METADATA = "org.cncf.model.file.metadata+json"
_BLOCK = tarfile.BLOCKSIZE


def layer_header(item: ManifestEntry) -> bytes:
    """Return what precedes the bytes of a file in its layer."""
    info = tarfile.TarInfo(f"{FOLDER}/{item.path}")
    info.size, info.mode, info.mtime = item.bytes, 0o644, 0
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def layer_end(item: ManifestEntry) -> bytes:
    """Return the bytes after them: padding, and the two empty blocks at the end of an archive."""
    return bytes(-item.bytes % _BLOCK + 2 * _BLOCK)


def layer_bytes(item: ManifestEntry) -> int:
    """Return the size of a layer."""
    return len(layer_header(item)) + item.bytes + len(layer_end(item))


def descriptor(item: ManifestEntry, digest: str) -> dict[str, Any]:
    """Return a layer's entry in the image's manifest.

    Args:
        digest: the digest of the layer, ``sha256:…``.
    """
    metadata = {"name": item.path.rpartition("/")[2], "mode": 0o644, "size": item.bytes, "typeflag": 0}
    return {
        "mediaType": LAYER_TYPE,
        "digest": digest,
        "size": layer_bytes(item),
        "annotations": {_PATH: item.path, _METADATA: json.dumps(metadata, separators=(",", ":"))},
    }


def config(digests: list[str]) -> bytes:
    """Return the image's configuration. The image runs nothing and fits every processor."""
    return _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {"org.cncf.model": FOLDER}},
            "rootfs": {"type": "layers", "diff_ids": digests},
        }
    )


def manifest(
    version: Version, files: Manifest, layers: list[dict[str, Any]], config_digest: str, config_bytes: int
) -> bytes:
    """Return the image's manifest."""
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": config_digest, "size": config_bytes},
            "layers": layers,
            "annotations": annotations_of(version, files),
        }
    )


def annotations_of(version: Version, files: Manifest) -> Mapping[str, str]:
    """Return what an image says about its version."""
    tags = version.tags
    found = {
        DIGEST_ANNOTATION: files.sha256,
        "org.opencontainers.image.title": version.model,
        "org.opencontainers.image.version": version.number,
        "aml-mirror.run-id": tags.get(keys.RUN_ID, ""),
        "aml-mirror.framework": tags.get(keys.FRAMEWORK, ""),
        "aml-mirror.task": tags.get(keys.TASK, ""),
        "aml-mirror.checkpoint": tags.get(keys.CHECKPOINT, ""),
        "aml-mirror.safety": tags.get(keys.SAFETY, ""),
    }
    return {name: text for name, text in found.items() if text}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()
