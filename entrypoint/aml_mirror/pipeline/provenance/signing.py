"""Signs statements, as DSSE envelopes, with a key from a file.

The envelope and the signed bytes follow https://github.com/secure-systems-lab/dsse (v1.0): the signature
covers the type and the payload together ("PAE"). securesystemslib creates and verifies it. Keys are PEM
files: Ed25519, or ECDSA on P-256 with SHA-256, as ``openssl genpkey`` writes them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey

from aml_mirror.core.errors import ConfigurationError, DataError, NotAllowed

ARTIFACT = "provenance.dsse.json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_KEY_BYTES = 64 << 10  # A key has some hundred bytes.
MAX_SIGNATURES = 16  # The most bytes of an envelope. The rest is ignored.
_KINDS = "Ed25519, or ECDSA on P-256"

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey


def private_key(path: str) -> PrivateKey:
    """Read a private key in PEM, without a passphrase.

    Raises:
        ConfigurationError: it does not exist, or is not such a key.
        NotAllowed: access is denied.
    """
    try:
        key = load_pem_private_key(_read(path, "--sign-key"), password=None)
    except TypeError as error:
        raise ConfigurationError(
            f"the key {path} (--sign-key) has a passphrase",
            "pass a key without one, and keep it in a secret store",
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _no_key(path, "--sign-key") from error
    if isinstance(key, ed25519.Ed25519PrivateKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
    ):
        return key
    raise _no_key(path, "--sign-key")


def public_key(path: str) -> PublicKey:
    """Read a public key in PEM. Raises the errors of :func:`private_key`."""
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
    envelope = Envelope(statement.encode(), PAYLOAD_TYPE, {})
    public = key.public_key()
    envelope.sign(CryptoSigner(key, SSlibKey.from_crypto(public, key_id(public))))
    return json.dumps(envelope.to_dict(), indent=2) + "\n"


def opened(envelope: bytes, key: PublicKey) -> dict[str, Any]:
    """Return the statement of an envelope that this key signed.

    Raises:
        DataError: the envelope is damaged, or has no signature by this key.
    """
    try:
        document = json.loads(envelope)
        payload = base64.b64decode(document["payload"], validate=True)
        signatures = [base64.b64decode(item["sig"], validate=True) for item in document["signatures"]]
        kind = document["payloadType"]
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise DataError(f"the signature {ARTIFACT} is damaged") from error
    if kind == PAYLOAD_TYPE and any(_is_by(key, item, payload) for item in signatures[:MAX_SIGNATURES]):
        try:
            statement = json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise DataError(f"the contents of {ARTIFACT} are not JSON") from error
        if isinstance(statement, dict):
            return statement
    raise DataError(
        f"the signature {ARTIFACT} is not by the key {key_id(key)[:16]}… (--public-key)",
        "get the public key from the person who mirrored the run; if that is the right key, somebody else "
        "changed the version",
    )


def payload(envelope: bytes) -> dict[str, Any]:
    """Return the statement of an envelope, whoever signed it. Nothing in it is proven.

    Raises:
        DataError: the envelope is damaged.
    """
    try:
        document = json.loads(envelope)
        statement = json.loads(base64.b64decode(document["payload"], validate=True))
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise DataError("the signed statement is damaged") from error
    if document.get("payloadType") != PAYLOAD_TYPE or not isinstance(statement, dict):
        raise DataError("the signed statement is damaged")
    return statement


def _is_by(key: PublicKey, signature: bytes, payload: bytes) -> bool:
    """Tell whether a signature of the envelope is by a key.

    The envelope's own key ids are hints that anybody can write (DSSE, "keyid"), and the library skips a
    signature with another one. So each signature is checked under the id of our key.
    """
    public = SSlibKey.from_crypto(key, key_id(key))
    own = Signature(public.keyid, signature.hex())
    try:
        Envelope(payload, PAYLOAD_TYPE, {own.keyid: own}).verify([public], threshold=1)
    except VerificationError:
        return False
    return True


def _read(path: str, flag: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(MAX_KEY_BYTES)
    except PermissionError as error:
        raise NotAllowed(
            f"the key {path} ({flag}) cannot be read: access denied", "give this user read access"
        ) from error
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(
            f"the key {path} ({flag}) cannot be read: {said}", "check the path"
        ) from error


def _no_key(path: str, flag: str) -> ConfigurationError:
    which = "private" if flag == "--sign-key" else "public"
    return ConfigurationError(
        f"{path} ({flag}) is not a usable {which} key",
        f"pass a PEM file: {_KINDS} (openssl genpkey -algorithm ed25519 -out key.pem)",
    )
