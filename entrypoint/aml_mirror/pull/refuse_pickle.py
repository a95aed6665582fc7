"""``pull --refuse-pickle``: no version whose loading runs, or may run, code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aml_mirror.core.errors import DataError
from aml_mirror.pipeline.current_verdict import current_verdict, recorded_verdict
from aml_mirror.registries.records import Version
from aml_mirror.safety.words import CODE, SUSPICIOUS, UNKNOWN

REFUSED = {
    CODE: "loading it runs code that is in it",
    SUSPICIOUS: "loading it may run code that nobody expects in a policy",
    UNKNOWN: "what loading it runs is not known",
}


def require_recorded_harmless(version: Version) -> None:
    """Refuse, before a byte is read, what a scanner of today refused already.

    Raises:
        DataError: loading the version may run code.
    """
    verdict = recorded_verdict(version)
    if verdict.is_current:
        _require(version, verdict.word)


def require_harmless(
    version: Version, folder: Path, paths: Sequence[str], allow: Sequence[tuple[str, str]]
) -> None:
    """Check that loading the files runs no code, by today's scanner.

    Args:
        version: with its tags.
        folder: where its files are.
        paths: the files, below the folder.
        allow: (pattern, reason) of files that a person accepts (``--allow``).

    Raises:
        DataError: it may, or that is unknown.
    """
    # Late: the scanner is needed for nothing else.
    from aml_mirror.safety.verdict import Safety, inspect
    from aml_mirror.sources.local import LocalSource
    from aml_mirror.sources.tree import Tree

    def scan() -> Safety:
        source = LocalSource(folder)
        return inspect(Tree(source, source.scan()), tuple(paths), tuple(paths), tuple(allow))

    _require(version, current_verdict(version, scan).word)


def _require(version: Version, word: str) -> None:
    if word in REFUSED:
        raise DataError(
            f"version {version.number} of {version.model} is refused: {REFUSED[word]} (safety: {word})",
            "leave out --refuse-pickle to pull it anyway",
        )
