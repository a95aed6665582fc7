"""Exports a version as a container image, streamed: no file is written to a disk on the way.

Each file is read once, in one stream, and sent as a layer while it is read (:mod:`.image_layout`). Its
SHA-256 is compared with the manifest before the registry is told the layer's digest. So an image never refers
to wrong bytes. The tag is assigned last.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from aml_mirror.core.errors import DataError, ServiceUnavailable
from aml_mirror.core.manifest import Manifest, ManifestEntry
from aml_mirror.core.settings import Settings
from aml_mirror.export import image_layout
from aml_mirror.export.container_registry import ContainerRegistry, ImageName, parse
from aml_mirror.pipeline.provenance import signing
from aml_mirror.pipeline.provenance.signed_statement import require_signed
from aml_mirror.pull.pulled_folder import require_safe_paths
from aml_mirror.pull.resolve import resolve
from aml_mirror.pull.resolved import ResolvedVersion
from aml_mirror.support.progress import Console, amount

SCHEMA = "aml-mirror/export/v1"
# How many files are sent at the same time.
STREAMS = 4
# The most layers that Docker's engine accepts.
MAX_LAYERS = 127


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of an export."""

    outcome: str
    image: ImageName
    digest: str
    version: ResolvedVersion
    files: int
    bytes: int
    bytes_sent: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The object that ``export --json`` prints."""
        version = self.version.version
        return {
            "schema": SCHEMA,
            "outcome": self.outcome,
            "exit_code": 0,
            "model_name": version.model,
            "model_version": version.number,
            "model_uri": self.version.uri,
            "image": str(self.image),
            "digest": self.digest,
            "files": self.files,
            "bytes": self.bytes,
            "bytes_sent": self.bytes_sent,
            "seconds": round(self.seconds, 3),
        }

    def text(self) -> str:
        """Return the result as text."""
        name = f"{self.version.version.model} version {self.version.version.number}"
        done = "exported" if self.outcome == "exported" else "exported already"
        return (
            f"{done}: {name}, {self.files} file(s), {amount(self.bytes)}, as {self.image}\n"
            f"  digest   {self.digest}\n"
            f"  use      COPY --from={self.image.host}/{self.image.repository}@{self.digest} /model /model"
        )


def export(settings: Settings, console: Console) -> Exported:
    """Push the version that the settings name as the image that they name.

    Raises:
        UsageError: they name no version or no image.
        DataError: aml-mirror did not make the version, or a byte or the signature is wrong.
        MirrorError: a registry fails.
    """
    started = time.monotonic()
    image = parse(settings.image)
    key = signing.public_key(settings.public_key) if settings.public_key else None
    version = resolve(settings, console.say)
    manifest = version.manifest()
    if key is not None:
        require_signed(version.version, manifest, version, key)
    _check(version, manifest)
    registry = ContainerRegistry(image, settings.retry_seconds, console.say)
    there = registry.manifest()
    sent = 0
    if there is None or not _is_of(there, version, manifest):
        with console.stage("exporting", manifest.bytes) as progress:

            def put(item: ManifestEntry) -> tuple[str, int]:
                done = registry.put_blob(lambda: _layer(version, item))
                progress(item.bytes)
                return done

            with ThreadPoolExecutor(STREAMS) as pool:
                layers = list(pool.map(put, manifest.items))
        sent = sum(count for _, count in layers)
        digests = [digest for digest, _ in layers]
        config = image_layout.config(digests)
        descriptors = [
            image_layout.descriptor(item, digest)
            for item, digest in zip(manifest.items, digests, strict=True)
        ]
        config_digest = registry.put_small_blob(config)
        there = image_layout.manifest(version.version, manifest, descriptors, config_digest, len(config))
        registry.put_manifest(there)
    return Exported(
        "exported" if sent else "already-exported",
        image,
        f"sha256:{hashlib.sha256(there).hexdigest()}",
        version,
        len(manifest.items),
        manifest.bytes,
        sent,
        time.monotonic() - started,
    )


def _check(version: ResolvedVersion, manifest: Manifest) -> None:
    require_safe_paths([item.path for item in manifest.items])
    if len(manifest.items) > MAX_LAYERS:
        raise DataError(
            f"version {version.version.number} of {version.version.model} has {len(manifest.items)} files; "
            f"an image with one layer per file can have {MAX_LAYERS}",
            "pull it, and copy the folder into an image",
        )


def _is_of(there: bytes, version: ResolvedVersion, manifest: Manifest) -> bool:
    """Tell whether the tag already refers to this version."""
    try:
        found = json.loads(there)
    except ValueError:
        return False
    return bool(found.get("annotations") == dict(image_layout.annotations_of(version.version, manifest)))


def _layer(version: ResolvedVersion, item: ManifestEntry) -> Iterator[bytes]:
    """Yield a layer. Its end is yielded only if the file's bytes were right."""
    yield image_layout.layer_header(item)
    by_sha = bool(item.sha256)
    digest = hashlib.sha256() if by_sha else hashlib.md5(usedforsecurity=False)
    count = 0
    with version.files.read(item.path) as part:
        for chunk in part.chunks:
            digest.update(chunk)
            count += len(chunk)
            yield chunk
    if count < item.bytes:
        raise ServiceUnavailable(
            f"an answer of {version.files.uri} was truncated", "run the same command again"
        )
    if count != item.bytes or digest.hexdigest() != (item.sha256 or item.md5 or digest.hexdigest()):
        raise DataError(
            f"{item.path} of version {version.version.number} of {version.version.model} is not what was "
            "mirrored",
            f"repair it with: aml-mirror repair {version.version.model}:{version.version.number}",
        )
    yield image_layout.layer_end(item)
