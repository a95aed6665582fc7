"""Finds the current safety verdict on a version, never one by an older scanner.

Everything that depends on a version's safety calls :func:`current_verdict`: ``--refuse-pickle``, ``pull``,
and every gate. A version has the verdict of its mirror as a property, which some registries cannot change. A
newer scanner's verdict is a tag beside it. Neither protects against a person who may write to the registry.
If that is needed, the bytes must be scanned (:func:`aml_mirror.safety.verdict.inspect`).
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
    """A scanner's verdict on a version."""

    word: str
    """One of :mod:`aml_mirror.safety.words`; empty: it was never scanned."""
    scanner: str
    """The number of the scanner; empty: it was never scanned."""
    safety: Safety | None = None
    """With each file and finding, if the bytes were just scanned."""

    @property
    def is_current(self) -> bool:
        """Whether it comes from this release's scanner or a newer one."""
        return self.scanner.isascii() and self.scanner.isdigit() and int(self.scanner) >= int(SCANNER)

    @property
    def is_harmless(self) -> bool:
        """Whether it is current and ``--refuse-pickle`` refuses nothing."""
        return self.is_current and self.word in HARMLESS

    @property
    def tags(self) -> dict[str, str]:
        """The tags that store it beside the property."""
        return {keys.SAFETY_NOW: self.word, keys.SAFETY_NOW_SCANNER: self.scanner}


def recorded_verdict(version: Version) -> Verdict:
    """Return the newest verdict of a version, in current words, from any scanner."""
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
    """Return a verdict of the current scanner: the recorded one, or the result of scanning the bytes now.

    Args:
        version: with its tags.
        scan: examines the version's files, like :func:`aml_mirror.safety.verdict.inspect`. It is called only
            if the recorded verdict is missing or comes from an older scanner.
        keep: receives the version and the tags that record a new verdict, for example
            :meth:`aml_mirror.registries.base.Registry.annotate`; None: nothing is recorded.

    Raises:
        MirrorError: the errors of the scan or the registry.
    """
    recorded = recorded_verdict(version)
    if recorded.is_current:
        return recorded
    safety = scan()
    verdict = Verdict(safety.verdict, SCANNER, safety)
    if keep is not None:
        keep(version, verdict.tags)
    return verdict
