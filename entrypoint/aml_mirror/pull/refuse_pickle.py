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
    UNKNOWN: "it is not known what code loading it runs",
}


def require_recorded_harmless(version: Version) -> None:
    """Refuse, before a byte is read, what a current scanner has already refused.

    Raises:
        DataError: loading the version may run code.
    """
    verdict = recorded_verdict(version)
    if verdict.is_current:
        _require(version, verdict.word)


def require_harmless(
    version: Version, folder: Path, paths: Sequence[str], allow: Sequence[tuple[str, str]]
) -> None:
    """Check with the current scanner that loading the files runs no code.

    Args:
        version: with its tags.
        folder: where its files are.
        paths: the files, below the folder.
        allow: (pattern, reason) of files that a person accepts (``--allow``).

    Raises:
        DataError: it may run code, or that is unknown.
    """
    # Imported late: nothing else needs the scanner.
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
            "omit --refuse-pickle to pull it anyway",
        )
