"""Evaluations that are attached to a version, and how each is known to be what was attached.

A statement is the file ``evaluations/<id>.json`` beside the manifest: signed, a DSSE envelope. A tag of the
version, ``mirror.evaluation.<id>``, has the digest of the file. So a file that somebody changed or put there
in the storage alone does not count, signed or not.
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
# A tag's name and the file's have so much of the evaluation's id.
ID_LENGTH = 16
_AGAIN = "attach the result again with: aml-mirror evaluate"


@dataclass(frozen=True, slots=True)
class Attached:
    """One evaluation of a version."""

    evidence: Evidence
    signed_by: str
    """The id of the key; empty: by none of those that were given."""
    is_signed: bool
    """Whether there is a signature by any key at all."""


def tag_of(evaluation_id: str) -> str:
    """Return the name of the tag of a version that names an evaluation."""
    return TAG + evaluation_id[:ID_LENGTH]


def file_of(evaluation_id: str, file_sha256: str) -> str:
    """Return the path of a statement beside the manifest.

    The digest is part of it, so that a statement which replaces another (signed now) is another file.
    """
    return f"evaluations/{evaluation_id[:ID_LENGTH]}-{file_sha256[:ID_LENGTH]}.json"


def tag_value(file_sha256: str, evidence: Evidence, is_signed: bool) -> str:
    """Return the value of the tag: the digest, and for people what it is."""
    trials = f"{evidence.successes} of {evidence.episodes}" if evidence.episodes else "no trials"
    return f"{file_sha256} {trials}, {evidence.format}{', signed' if is_signed else ''}"[:250]


def named_in(tags: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield (beginning of the id, digest of the file) of each evaluation that a version's tags name."""
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
    """Return the evaluations of a version, in the order of their ids.

    Args:
        version: with its tags.
        reader: of its files.
        public_keys: a signature by one of them counts.

    Raises:
        DataError: one is gone, was changed, is about other bytes, or has a signature by none of the keys.
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
                f"{where} was changed or is gone: no {name} has the digest that the version's tag names",
                _AGAIN,
            )
        one = open_statement(data, public_keys, where)
        require_bytes(one.evidence, version, where)
        if not one.evidence.id.startswith(short):
            raise DataError(f"{where} is another one: its tag names it wrongly", _AGAIN)
        found.append(one)
    return found


def require_bytes(evidence: Evidence, version: Version, where: str) -> None:
    """Check that evidence is about the bytes of a version.

    Raises:
        DataError: it is about others.
    """
    wanted = version.tags.get(keys.MANIFEST_SHA256, "")
    if evidence.manifest_sha256 != wanted:
        raise DataError(
            f"{where} is of other bytes: it is about the manifest {evidence.manifest_sha256[:16]}…, and "
            f"version {version.number} of {version.model} has {wanted[:16]}…",
            "evaluate this version, and attach that result",
        )


def open_statement(data: bytes, public_keys: Sequence[signing.PublicKey], where: str) -> Attached:
    """Return what a statement says, and whose signature it has.

    Raises:
        DataError: it is no statement, or it has a signature, and by none of the keys that were given.
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
            f"the signature of {where} is by none of the keys that were given (--public-key)",
            "pass the public key of whoever evaluated it; else somebody else made it",
        )
    return Attached(evidence_in(signing.payload(data), where), "", True)


def _is_envelope(document: Any) -> bool:
    return isinstance(document, dict) and "payload" in document and "signatures" in document


def _parsed(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON", _AGAIN) from error
