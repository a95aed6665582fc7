"""What the files of a checkpoint could do to whoever loads them, from ranged reads of their pickles alone.

Each file is looked into by :mod:`.files`. The verdict of a version is the worst of its files':

``pickle-suspicious``
    a pickle names something that is not known to be harmless, or cannot be read to its end: loading it may
    run code that the file's maker chose
``pickle-clean``
    there are pickles, and all that they name only builds tensors, arrays, containers and settings
``safetensors``
    no pickle, and all weights are safetensors
``no-pickle``
    no pickle, and weights in another format without code: Orbax, msgpack, ONNX
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from aml_mirror.core.errors import DataError
from aml_mirror.safety.file_scan import CLEAN, NO_PICKLE, SAFETENSORS, SUSPICIOUS, File, look
from aml_mirror.sources.tree import Tree

SCHEMA = "aml-mirror/safety/v1"
HARMLESS = frozenset({SAFETENSORS, CLEAN, NO_PICKLE})
MAX_SHOWN = 50  # names and problems a file in the artifact, with their count beside them


@dataclass(slots=True)
class Safety:
    """What the files of a checkpoint were found to be."""

    verdict: str
    files: list[File]

    @property
    def problems(self) -> Iterator[str]:
        """Each finding, with its file."""
        return (f"{file.path}: {problem}" for file in self.files for problem in file.problems)

    def as_dict(self) -> dict[str, Any]:
        """The artifact ``safety.json``."""
        return {
            "schema": SCHEMA,
            "safety": self.verdict,
            "files": [
                {
                    "path": file.path,
                    "safety": file.safety,
                    "pickles": file.pickles,
                    "imports": file.names[:MAX_SHOWN],
                    "imports_count": file.names_count,
                    "findings": file.problems[:MAX_SHOWN],
                    "findings_count": len(file.problems),
                }
                for file in self.files
            ],
        }

    def as_json(self) -> str:
        """The same as text."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n"


def inspect(tree: Tree, files: Iterable[str], weights: Iterable[str]) -> Safety:
    """Look into the files of a checkpoint.

    Args:
        tree: the run.
        files: all files that a version will hold.
        weights: those of them that hold weights.

    Raises:
        DataError: a file changed while it was read.
        NotAllowed: one may not be read.
    """
    found = [look(tree, path) for path in files]
    verdicts = {file.safety for file in found}
    if SUSPICIOUS in verdicts:
        verdict = SUSPICIOUS
    elif CLEAN in verdicts:
        verdict = CLEAN
    else:
        kinds = {file.path: file.safety for file in found}
        verdict = SAFETENSORS if all(kinds.get(path) == SAFETENSORS for path in weights) else NO_PICKLE
    return Safety(verdict, found)


def require_harmless(safety: Safety, checkpoint: str) -> None:
    """Refuse a suspicious checkpoint, as ``--refuse-pickle`` asks.

    Raises:
        DataError: naming the first finding.
    """
    if safety.verdict == SUSPICIOUS:
        found = list(safety.problems)
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise DataError(
            f"the checkpoint {checkpoint} is {SUSPICIOUS}: {found[0]}{more}",
            "look at 'aml-mirror plan --json'; leave out --refuse-pickle if you trust who made it",
        )
