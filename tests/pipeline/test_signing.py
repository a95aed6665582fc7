"""signing.py: other implementations of DSSE verify our envelopes, and we verify theirs."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_public_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner, SSlibKey

from aml_mirror.core.errors import DataError
from aml_mirror.pipeline.provenance import signing

STATEMENT = '{"statement": 1}'
KINDS = ("Ed25519", "P-256")
# Public key and envelope from release 0.1, which did not use securesystemslib.
RELEASED = json.loads((Path(__file__).parent.parent / "data" / "released_signatures.json").read_text())


def key_of(kind: str) -> signing.PrivateKey:
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize("kind", KINDS)
def test_what_we_sign_the_library_verifies_and_we_too(kind: str, tmp_path: Path) -> None:
    key = key_of(kind)
    (tmp_path / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    signed = signing.sign(STATEMENT, signing.private_key(str(tmp_path / "key.pem")))
    document = json.loads(signed)
    assert document["payloadType"] == "application/vnd.in-toto+json"
    keyid = document["signatures"][0]["keyid"]
    assert keyid == signing.key_id(key.public_key())
    public = SSlibKey.from_crypto(key.public_key(), keyid)
    assert list(Envelope.from_dict(document).verify([public], 1)) == [keyid]
    assert signing.opened(signed.encode(), key.public_key()) == {"statement": 1}


@pytest.mark.parametrize("keyid", [None, "other", ""])
@pytest.mark.parametrize("kind", KINDS)
def test_what_the_library_signs_we_verify_whatever_its_key_id(kind: str, keyid: str | None) -> None:
    """The key id is optional in DSSE and must not be trusted."""
    key = key_of(kind)
    envelope = Envelope(STATEMENT.encode(), signing.PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(key))
    document = envelope.to_dict()
    if keyid is None:
        del document["signatures"][0]["keyid"]
    else:
        document["signatures"][0]["keyid"] = keyid
    other = {"keyid": "x", "sig": base64.b64encode(b"no signature").decode()}
    document["signatures"].insert(0, other)
    assert signing.opened(json.dumps(document).encode(), key.public_key()) == {"statement": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_earlier_release_signed_still_verifies(kind: str) -> None:
    released = RELEASED[kind]
    key = load_pem_public_key(released["public_key"].encode())
    assert signing.opened(json.dumps(released["envelope"]).encode(), key) == {"statement": 1}  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["payload", "payloadType", "sig", "key", "base64", "none"])
def test_anything_else_is_refused(kind: str, what: str) -> None:
    key = key_of(kind)
    document = json.loads(signing.sign(STATEMENT, key))
    if what == "payload":
        document["payload"] = base64.b64encode(b'{"statement": 2}').decode()
    elif what == "payloadType":
        document["payloadType"] = "text/plain"
    elif what == "sig":
        document["signatures"][0]["sig"] = base64.b64encode(bytes(64)).decode()
    elif what == "key":
        key = key_of(kind)
    elif what == "base64":
        document["signatures"][0]["sig"] = "%%%"
    else:
        document["signatures"] = []
    with pytest.raises(DataError, match=r"not by the key|damaged"):
        signing.opened(json.dumps(document).encode(), key.public_key())
