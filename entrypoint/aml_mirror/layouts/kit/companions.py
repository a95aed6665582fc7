"""Files outside a checkpoint that inference needs, and files that a checkpoint lacks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from aml_mirror.layouts.base import Checkpoint
from aml_mirror.sources.tree import Tree


def matching(run: Tree, patterns: Iterable[str]) -> list[str]:
    """Return the sorted paths of a run that match a pattern; ``*`` does not cross a ``/``."""
    wanted = [pattern.split("/") for pattern in patterns]
    return [path for path in run.files if any(_matches(path.split("/"), parts) for parts in wanted)]


def _matches(parts: list[str], pattern: list[str]) -> bool:
    return len(parts) == len(pattern) and all(map(fnmatchcase, parts, pattern))


def with_companions(
    run: Tree, checkpoints: Iterable[Checkpoint], patterns: Sequence[str]
) -> list[Checkpoint]:
    """Add the matching files of the run to each checkpoint."""
    added = matching(run, patterns)
    return [replace(item, files=tuple(sorted({*item.files, *added}))) for item in checkpoints]


def missing_companion(names: set[str], siblings: Sequence[set[str]]) -> str:
    """Return a name that every other checkpoint of a run has and this one lacks; empty: there is none.

    Args:
        names: the files of the checkpoint, below its folder.
        siblings: the same for all checkpoints of the run, including this one.
    """
    others = [other for other in siblings if other is not names]
    return min(set.intersection(*others) - names, default="") if others else ""
