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
    """A directory if the layout saves directories, a file if it saves files; ``.`` is the run's root."""
    step: int | None
    role: Role
    """``final``: the end of the training. ``best``: kept for its score. ``periodic``: any other. ``unknown``:
    no name says when or why it was saved.
    """
    files: tuple[str, ...]
    """The files for inference: weights, configuration, processors, companions; sorted."""
    weights: tuple[str, ...]
    """Those of ``files`` that contain weights and are checked for completeness; at least one."""
    left_out: tuple[tuple[str, str], ...] = ()
    """(path, reason) of files that belong to the checkpoint but are not mirrored."""
    problem: str = ""
    """Why the layout itself considers the checkpoint incomplete; empty: it does not."""
    base_model: str = ""
    """The base model of an adapter, as its training named it; empty: not an adapter."""


@dataclass(frozen=True, slots=True)
class Run:
    """A layout's description of one run."""

    checkpoints: Sequence[Checkpoint]
    """Newest first: the final one comes first, whatever its name is. The best one is in ``best``."""
    best: Checkpoint | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    """The configuration of the training as nested dictionaries, which are flattened and masked later."""
    logs: Sequence[str] = ()
    """The framework's own scalar logs, read if no event file has points: paths of trainer_state.json,
    metrics.csv, …; aml_mirror.metrics.readers.log_formats recognises them by their names."""
    warnings: Sequence[str] = ()
    undecided: str = ""
    """Why none of the checkpoints is the final one, if the ends of several trainings are side by side."""
    choices: Sequence[str] = ()
    """The paths of the checkpoints that may be the final one in that case; empty: all of them."""


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
        """Return the run, which no longer changes."""
        return Run(
            tuple(self.checkpoints),
            self.best,
            MappingProxyType(self.params),
            tuple(self.logs),
            tuple(self.warnings),
            self.undecided,
            tuple(self.choices),
        )
