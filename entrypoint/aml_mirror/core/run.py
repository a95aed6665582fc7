"""A run and its checkpoints, as a layout describes them.

All paths are relative to the root of the run, with ``/``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
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


@dataclass(frozen=True, slots=True)
class Run:
    """What a layout says of one run."""

    checkpoints: Sequence[Checkpoint]
    """Newest first: what training ended with comes first, whatever its name. The best one is in ``best``."""
    best: Checkpoint | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    """Configuration of the training as nested dictionaries, flattened and masked later."""
    logs: Sequence[str] = ()
    """Scalar logs of the framework's own, read where no event file holds a point: paths of
    trainer_state.json, metrics.csv, …; aml_mirror.metrics.readers.log_formats tells them by their names."""
    warnings: Sequence[str] = ()
    undecided: str = ""
    """Why none of the checkpoints is the final one, where the ends of several trainings are side by side."""
    choices: Sequence[str] = ()
    """Paths of those of the checkpoints that may be the final one then; empty: all of them."""


@dataclass(slots=True)
class RunDraft:
    """A :class:`Run` that a layout fills while it reads; the fields are the same."""

    checkpoints: list[Checkpoint]
    best: Checkpoint | None = None
    params: dict[str, Any] = field(default_factory=dict)
    logs: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    undecided: str = ""
    choices: list[str] = field(default_factory=list)

    def finished(self) -> Run:
        """Return the run, which does not change any more."""
        return Run(
            tuple(self.checkpoints),
            self.best,
            MappingProxyType(self.params),
            tuple(self.logs),
            tuple(self.warnings),
            self.undecided,
            tuple(self.choices),
        )
