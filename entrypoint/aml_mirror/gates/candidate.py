"""What is checked of a version itself before any evidence counts: bytes, signature, safety."""

from __future__ import annotations

from collections.abc import Sequence

from aml_mirror.core.errors import DataError
from aml_mirror.gates.policy import Policy
from aml_mirror.pipeline.current_verdict import current_verdict
from aml_mirror.pipeline.provenance import signing
from aml_mirror.registries.base import Registry, Version
from aml_mirror.registries.pinned_manifest import require_complete
from aml_mirror.safety.verdict import Safety
from aml_mirror.support.progress import Console
from aml_mirror.verify.verify import Verification, verify_version


def check_candidate(
    registry: Registry,
    version: Version,
    policy: Policy,
    keys: Sequence[signing.PublicKey],
    console: Console,
) -> Verification:
    """Read every byte of a version, and check its signature and its safety verdict.

    Args:
        registry: where it is.
        version: as it is there.
        policy: says whether it has to be signed, and which verdicts are accepted.
        keys: of those who may sign.
        console: shows how far the work is.

    Raises:
        DataError: it is not complete, archived, not what was mirrored, not signed, or not safe enough.
    """
    name = f"version {version.number} of {version.model}"
    require_complete(version)
    if version.archived:
        raise DataError(f"{name} is archived", "restore it first, or take another version")
    _check_safety(version, policy, name)
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
    return found


def _check_safety(version: Version, policy: Policy, name: str) -> None:
    def scan() -> Safety:
        raise DataError(
            f"the safety of {name} was judged by an older release's scanner, or never",
            "mirror its run again with --refuse-pickle, which scans it anew",
        )

    word = current_verdict(version, scan).word
    if word not in policy.safety:
        raise DataError(
            f"{name} is {word}, and accepted are {', '.join(policy.safety)}",
            "look at its safety.json; a policy accepts more with version.safety",
        )
