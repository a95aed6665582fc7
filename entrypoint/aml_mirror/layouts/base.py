"""What every layout answers: where its runs are, and what one run holds.

A layout decides by names, by small JSON and YAML files, and by ranged reads; it never unpickles. It says
what a checkpoint *would* be. Whether its bytes are whole is judged afterwards, in
:mod:`aml_mirror.pipeline.select`, the same way for all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from aml_mirror.core.errors import DataError
from aml_mirror.sources.tree import Tree

Role = Literal["final", "best", "periodic"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One saved policy of a run. All paths are relative to the run's root."""

    path: str
    """A directory where the layout has one, a file where it has a file; ``.`` is the run's root."""
    step: int | None
    role: Role
    """``final``: what training ended with. ``best``: kept for its score. ``periodic``: any other."""
    files: tuple[str, ...]
    """What inference needs: weights, configuration, processors, companions; sorted."""
    weights: tuple[str, ...]
    """Those of ``files`` that hold weights and are judged for completeness; at least one."""
    left_out: tuple[tuple[str, str], ...] = ()
    """(path, reason) of files that belong to the checkpoint but are not mirrored."""
    problem: str = ""
    """Why the layout itself holds the checkpoint to be incomplete; empty: it does not."""


@dataclass(slots=True)
class Run:
    """What a layout says of one run."""

    # Newest first: what training ended with comes first, whatever its name. Best ones stand in `best`.
    checkpoints: list[Checkpoint]
    best: Checkpoint | None = None
    # Configuration of the training as nested dictionaries, flattened and masked later.
    params: dict[str, Any] = field(default_factory=dict)
    # Scalar logs of the framework's own, read where no event file holds a point: paths of
    # trainer_state.json, metrics.csv, …; aml_mirror.metrics.readers.log_formats tells them by their names.
    logs: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    # Why none of the checkpoints is the final one, where several trainings' ends lie side by side.
    undecided: str = ""


class Layout(Protocol):
    """How one framework arranges a run."""

    @property
    def name(self) -> str:
        """What ``--framework`` calls it: lower case, digits and ``_``."""

    def find(self, tree: Tree) -> list[str]:
        """Return the root directories of this framework's runs in the tree, sorted (``""``: the tree).

        Only names and, where names are not enough, small reads. A directory is returned once, and never
        together with one of its parents.
        """

    def read(self, run: Tree) -> Run:
        """Describe the run whose root ``run`` is. ``checkpoints`` may be empty; damaged small files
        become warnings, not errors."""


@dataclass(frozen=True, slots=True)
class NamedStep:
    """A name and the number in it."""

    name: str
    step: int


def numbered(names: tuple[str, ...], pattern: re.Pattern[str]) -> list[NamedStep]:
    """Return the names that match (``step`` is the group's name), by step, largest first; ties by name."""
    found = [NamedStep(name, int(match["step"])) for name in names if (match := pattern.fullmatch(name))]
    return sorted(found, key=lambda item: (-item.step, item.name))


def quietly(read: Callable[[], Any], warnings: list[str], default: Any = None) -> Any:
    """Run a small read and turn its failure into a warning."""
    try:
        return read()
    except DataError as error:
        warnings.append(error.message)
        return default
