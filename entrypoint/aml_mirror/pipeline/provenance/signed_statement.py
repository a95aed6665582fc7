"""Checks whether a signed statement matches a version. It needs no plan, because a pull checks it too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aml_mirror.core.errors import DataError
from aml_mirror.core.manifest import Manifest, ManifestEntry
from aml_mirror.pipeline.provenance import signing
from aml_mirror.registries import keys
from aml_mirror.registries.pinned_manifest import MAX_MANIFEST_BYTES, ArtifactReader
from aml_mirror.registries.records import Version


def require_signed(
    version: Version, manifest: Manifest, reader: ArtifactReader, key: signing.PublicKey
) -> None:
    """Like :func:`signed_by`, for one key."""
    signed_by(version, manifest, reader, (key,))


def signed_by(
    version: Version, manifest: Manifest, reader: ArtifactReader, public_keys: Sequence[signing.PublicKey]
) -> signing.PublicKey:
    """Return the key that signed the statement about a version, its files and its run.

    Args:
        reader: reads the version's own files.
        public_keys: of those who may sign.

    Raises:
        DataError: there is no signature, it is not by one of these keys, or the statement does not match the
            version.
    """
    why = DataError(
        f"version {version.number} of {version.model} is not signed: it has no {signing.ARTIFACT}",
        "mirror the run with --sign-key, under another model name if this version should stay",
    )
    for data in reader.artifacts(signing.ARTIFACT, 2 * MAX_MANIFEST_BYTES):
        for key in public_keys:
            try:
                statement = signing.opened(data, key)
            except DataError as error:
                why = error
                continue
            if fits(statement, version, manifest):
                return key
            why = DataError(
                f"the signature is not for version {version.number} of {version.model}: {signing.ARTIFACT} "
                "names other files, another run or another model",
                "do not use the version, and mirror the run again",
            )
    raise why


def fits(statement: dict[str, Any], version: Version, manifest: Manifest) -> bool:
    """Tell whether a statement matches this version, its run and all of its files."""
    predicate, subjects = statement.get("predicate"), statement.get("subject")
    if not isinstance(predicate, dict) or not isinstance(subjects, list):
        return False
    named = {
        keys.RUN_ID: predicate.get("run_id"),
        keys.CHECKPOINT: predicate.get("checkpoint"),
        keys.IDENTITY: predicate.get("identity"),
        keys.MANIFEST_SHA256: predicate.get("manifest_sha256"),
    }
    signed = {item.get("name"): item.get("digest") for item in subjects if isinstance(item, dict)}
    # This includes MD5s, which the manifest's own digest does not cover.
    digests = {item.path: digest_of(item) or None for item in manifest.items}
    return (
        predicate.get("model_name") == version.model
        and all(version.tags.get(name) == text for name, text in named.items())
        and all(signed.get(path) == digest for path, digest in digests.items())
    )


def digest_of(item: ManifestEntry) -> dict[str, str]:
    """Return the known digest of a file, in the format of in-toto; empty: none."""
    if item.sha256:
        return {"sha256": item.sha256}
    return {"md5": item.md5} if item.md5 else {}
