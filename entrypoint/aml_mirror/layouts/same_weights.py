"""Tells whether two checkpoints hold the same weights, whatever their names are."""

from __future__ import annotations

import json
import struct
from collections import Counter

from aml_mirror.core.errors import MirrorError
from aml_mirror.layouts.base import Checkpoint
from aml_mirror.layouts.step_folders import same_file, same_files, same_range
from aml_mirror.layouts.torch_files import archive_of, same_contents
from aml_mirror.sources.tree import Tree

# The header of a model with 10^5 tensors has a few MB.
_MAX_HEADER = 64 << 20
# Counters, and the states of torch's random generators on CPU and GPU. They are not weights, and two files
# saved at the same moment differ in them.
_NO_WEIGHTS = frozenset({*range(9), 16, 5056})  # bytes


def same_weights(run: Tree, one: Checkpoint, other: Checkpoint) -> bool:
    """Compare the weights of two checkpoints: small files completely, large ones by samples.

    Files that may not be read count as different. Whether such a checkpoint is accepted is decided later.
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


def is_copy(run: Tree, one: Checkpoint, other: Checkpoint) -> bool:
    """Tell whether the first contains only weights of the second: the same, or without the optimizer."""
    if same_weights(run, one, other):
        return True
    if len(one.weights) != 1 or len(other.weights) != 1:
        return False
    ours, theirs = _torch_tensors(run, one.weights[0]), _torch_tensors(run, other.weights[0])
    if not ours or not theirs:
        return False
    return all(theirs.get(key, 0) >= count for key, count in ours.items())


def have_other_weights(run: Tree, one: Checkpoint, other: Checkpoint) -> bool:
    """Tell whether two checkpoints of one model are known to hold different weights.

    If nothing can be compared, nothing is known, and this returns False: another number of shards, another
    precision, an adapter and its merged model, a truncated file.
    """
    try:
        if same_weights(run, one, other):
            return False
        ones, others = _by_name(one), _by_name(other)
        # Averaged weights may be stored with only one of them.
        if not (ones.keys() <= others.keys() or others.keys() <= ones.keys()):
            return False
        return any(_file_differs(run, ones[name], others[name]) for name in ones.keys() & others.keys())
    except (MirrorError, KeyError):
        return False


def _by_name(checkpoint: Checkpoint) -> dict[str, str]:
    if checkpoint.path in checkpoint.weights:
        return {"": checkpoint.path}
    start = 0 if checkpoint.path == "." else len(checkpoint.path) + 1
    return {path[start:]: path for path in checkpoint.weights}


def _file_differs(run: Tree, one: str, other: str) -> bool:
    if one.endswith(".safetensors") and other.endswith(".safetensors"):
        return _safetensors_differ(run, one, other)
    ours, theirs = _torch_tensors(run, one), _torch_tensors(run, other)
    if ours is not None and theirs is not None:
        # One may have been saved without the state of the optimizer.
        fewer, more = sorted((ours, theirs), key=lambda found: sum(found.values()))
        sizes = _sizes(fewer), _sizes(more)
        if any(sizes[1].get(size, 0) < count for size, count in sizes[0].items()):
            return False
        return any(more.get(key, 0) < count for key, count in fewer.items())
    return run.size(one) == run.size(other) > 0 and not same_file(run, one, other)


def _torch_tensors(run: Tree, path: str) -> dict[tuple[int, int], int] | None:
    """Count the tensors in a torch.save file by size and CRC-32; None: the file is not complete.

    Stable-Baselines3 stores its policy's file inside its zip.
    """
    archive = archive_of(run, path)
    if archive is None:
        return None
    tensors = [
        (member.bytes, member.crc)
        for name, member in archive.members.items()
        if "/data/" in f"/{name}" or name.endswith("policy.pth")
    ]
    weights = [item for item in tensors if item[0] not in _NO_WEIGHTS]
    return dict(Counter(weights or tensors)) or None


def _sizes(tensors: dict[tuple[int, int], int]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for (size, _), count in tensors.items():
        counts[size] = counts.get(size, 0) + count
    return counts


def _safetensors_differ(run: Tree, one: str, other: str) -> bool:
    ours, theirs = _safetensors_header(run, one), _safetensors_header(run, other)
    if ours is None or theirs is None or ours[0] != theirs[0]:
        return False
    size = run.size(one) - ours[1]
    return size == run.size(other) - theirs[1] and not same_range(run, one, other, size, ours[1], theirs[1])


def _safetensors_header(run: Tree, path: str) -> tuple[object, int] | None:
    """Return the tensors in the header of a safetensors file, and where their bytes begin."""
    head = run.read(path, 0, 8)
    if len(head) < 8 or not 0 < (length := struct.unpack("<Q", head)[0]) <= _MAX_HEADER:
        return None
    try:
        header = json.loads(run.read(path, 8, length))
    except ValueError:
        return None
    if not isinstance(header, dict):
        return None
    header.pop("__metadata__", None)
    return header, 8 + length
