"""A run and its checkpoints, as a layout describes them.

All paths are relative to the root of the run, with ``/``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["final", "best", "periodic", "unknown"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One saved policy of a run. All paths are relative to the run's root."""

    path: str
    """A directory where the layout has one, a file where it has a file; ``.`` is the run's root."""
    step: int | None
    role: Role
    """``final``: what training ended with. ``best``: kept for its score. ``periodic``: any other.
    ``unknown``: no name tells when or why it was saved."""
    files: tuple[str, ...]
    """What inference needs: weights, configuration, processors, companions; sorted."""
    weights: tuple[str, ...]
    """Those of ``files`` that hold weights and are judged for completeness; at least one."""
    left_out: tuple[tuple[str, str], ...] = ()
    """(path, reason) of files that belong to the checkpoint but are not mirrored."""
    problem: str = ""
    """Why the layout itself holds the checkpoint to be incomplete; empty: it does not."""
    base_model: str = ""
    """The model that the checkpoint is an adapter of, as its training named it; empty: it is whole."""


@dataclass(slots=True)
class Run:
    """What a layout says of one run. The layout fills it while it reads; nobody changes it afterwards."""

    # Newest first: what training ended with comes first, whatever its name. The best one is in `best`.
    checkpoints: list[Checkpoint]
    best: Checkpoint | None = None
    # Configuration of the training as nested dictionaries, flattened and masked later.
    params: dict[str, Any] = field(default_factory=dict)
    # Scalar logs of the framework's own, read where no event file holds a point: paths of
    # trainer_state.json, metrics.csv, …; aml_mirror.metrics.readers.log_formats tells them by their names.
    logs: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    # Why none of the checkpoints is the final one, where the ends of several trainings are side by side.
    undecided: str = ""
    # Paths of those of the checkpoints that may be the final one then; empty: all of them.
    choices: list[str] = field(default_factory=list)
