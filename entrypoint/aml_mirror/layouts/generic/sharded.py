"""Checkpoints in parts: which files of a folder hold the weights, and which of them are missing.

Facts about DeepSpeed (``runtime/engine.py``, ``utils/zero_to_fp32.py``): ``*_optim_states.pt`` hold the
weights in 32 bits, one part per rank. ``*_model_states.pt`` hold them in 16 bits with ZeRO 1 and 2. With ZeRO
3 their names contain a rank too, and they hold no weights. zero_to_fp32.py builds the model from both.
"""

from __future__ import annotations

import re

from aml_mirror.formats.ocdbt import store_problem
from aml_mirror.layouts.step_folders import shard_problem
from aml_mirror.sources.tree import Tree, join, parent

_ZERO = re.compile(r"(?:.*/)?[^/]*_(?P<what>model|optim)_states\.pt")
_ZERO_RANK = re.compile(r"(?P<before>.*zero_pp_rank_)(?P<rank>[0-9]{1,4})(?P<after>_.*_states\.pt)")
# verl (utils/checkpoint/fsdp_checkpoint_manager.py) gives each rank's file this name.
_RANK = re.compile(
    r"(?P<before>.*_world_size_(?P<count>[0-9]{1,4})_rank_)(?P<rank>[0-9]{1,4})(?P<after>\.pt)"
)


def is_zero(path: str, what: str = "") -> bool:
    """Tell whether a file is DeepSpeed's. ``what`` is ``model`` or ``optim``; empty: either."""
    match = _ZERO.fullmatch(path)
    return match is not None and what in ("", match["what"])


def stores_of(files: list[str]) -> list[str]:
    """Return the folders of the Orbax stores that some files belong to."""
    return [parent(file) for file in files if file.endswith("/manifest.ocdbt")]


def parts_problem(run: Tree, files: list[str], prefix: str) -> str:
    """Say which part of a checkpoint's files is missing or truncated; empty: none."""
    for folder in sorted({parent(file) for file in files}):
        if why := shard_problem(run, folder):
            return why
    for store in stores_of(files):
        # Each process has its own store inside. The outer store names them.
        if "/ocdbt.process_" not in store and (why := store_problem(run, store)):
            return f"{store.removeprefix(prefix)}: {why}"
    for folder in sorted({parent(file) for file in files if file.endswith(".distcp")}):
        if join(folder, ".metadata") not in files:
            return f"the shards in {folder} lack .metadata, which is written last"
    return _rank_problem(set(files))


def _rank_problem(files: set[str]) -> str:
    for path in sorted(files):
        if match := _RANK.fullmatch(path):
            needed = {match["before"] + str(rank) + match["after"] for rank in range(int(match["count"]))}
        elif match := _ZERO_RANK.fullmatch(path):
            before = (match["before"] + str(rank) for rank in range(int(match["rank"])))
            needed = {start + match["after"] for start in before}
            if path.endswith("_model_states.pt"):
                optim = path.removesuffix("model_states.pt") + "optim_states.pt"
                folder, _, name = optim.rpartition("/")
                if optim not in files and f"{folder}/bf16_{name}" not in files:
                    return f"{name}, which holds the weights of its rank, is missing"
        else:
            continue
        if missing := sorted(needed - files):
            return f"{missing[0].rpartition('/')[2]}, the part of another rank, is missing"
    return ""
