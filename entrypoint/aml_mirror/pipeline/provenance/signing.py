"""Statements under a signature: DSSE envelopes, with a key from a file.

The envelope and what is signed of it are those of https://github.com/secure-systems-lab/dsse (v1.0): the
signature covers the type and the payload together ("PAE"). Keys are PEM files: Ed25519, or ECDSA on P-256
with SHA-256, as ``openssl genpkey`` writes them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from aml_mirror.core.errors import ConfigurationError, DataError, NotAllowed

ARTIFACT = "provenance.dsse.json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_KEY_BYTES = 64 << 10  # a key takes some hundred
_KINDS = "Ed25519, or ECDSA on P-256"

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey


def private_key(path: str) -> PrivateKey:
    """Read a private key in PEM, without a pass phrase.

    Raises:
        ConfigurationError: it is not there, or not such a key.
        NotAllowed: it may not be read.
    """
    try:
        key = load_pem_private_key(_read(path, "--sign-key"), password=None)
    except TypeError as error:
        raise ConfigurationError(
            f"the key {path} (--sign-key) has a pass phrase", "pass one without: keep it in a secret store"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _no_key(path, "--sign-key") from error
    if isinstance(key, ed25519.Ed25519PrivateKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
    ):
        return key
    raise _no_key(path, "--sign-key")


def public_key(path: str) -> PublicKey:
    """Read a public key in PEM. Raises as :func:`private_key`."""
    try:
        key = load_pem_public_key(_read(path, "--public-key"))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _no_key(path, "--public-key") from error
    if isinstance(key, ed25519.Ed25519PublicKey) or (
        isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    ):
        return key
    raise _no_key(path, "--public-key")


def key_id(key: PublicKey) -> str:
    """Return the SHA-256 of a public key (its SubjectPublicKeyInfo), in hexadecimal."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def sign(statement: str, key: PrivateKey) -> str:
    """Return the artifact ``provenance.dsse.json``: the statement with its signature."""
    payload = statement.encode()
    signed = pae(payload)
    signature = (
        key.sign(signed)
        if isinstance(key, ed25519.Ed25519PrivateKey)
        else key.sign(signed, ec.ECDSA(SHA256()))
    )
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [
            {"keyid": key_id(key.public_key()), "sig": base64.b64encode(signature).decode()},
        ],
    }
    return json.dumps(envelope, indent=2) + "\n"


def opened(envelope: bytes, key: PublicKey) -> dict[str, Any]:
    """Return the statement of an envelope that this key signed.

    Raises:
        DataError: the envelope is damaged, or no signature of it is this key's.
    """
    try:
        found = json.loads(envelope)
        payload = base64.b64decode(found["payload"], validate=True)
        signatures = [base64.b64decode(item["sig"], validate=True) for item in found["signatures"]]
        kind = found["payloadType"]
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise DataError(f"the signature {ARTIFACT} is damaged") from error
    if kind == PAYLOAD_TYPE and any(_is_by(key, signature, pae(payload)) for signature in signatures[:16]):
        try:
            statement = json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise DataError(f"what {ARTIFACT} signs is not JSON") from error
        if isinstance(statement, dict):
            return statement
    raise DataError(
        f"the signature {ARTIFACT} is not by the key {key_id(key)[:16]}… (--public-key)",
        "ask whoever mirrored the run for the public key; else the version was changed by somebody else",
    )


def pae(payload: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding of type and payload."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _is_by(key: PublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, signed)
        else:
            key.verify(signature, signed, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _read(path: str, flag: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(MAX_KEY_BYTES)
    except PermissionError as error:
        raise NotAllowed(f"the key {path} ({flag}) may not be read", "give this user read access") from error
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(
            f"the key {path} ({flag}) cannot be read: {said}", "check the path"
        ) from error


def _no_key(path: str, flag: str) -> ConfigurationError:
    which = "private" if flag == "--sign-key" else "public"
    return ConfigurationError(
        f"{path} ({flag}) is no {which} key that can be used",
        f"pass a PEM file: {_KINDS} (openssl genpkey -algorithm ed25519 -out key.pem)",
    )
