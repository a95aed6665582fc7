"""The manifest as an in-toto statement: which bytes a version has, and where they come from.

The format is in-toto's Statement v1 (https://github.com/in-toto/attestation, spec/v1/statement.md): subjects
with digests, and a predicate about all of them. A reader needs none of our tools: entrypoint/safety.md shows
how ``sha256sum`` checks a downloaded version against it.

A file that the storage service copied was not hashed by us. Its digest is the MD5 from the store. If there is
none, the file is only listed in the predicate.
"""

from __future__ import annotations

import json
from typing import Any

from aml_mirror import __version__
from aml_mirror.pipeline.plan import Plan
from aml_mirror.pipeline.provenance.signed_statement import digest_of as digest_of
from aml_mirror.support import redaction

ARTIFACT = "provenance.intoto.json"
TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:aml-mirror:mirrored-checkpoint:v1"


def statement(plan: Plan) -> dict[str, Any]:
    """Return the statement of the version to register. It is the same for the same checkpoint."""
    located, checkpoint, manifest = plan.located, plan.checkpoint, plan.manifest
    return {
        "_type": TYPE,
        "subject": [
            {"name": item.path, "digest": digest} for item in manifest.items if (digest := digest_of(item))
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "run_id": located.run_id,
            "source": redaction.text(located.source.uri),
            "framework": located.detected.layout.name,
            "checkpoint": checkpoint.path,
            "step": checkpoint.step,
            "identity": plan.identity,
            "manifest_sha256": manifest.sha256,
            "integrity": manifest.integrity,
            "safety": plan.safety.verdict,
            "model_name": plan.model_name,
            "without_digest": [item.path for item in manifest.items if not digest_of(item)],
            "mirror": {"name": "aml-mirror", "version": __version__},
        },
    }


def as_json(plan: Plan) -> str:
    """Return the artifact ``provenance.intoto.json``."""
    return json.dumps(statement(plan), indent=2, ensure_ascii=False) + "\n"
