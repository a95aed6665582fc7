"""What Weights & Biases keeps beside or inside a run: links to the run's files, and copies of them.

``wandb.save`` and ``sync_tensorboard`` put what they upload into ``wandb/run-<time>-<id>/files/`` (offline:
``wandb/offline-run-…``), including checkpoints and event files. These are links if the system supports them,
else copies. They also become copies if a tool that follows links moves the run. They are not a run, and their
points belong to the run around them. They count only if a file exists nowhere else.
"""

from __future__ import annotations

import re

from aml_mirror.sources.tree import Tree

_COPY = re.compile(r"(?:^|/)wandb/(?:offline-)?run-[^/]+/")
_COPIES = re.compile(r"(?:.*?/)?wandb/(?:offline-)?run-[^/]+/")


def is_copy(path: str) -> bool:
    """Tell whether a file is in a place where W&B keeps copies."""
    return _COPY.search(path) is not None


def without_copies(tree: Tree) -> Tree:
    """Return the tree of a whole source without W&B's copies, or the tree itself if there are none."""
    if tree.root:
        return tree
    folders = {match[0].rstrip("/") for path in tree.files if (match := _COPIES.match(path))}
    return tree.without(folders)
