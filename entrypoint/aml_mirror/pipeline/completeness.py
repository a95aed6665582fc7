"""Checks whether the bytes of a checkpoint are complete, by its files' formats, without unpickling.

Each module of :mod:`aml_mirror.formats` checks its own format. Only some kilobytes of the large files are
read.
"""

from __future__ import annotations

from contextlib import suppress

from aml_mirror.core.errors import DataError, Unreadable
from aml_mirror.core.run import Checkpoint
from aml_mirror.formats.registry import problem_of
from aml_mirror.sources.tree import Tree


def judge(tree: Tree, checkpoint: Checkpoint) -> str:
    """Return why a checkpoint is not complete; empty: it is complete.

    Raises:
        NotAllowed: access to one of its files is denied.
        Unreadable: one of its files cannot be read: it is archived, encrypted with its writer's key, or was
            changed or deleted since it was listed.
    """
    for path in checkpoint.files:
        with suppress(KeyError):
            tree.require_readable(path)
    for path in checkpoint.files:
        if leftover := tree.leftover_of(path):
            return f"{path}: its copy was interrupted, and only {leftover} exists"
    if checkpoint.problem:
        return checkpoint.problem
    if not checkpoint.weights:
        return "it holds no weights"
    for path in checkpoint.files:
        with suppress(KeyError):
            if known := tree.entry(path).incomplete:
                return f"{path}: {known}"
        try:
            why = problem_of(tree, path, path in checkpoint.weights)
        except Unreadable:
            raise
        except DataError as error:
            return error.message
        except KeyError:
            return f"{path} is missing"
        if why:
            return f"{path}: {why}"
    return ""
