"""Files in which a training script records the checkpoint that it saved last.

They are written after the checkpoint is complete, so a checkpoint above the recorded one was still being
saved. A training saves one checkpoint at a time. If several are above the recorded one, the record is
outdated (for example, an upload that overwrote nothing). A single one above it is skipped, with a warning.

- ``latest_checkpoint.txt``: imaginaire, of Cosmos and Cosmos Policy (``_write_latest_checkpoint_file``)
- ``latest_checkpointed_iteration.txt``: Megatron-LM, verl
- ``last_checkpoint``: detectron2 and fvcore
- ``latest``: DeepSpeed; ``latest_iteration.txt``, ``latest.txt`` of many scripts
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from aml_mirror.core.errors import MirrorError
from aml_mirror.layouts.base import Checkpoint, RunDraft
from aml_mirror.layouts.generic.name_words import stem_of
from aml_mirror.layouts.step_folders import names_in
from aml_mirror.sources.tree import Tree, join, parent

_NAMES = (
    "latest_checkpoint.txt",
    "latest_checkpointed_iteration.txt",
    "latest_iteration.txt",
    "latest.txt",
    "last_checkpoint",
    "last_checkpoint.txt",
    "latest",
)
_MAX_BYTES = 256


def follow_pointer(run: Tree, result: RunDraft) -> None:
    """Mark the numbered checkpoint above the recorded one. Warn if the record is outdated.

    Args:
        run: the run.
        result: what is known about it: its checkpoints, newest first.
    """
    if result.undecided or not result.checkpoints:
        return
    for folder in dict.fromkeys(
        (parent(result.checkpoints[0].path), parent(parent(result.checkpoints[0].path)))
    ):
        for name in _NAMES:
            path = join(folder, name)
            if name in names_in(run, folder) and (at := _named_in(run, path, result.checkpoints)) is not None:
                _mark(result, path, at)
                return


def order_pointed(found: Iterable[Checkpoint], warnings: list[str]) -> list[Checkpoint]:
    """Sort folders that are named after the time of their save, if a file ``latest`` names one of them.

    Args:
        found: the folders. The first one is named by ``latest``.
        warnings: a warning about an outdated ``latest`` is added here.
    """
    pointed = list(found)
    if not pointed:
        return []
    named, *others = pointed
    newer = sorted((item for item in others if item.path > named.path), key=lambda item: item.path)
    if len(newer) == 1:
        problem = f"it was still being saved: latest names {named.path}"
        return [replace(newer[0], problem=newer[0].problem or problem), named, *_without(newer, others)]
    if newer:
        warnings.append(
            f"latest names {named.path}, but there are {len(newer)} newer ones, so it is outdated and was "
            "not used"
        )
    return [*reversed(newer), named, *_without(newer, others)]


def _without(left: list[Checkpoint], found: list[Checkpoint]) -> list[Checkpoint]:
    return [item for item in found if item not in left]


def _named_in(run: Tree, path: str, checkpoints: list[Checkpoint]) -> int | None:
    """Return the index of the checkpoint that a file names by name or number; None: it names none."""
    if run.size(path) > _MAX_BYTES:
        return None
    try:
        said = run.read_text(path).strip()
    except MirrorError:
        return None
    name = re.split(r"[/\\]", said.rstrip("/\\"))[-1] if said else ""
    for at, item in enumerate(checkpoints):
        own = item.path.rpartition("/")[2]
        if name and name in (own, stem_of(own)):
            return at
        if said.isdecimal() and len(said) <= 18 and item.step == int(said):
            return at
    return None


def _mark(result: RunDraft, path: str, at: int) -> None:
    above = [item for item in result.checkpoints[:at] if not item.problem]
    if len(above) == 1:
        newest = above[0]
        problem = f"it was still being saved: {path} names {result.checkpoints[at].path}"
        result.checkpoints = [
            replace(item, problem=problem) if item is newest else item for item in result.checkpoints
        ]
    elif above:
        result.warnings.append(
            f"{path} names {result.checkpoints[at].path}, but {len(above)} newer ones exist: the file is "
            "outdated and was not used"
        )
