"""Evaluations that are attached to a version, and how each is verified.

A statement is the file ``evaluations/<id>.json`` beside the manifest; if it is signed, a DSSE envelope. A tag
of the version, ``mirror.evaluation.<id>``, has the digest of the file. So a file that somebody changed or
added only in the storage does not count, signed or not.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from aml_mirror.core.errors import DataError
from aml_mirror.evidence.result_statement import MAX_BYTES, Evidence, evidence_in
from aml_mirror.pipeline.provenance import signing
from aml_mirror.registries import keys
from aml_mirror.registries.base import VersionReader
from aml_mirror.registries.records import Version

TAG = "mirror.evaluation."
# How much of the evaluation's id is part of the names of tag and file.
ID_LENGTH = 16
_AGAIN = "attach the result again with: aml-mirror evaluate"


@dataclass(frozen=True, slots=True)
class Attached:
    """One evaluation of a version."""

    evidence: Evidence
    signed_by: str
    """The id of the key; empty: no given key signed it."""
    is_signed: bool
    """Whether it has a signature by any key."""


def tag_of(evaluation_id: str) -> str:
    """Return the name of a version's tag for an evaluation."""
    return TAG + evaluation_id[:ID_LENGTH]


def file_of(evaluation_id: str, file_sha256: str) -> str:
    """Return the path of a statement beside the manifest.

    The digest is part of it, so a statement that replaces another one (now signed) is a different file.
    """
    return f"evaluations/{evaluation_id[:ID_LENGTH]}-{file_sha256[:ID_LENGTH]}.json"


def tag_value(file_sha256: str, evidence: Evidence, is_signed: bool) -> str:
    """Return the value of the tag: the digest, and a description for people."""
    trials = f"{evidence.successes} of {evidence.episodes}" if evidence.episodes else "no trials"
    return f"{file_sha256} {trials}, {evidence.format}{', signed' if is_signed else ''}"[:250]


def named_in(tags: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield (beginning of the id, digest of the file) for each evaluation in a version's tags."""
    for key in sorted(tags):
        if key.startswith(TAG):
            match = re.match("([0-9a-f]{64})\\b", tags[key])
            if match is None:
                raise DataError(
                    f"the tag {key} is damaged: it has no digest of an evaluation",
                    f"remove the tag, and {_AGAIN}",
                )
            yield key.removeprefix(TAG), match[1]


def attached_to(
    version: Version, reader: VersionReader, public_keys: Sequence[signing.PublicKey]
) -> list[Attached]:
    """Return the evaluations of a version, sorted by id.

    Args:
        version: with its tags.
        reader: reads its files.
        public_keys: a signature by one of them counts.

    Raises:
        DataError: one is missing, was changed, belongs to other bytes, or was signed, but by none of the
            keys.
    """
    found = []
    for short, digest in named_in(version.tags):
        name = file_of(short, digest)
        data = next(
            (
                data
                for data in reader.artifacts(name, MAX_BYTES)
                if hashlib.sha256(data).hexdigest() == digest
            ),
            None,
        )
        where = f"the evaluation {short} of version {version.number} of {version.model}"
        if data is None:
            raise DataError(
                f"{where} was changed or no longer exists: no {name} has the digest in the version's tag",
                _AGAIN,
            )
        one = open_statement(data, public_keys, where)
        require_bytes(one.evidence, version, where)
        if not one.evidence.id.startswith(short):
            raise DataError(f"{where} is a different one: its tag has the wrong id", _AGAIN)
        found.append(one)
    return found


def require_bytes(evidence: Evidence, version: Version, where: str) -> None:
    """Check that evidence belongs to the bytes of a version.

    Raises:
        DataError: it belongs to others.
    """
    wanted = version.tags.get(keys.MANIFEST_SHA256, "")
    if evidence.manifest_sha256 != wanted:
        raise DataError(
            f"{where} belongs to other bytes: it names the manifest {evidence.manifest_sha256[:16]}…, but "
            f"version {version.number} of {version.model} has {wanted[:16]}…",
            "evaluate this version, and attach that result",
        )


def open_statement(data: bytes, public_keys: Sequence[signing.PublicKey], where: str) -> Attached:
    """Return the contents of a statement, and whose signature it has.

    Raises:
        DataError: it is not a statement, or it is signed, but by none of the given keys.
    """
    document = _parsed(data, where)
    if not _is_envelope(document):
        return Attached(evidence_in(document, where), "", False)
    for key in public_keys:
        try:
            return Attached(evidence_in(signing.opened(data, key), where), signing.key_id(key), True)
        except DataError:
            continue
    if public_keys:
        raise DataError(
            f"the signature of {where} is not by any of the given keys (--public-key)",
            "pass the public key of the person who evaluated it; if that is the right key, somebody else "
            "made the statement",
        )
    try:
        statement = signing.payload(data)
    except DataError as error:
        raise DataError(f"{where} is not a signed statement, or it is damaged", _AGAIN) from error
    return Attached(evidence_in(statement, where), "", True)


def _is_envelope(document: Any) -> bool:
    return isinstance(document, dict) and "payload" in document and "signatures" in document


def _parsed(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON", _AGAIN) from error
