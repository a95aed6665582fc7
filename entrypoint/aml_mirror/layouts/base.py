"""The interface of a layout: where its runs are, and what one run contains.

A layout decides by names, small JSON and YAML files, and ranged reads. It never unpickles. It says what a
checkpoint *would* be. :mod:`aml_mirror.pipeline.select` checks afterwards whether its bytes are complete, in
the same way for all layouts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from aml_mirror.core.errors import DataError
from aml_mirror.core.run import Checkpoint, Role, Run, RunDraft
from aml_mirror.sources.tree import Tree

__all__ = ["Checkpoint", "Layout", "NamedStep", "Role", "Run", "RunDraft", "numbered", "quietly"]


class Layout(Protocol):
    """How one framework arranges a run."""

    @property
    def name(self) -> str:
        """The name for ``--framework``: lower case, digits and ``_``."""

    def find(self, tree: Tree) -> list[str]:
        """Return the root directories of this framework's runs in the tree, sorted (``""``: the tree itself).

        This uses only names and, if names are not enough, small reads. It returns each directory once, and
        never together with one of its parents.
        """

    def read(self, run: Tree) -> RunDraft:
        """Describe the run whose root is ``run``.

        ``checkpoints`` may be empty. Damaged small files become warnings, not errors.
        """


@dataclass(frozen=True, slots=True)
class NamedStep:
    """A name and the number that it contains."""

    name: str
    step: int


def numbered(names: tuple[str, ...], pattern: re.Pattern[str]) -> list[NamedStep]:
    """Return the names that match, sorted by the group ``step``, largest first, ties by name."""
    found = [NamedStep(name, int(match["step"])) for name in names if (match := pattern.fullmatch(name))]
    return sorted(found, key=lambda item: (-item.step, item.name))


def quietly(read: Callable[[], Any], warnings: list[str], default: Any = None) -> Any:
    """Run a small read, and turn a failure into a warning."""
    try:
        return read()
    except DataError as error:
        warnings.append(error.message)
        return default
