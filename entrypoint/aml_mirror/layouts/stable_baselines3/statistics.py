"""Finds the VecNormalize pickle that belongs to a policy of Stable-Baselines3.

``CheckpointCallback`` saves ``PREFIX_vecnormalize_N_steps.pkl`` with each policy. Scripts save one beside
their own file under a similar name, or one for the whole run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from aml_mirror.core.errors import MirrorError
from aml_mirror.sources.tree import Tree, parent

STEPS = re.compile(r"(?P<prefix>.+)_(?P<step>\d{1,18})_steps")
BEST = re.compile(r"(^|[^a-z])best([^a-z]|$)", re.IGNORECASE)
REPLAY = re.compile(r"replay_?buffer", re.IGNORECASE)
_VECNORMALIZE = re.compile(r"vec_?norm(alize)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Statistics:
    """A VecNormalize pickle. ``step`` is set only if its name contains one."""

    path: str
    step: int | None

    @property
    def stem(self) -> str:
        return self.path.rpartition("/")[2].rpartition(".")[0]


def statistics_of(run: Tree) -> list[Statistics]:
    """Find the VecNormalize pickles of a run."""
    found = []
    for path in run.files:
        name = path.rpartition("/")[2]
        if not name.endswith((".pkl", ".pickle")) or REPLAY.search(name):
            continue
        if _VECNORMALIZE.search(name) or _holds_statistics(run, path):
            match = re.search(r"_(?P<step>\d{1,18})_steps$", name.rpartition(".")[0])
            found.append(Statistics(path, int(match["step"]) if match else None))
    return found


def _holds_statistics(run: Tree, path: str) -> bool:
    # The pickled object's class comes first in the file (VecNormalize.save).
    try:
        return b"vec_normalize" in run.read(path, 0, 128)
    except MirrorError:
        return False


def of_periodic(path: str, statistics: list[Statistics]) -> tuple[Statistics | None, str]:
    """Return the statistics that CheckpointCallback saved with a policy, or why the two are incomplete."""
    match = STEPS.fullmatch(_stem(path))
    if match is None:
        return None, ""
    folder, step = parent(path), int(match["step"])
    numbered = [other for other in statistics if other.step is not None and parent(other.path) == folder]
    own = [other for other in numbered if other.stem.startswith(match["prefix"])] or numbered
    for other in own:
        if other.step == step:
            return other, ""
    if own:
        return None, f"its VecNormalize statistics are missing; {own[0].path} has its own"
    return None, ""


def of_end(path: str, statistics: list[Statistics]) -> Statistics | None:
    """Return the statistics that were saved together with a script's own file."""
    folder = parent(path)
    plain = [other for other in statistics if other.step is None and not BEST.search(other.stem)]

    def closeness(other: Statistics) -> tuple[bool, bool, bool, int, str]:
        return (
            _stem(path).removesuffix("_model") not in other.path[len(folder) :],
            parent(other.path) != folder,
            _VECNORMALIZE.search(other.stem) is None,
            other.path.count("/"),
            other.path,
        )

    return min(plain, key=closeness, default=None)


def nearest(step: int | None, statistics: list[Statistics]) -> Statistics | None:
    """Return the statistics of the nearest step, if none were saved together with a policy."""
    numbered = [item for item in statistics if item.step is not None]
    if step is None or not numbered:
        plain = [item for item in statistics if item.step is None]
        return min(plain, key=lambda item: (BEST.search(item.stem) is not None, item.path), default=None)
    return min(numbered, key=lambda item: (abs((item.step or 0) - step), item.path))


def of_best(path: str, step: int | None, statistics: list[Statistics]) -> tuple[Statistics | None, bool]:
    """Return the statistics for the best policy, and whether they belong to its own step."""
    own = [other for other in statistics if BEST.search(other.stem)]
    folder = parent(path)
    if not own and folder and folder.rpartition("/")[2].lower().startswith("best"):
        own = [other for other in statistics if parent(other.path) == folder and other.step is None]
    if not own and step is not None:
        own = [other for other in statistics if other.step == step]
    if own:
        return own[0], True
    plain = [other for other in statistics if other.step is None]
    other = min(plain, key=lambda other: other.path.count("/"), default=None)
    return other or nearest(step, statistics), False


def _stem(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[0]
