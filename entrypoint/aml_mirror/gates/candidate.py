"""Checks a version itself before any evidence counts: bytes, signature, safety."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace

from aml_mirror.core.errors import DataError
from aml_mirror.core.settings import Settings
from aml_mirror.gates.policy import Policy
from aml_mirror.pipeline.current_verdict import current_verdict
from aml_mirror.pipeline.provenance import signing
from aml_mirror.pull.pull import pull
from aml_mirror.registries.azureml.version_folder import MODEL
from aml_mirror.registries.base import Registry
from aml_mirror.registries.pinned_manifest import require_complete
from aml_mirror.registries.records import Version
from aml_mirror.safety.verdict import Safety, inspect
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from aml_mirror.support.progress import Console
from aml_mirror.verify.verify import Verification, verify_version


def check_candidate(
    registry: Registry,
    version: Version,
    policy: Policy,
    keys: Sequence[signing.PublicKey],
    settings: Settings,
    console: Console,
) -> Verification:
    """Read every byte of a version, and check its signature and its safety verdict.

    Args:
        registry: the registry of the version.
        version: the version as it is there.
        policy: says whether a signature is required, and which verdicts are accepted.
        keys: the keys of those who may sign.
        settings: these name the registry.
        console: shows the progress.

    Raises:
        DataError: the version is incomplete, archived, not what was mirrored, not signed, or not safe enough.
    """
    name = f"version {version.number} of {version.model}"
    require_complete(version)
    if version.archived:
        raise DataError(f"{name} is archived", "restore it first, or choose another version")
    found = verify_version(registry, version, keys if policy.signed_version else [], console)
    if not found.holds:
        first = (
            f"{found.wrong[0][0]}: {found.wrong[0][1]}"
            if found.wrong
            else f"{found.missing[0]} is missing"
            if found.missing
            else f"{found.extra[0]} was added"
        )
        raise DataError(f"{name} is not what was mirrored: {first}", f"restore it with: {found.repair}")
    # Last: if an older scanner gave the verdict, the bytes, which were just found to be right, are scanned
    # again.
    _check_safety(registry, version, policy, name, settings, console)
    return found


def _check_safety(
    registry: Registry, version: Version, policy: Policy, name: str, settings: Settings, console: Console
) -> None:
    keep = None if settings.dry_run else registry.annotate
    word = current_verdict(version, lambda: _scanned(version, settings, console), keep).word
    if word not in policy.safety:
        raise DataError(
            f"{name} has the safety verdict {word}, but the policy accepts only {', '.join(policy.safety)}",
            "look at its safety.json; version.safety in the policy can accept more verdicts",
        )


def _scanned(version: Version, settings: Settings, console: Console) -> Safety:
    """Pull a version into a temporary folder and scan its files."""
    console.say(
        f"version {version.number} of {version.model} was judged by an older scanner: scanning it again"
    )
    with tempfile.TemporaryDirectory(prefix="aml-mirror-") as scratch:
        wanted = replace(
            settings,
            reference=f"{version.model}:{version.number}",
            folder=os.path.join(scratch, "policy"),
            run_id="",
            public_key="",
            refuse_pickle=False,
        )
        source = LocalSource(pull(wanted, console).folder / MODEL)
        tree = Tree(source, source.scan())
        paths = sorted(tree.files)
        return inspect(tree, paths, paths)
