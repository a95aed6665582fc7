"""The verdict on a version that may be trusted today: never one by an older scanner.

Whatever decides by a version's safety asks :func:`current_verdict`: ``--refuse-pickle``, ``pull``, and every
gate. A version keeps the verdict of its mirror as a property, which cannot change everywhere; what a newer
scanner says is a tag beside it. Neither is proof against a person who may write to the registry: whoever
needs that scans the bytes (:func:`aml_mirror.safety.verdict.inspect`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aml_mirror.registries import keys
from aml_mirror.registries.records import Version
from aml_mirror.safety.verdict import Safety
from aml_mirror.safety.words import FIRST_SCANNER, HARMLESS, SCANNER, current


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a scanner said of a version."""

    word: str
    """One of :mod:`aml_mirror.safety.words`; empty: no scanner ever looked."""
    scanner: str
    """The number of the scanner; empty: none looked."""
    safety: Safety | None = None
    """With each file and finding, where the bytes were scanned just now."""

    @property
    def is_current(self) -> bool:
        """Whether this release's scanner, or a newer one, gave it."""
        return self.scanner.isascii() and self.scanner.isdigit() and int(self.scanner) >= int(SCANNER)

    @property
    def is_harmless(self) -> bool:
        """Whether it is current and ``--refuse-pickle`` refuses nothing."""
        return self.is_current and self.word in HARMLESS

    @property
    def tags(self) -> dict[str, str]:
        """The tags that keep it beside the property."""
        return {keys.SAFETY_NOW: self.word, keys.SAFETY_NOW_SCANNER: self.scanner}


def recorded_verdict(version: Version) -> Verdict:
    """Return the newest verdict that a version has, in today's words, whichever scanner gave it."""
    tags = version.tags
    if keys.SAFETY_NOW in tags:
        return Verdict(current(tags[keys.SAFETY_NOW]), tags.get(keys.SAFETY_NOW_SCANNER, ""))
    if keys.SAFETY in tags:
        return Verdict(current(tags[keys.SAFETY]), tags.get(keys.SAFETY_SCANNER, FIRST_SCANNER))
    return Verdict("", "")


def current_verdict(
    version: Version,
    scan: Callable[[], Safety],
    keep: Callable[[Version, dict[str, str]], None] | None = None,
) -> Verdict:
    """Return a verdict of today's scanner: the recorded one, or else what a scan of the bytes says now.

    Args:
        version: with its tags.
        scan: looks into the version's files, as :func:`aml_mirror.safety.verdict.inspect` does; called only
            where the recorded verdict is missing or of an older scanner.
        keep: given the version and the tags that record a new verdict, for example
            :meth:`aml_mirror.registries.base.Registry.annotate`; None: nothing is recorded.

    Raises:
        MirrorError: whatever the scan or the registry raises.
    """
    recorded = recorded_verdict(version)
    if recorded.is_current:
        return recorded
    safety = scan()
    verdict = Verdict(safety.verdict, SCANNER, safety)
    if keep is not None:
        keep(version, verdict.tags)
    return verdict
