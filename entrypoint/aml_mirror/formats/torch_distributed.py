"""Distributed checkpoints of torch: many saved tensors in each ``.distcp``, their places in ``.metadata``.

``.metadata`` is a pickle of torch.distributed.checkpoint.metadata.Metadata, whose storage data contains the
file, the offset and the length of every saved item (torch/distributed/checkpoint/filesystem.py,
``_StorageInfo``; the same from torch 2.0 to 2.13).
"""

from __future__ import annotations

from aml_mirror.formats.archives import MAX_PICKLE_BYTES
from aml_mirror.formats.base import Format, FormatFile, Kind, Weights
from aml_mirror.formats.pickle_values import pickled_pairs
from aml_mirror.sources.tree import Tree, join, parent

METADATA = ".metadata"
_KEYS = frozenset({"relative_path", "offset", "length"})


def items_in(tree: Tree, path: str) -> list[tuple[int, int]]:
    """List (offset, length) of the items of a ``.distcp`` file according to ``.metadata``, sorted.

    Empty if there is no ``.metadata``, or if it does not mention the file.
    """
    folder, name = parent(path), path.rpartition("/")[2]
    metadata = join(folder, METADATA)
    if not tree.has(tree.resolve(metadata)) or tree.size(metadata) > MAX_PICKLE_BYTES:
        return []
    places: list[tuple[int, int]] = []
    here, offset = False, 0
    pairs = pickled_pairs(tree.read(metadata, 0, tree.size(metadata)), _KEYS, limit=1_000_000)
    for key, value in pairs:
        if key == "relative_path":
            here, offset = value == name, -1
        elif key == "offset":
            offset = value if isinstance(value, int) else -1
        elif here and offset >= 0 and isinstance(value, int) and value >= 0:
            places.append((offset, value))
            here = False
    return sorted(set(places))


def _problem(file: FormatFile) -> str:
    end = max((offset + length for offset, length in items_in(file.tree, file.path)), default=0)
    return "" if file.size >= end else f"it has {file.size} bytes, but .metadata says {end}"


DISTCP = Format("torch distributed checkpoint", (".distcp",), Kind.PICKLE, Weights.ALWAYS, _problem)
DISTCP_METADATA = Format("metadata of a torch distributed checkpoint", (METADATA,), Kind.PICKLE)
