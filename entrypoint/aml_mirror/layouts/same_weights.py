"""Whether two checkpoints hold the same weights, whatever they are called."""

from __future__ import annotations

from aml_mirror.core.errors import MirrorError
from aml_mirror.layouts.base import Checkpoint
from aml_mirror.layouts.step_folders import same_file, same_files
from aml_mirror.layouts.torch_files import same_contents
from aml_mirror.sources.tree import Tree


def same_weights(run: Tree, one: Checkpoint, other: Checkpoint) -> bool:
    """Compare the weights of two checkpoints: small files whole, large ones by samples.

    What may not be read is not the same; whether such a checkpoint is taken is judged later.
    """
    if len(one.weights) != len(other.weights) or (one.path in one.weights) != (other.path in other.weights):
        return False
    try:
        if one.path not in one.weights:
            return same_files(run, one.weights, other.weights)
        pairs = zip(one.weights, other.weights, strict=True)
        return all(same_file(run, a, b) or same_contents(run, a, b) for a, b in pairs)
    except MirrorError:
        return False
