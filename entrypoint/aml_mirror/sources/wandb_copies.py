"""What Weights & Biases keeps beside a run, or in it: links to the run's files, and copies of them.

``wandb.save`` and ``sync_tensorboard`` put what they send into ``wandb/run-<time>-<id>/files/`` (offline:
``wandb/offline-run-…``), checkpoints and event files too: links where the system has them, copies where it
has not, and copies wherever a run was moved by a tool that follows links. They are no run of their own, and
their points are those of the run. Only what is nowhere else counts.
"""

from __future__ import annotations

import re

from aml_mirror.sources.tree import Tree

_COPY = re.compile(r"(?:^|/)wandb/(?:offline-)?run-[^/]+/")
_COPIES = re.compile(r"(?:.*?/)?wandb/(?:offline-)?run-[^/]+/")


def is_copy(path: str) -> bool:
    """Return whether a file is where W&B keeps copies."""
    return _COPY.search(path) is not None


def without_copies(tree: Tree) -> Tree:
    """Return the tree of a whole source without W&B's copies; the tree itself where there are none."""
    if tree.root:
        return tree
    folders = {match[0].rstrip("/") for path in tree.files if (match := _COPIES.match(path))}
    return tree.without(folders)
