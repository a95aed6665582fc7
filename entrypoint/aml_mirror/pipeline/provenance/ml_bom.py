"""``model.cdx.json``: the version as a CycloneDX machine-learning bill of materials (1.6).

It has one component of the type ``machine-learning-model``, with the files of the manifest below it and the
known facts of its training as properties. The same checkpoint gives the same text: it contains no time, and
the serial number comes from the identity (https://cyclonedx.org/docs/1.6/json/).
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from aml_mirror import __version__
from aml_mirror.core.manifest import ManifestEntry
from aml_mirror.pipeline.plan import Plan
from aml_mirror.pipeline.task_name import task_in
from aml_mirror.support import redaction

ARTIFACT = "model.cdx.json"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:aml-mirror:identity")


def as_json(plan: Plan) -> str:
    """Return the bill of materials of the version to register."""
    return json.dumps(bill_of_materials(plan), indent=2, ensure_ascii=False) + "\n"


def bill_of_materials(plan: Plan) -> dict[str, Any]:
    """Like :func:`as_json`, as plain data."""
    located, checkpoint = plan.located, plan.checkpoint
    properties = {
        "run_id": located.run_id,
        "source": redaction.text(located.source.uri),
        "framework": located.detected.layout.name,
        "checkpoint": checkpoint.path,
        "step": "" if checkpoint.step is None else str(checkpoint.step),
        "role": checkpoint.role,
        "manifest_sha256": plan.manifest.sha256,
        "integrity": plan.manifest.integrity,
        "safety": plan.safety.verdict,
    }
    task = task_in(located.run.params)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, plan.identity)}",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "aml-mirror", "version": __version__}]},
            "component": {
                "type": "machine-learning-model",
                "bom-ref": "model",
                "name": plan.model_name,
                "version": plan.manifest.sha256,
                **_pedigree(checkpoint.base_model),
                "modelCard": {
                    "modelParameters": {
                        **({"task": task} if task else {}),
                        "architectureFamily": located.detected.layout.name,
                    }
                },
                "properties": [
                    {"name": f"aml-mirror:{name}", "value": text} for name, text in properties.items() if text
                ],
                "components": [_file(item) for item in plan.manifest.items],
            },
        },
    }


def _pedigree(base_model: str) -> dict[str, Any]:
    if not base_model:
        return {}
    base = {"type": "machine-learning-model", "name": redaction.text(base_model)}
    return {"pedigree": {"ancestors": [base]}}


def _file(item: ManifestEntry) -> dict[str, Any]:
    hashes = []
    if item.sha256:
        hashes = [{"alg": "SHA-256", "content": item.sha256}]
    elif item.md5:
        hashes = [{"alg": "MD5", "content": item.md5}]
    return {
        "type": "file",
        "bom-ref": f"file:{item.path}",
        "name": item.path,
        **({"hashes": hashes} if hashes else {}),
        "properties": [{"name": "aml-mirror:bytes", "value": str(item.bytes)}],
    }
