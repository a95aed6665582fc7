"""``model.sig``: the files of a version under an OpenSSF model signature (OMS).

The shape is that of the model-signing library, 1.1: a Sigstore bundle (v0.3) around a DSSE envelope whose
in-toto statement lists each file with its SHA-256. It is made only from the manifest's digests: no byte is
read again. ``model_signing verify key`` checks a pulled folder with it:

    model_signing verify key DIR/model --signature DIR/mirror/model.sig --public_key release.pub

The library only supports ECDSA keys. So there is no signature with an Ed25519 key, or if the storage service
copied files that nobody hashed.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner, SSlibKey

from aml_mirror.core.manifest import Manifest
from aml_mirror.pipeline.provenance import signing

ARTIFACT = "model.sig"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
# The folder that a download creates. A verifier does not compare its name.
_NAME = "model"


def signature(manifest: Manifest, key: signing.PrivateKey) -> str | None:
    """Return the bundle as text; None: this key or this manifest does not allow one."""
    if not isinstance(key, ec.EllipticCurvePrivateKey) or manifest.integrity != "sha256":
        return None
    payload = json.dumps(_statement(manifest), separators=(",", ":"), ensure_ascii=False).encode()
    envelope = Envelope(payload, signing.PAYLOAD_TYPE, {})
    public = key.public_key()
    made = envelope.sign(CryptoSigner(key, SSlibKey.from_crypto(public, signing.key_id(public))))
    # The verifier uses it to find the right key.
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    bundle = {
        "mediaType": _BUNDLE_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": hashlib.sha256(pem).hexdigest()},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": signing.PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(bytes.fromhex(made.signature)).decode(), "keyid": ""}],
        },
    }
    return json.dumps(bundle, indent=2) + "\n"


def _statement(manifest: Manifest) -> dict[str, Any]:
    files = sorted(manifest.items, key=lambda item: item.path)
    root = hashlib.sha256(b"".join(bytes.fromhex(item.sha256 or "") for item in files)).hexdigest()
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": _NAME, "digest": {"sha256": root}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
            "resources": [
                {"name": item.path, "algorithm": "sha256", "digest": item.sha256} for item in files
            ],
        },
    }
