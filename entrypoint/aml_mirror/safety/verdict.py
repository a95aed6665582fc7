"""Finds what the files of a checkpoint could do when they are loaded, with ranged reads alone.

:mod:`.file_scan` examines each file. The verdict of a version is the worst one of its files; :mod:`.words`
lists the words. A person may accept certain files (``--allow``). Then the verdict stays the same, and the
reason is stored beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from aml_mirror.core.errors import DataError
from aml_mirror.safety.file_scan import File, scan_file
from aml_mirror.safety.words import CODE, HARMLESS, NO_CODE, SAFETENSORS, SCANNER, SUSPICIOUS, UNKNOWN, WORST
from aml_mirror.sources.tree import Tree

SCHEMA = "aml-mirror/safety/v1"
MAX_SHOWN = 50  # The most names and problems per file in the artifact. Their count is beside them.


@dataclass(frozen=True, slots=True)
class Safety:
    """The result for the files of a checkpoint."""

    verdict: str
    files: tuple[File, ...]

    @property
    def problems(self) -> Iterator[str]:
        """Each finding with its file, the worst first."""
        for word in (SUSPICIOUS, CODE, UNKNOWN):
            for file in self.files:
                if file.safety == word:
                    yield from (f"{file.path}: {problem}" for problem in file.problems)

    @property
    def refused(self) -> list[File]:
        """The files that ``--refuse-pickle`` refuses, the worst first."""
        return sorted(
            (file for file in self.files if file.safety not in HARMLESS and not file.allowed),
            key=lambda file: WORST.index(file.safety),
        )

    @property
    def allowed(self) -> list[dict[str, str]]:
        """The files that a person accepts whatever was found, with the verdict and the reason."""
        return [
            {"path": file.path, "safety": file.safety, "reason": file.allowed}
            for file in self.files
            if file.allowed
        ]

    def as_dict(self) -> dict[str, Any]:
        """The artifact ``safety.json``."""
        return {
            "schema": SCHEMA,
            "safety": self.verdict,
            "scanner": SCANNER,
            "allowed": self.allowed,
            "files": [
                {
                    "path": file.path,
                    "safety": file.safety,
                    "pickles": file.pickles,
                    "imports": list(file.names[:MAX_SHOWN]),
                    "imports_count": file.names_count,
                    "findings": list(file.problems[:MAX_SHOWN]),
                    "findings_count": len(file.problems),
                }
                for file in self.files
            ],
        }

    def as_json(self) -> str:
        """Return the result as text."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n"


def inspect(
    tree: Tree, files: Iterable[str], weights: Iterable[str], allow: Iterable[tuple[str, str]] = ()
) -> Safety:
    """Examine the files of a checkpoint.

    Args:
        tree: the run.
        files: all files of the version.
        weights: those that contain weights.
        allow: (pattern, reason) of files that a person accepts. A pattern matches a path or a name.

    Raises:
        DataError: a file changed while it was read.
        NotAllowed: access to one is denied.
    """
    accepted = list(allow)
    judged = tuple(_accepted(scan_file(tree, path), accepted) for path in files)
    words = {file.safety for file in judged}
    verdict = next((word for word in WORST if word in words), "")
    if not verdict:
        kinds = {file.path: file.safety for file in judged}
        verdict = SAFETENSORS if all(kinds.get(path) == SAFETENSORS for path in weights) else NO_CODE
    return Safety(verdict, judged)


def _accepted(file: File, accepted: list[tuple[str, str]]) -> File:
    """Record the reason why a person accepts a file."""
    if file.safety in HARMLESS:
        return file
    forms = (file.path, file.path.rpartition("/")[2])
    for pattern, reason in accepted:
        if any(fnmatchcase(form, pattern) for form in forms):
            return replace(file, allowed=reason)
    return file


def require_harmless(safety: Safety, checkpoint: str) -> None:
    """Refuse files that may run code or are unknown, for ``--refuse-pickle``.

    Raises:
        DataError: with the worst file, the first finding, and how it could be accepted.
    """
    refused = safety.refused
    if not refused:
        return
    file = refused[0]
    count = sum(len(item.problems) for item in refused)
    more = f" (and {count - 1} more)" if count > 1 else ""
    raise DataError(
        f"the checkpoint {checkpoint} is {file.safety}: {file.path}: {file.problems[0]}{more}",
        "look at 'aml-mirror plan --json'; to accept the file, pass "
        f"--allow '{file.path}=REASON', or omit --refuse-pickle",
    )
