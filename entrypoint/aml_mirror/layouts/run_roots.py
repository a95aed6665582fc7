"""Finds where runs begin: the topmost folders that layouts found, moved up to include the logs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from aml_mirror.formats.registry import weight_suffixes
from aml_mirror.sources.tree import Tree, parent

# Names of folders that scripts make for the logs of a run, beside those of its checkpoints.
LOG_FOLDERS = frozenset(
    {"tb", "tensorboard", "tb_logs", "logs", "log", "events", "summaries", "summary", ".summary", "runs"}
)
# In a folder for logs, one run's logs are at most this deep: logs/tensorboard/version_0.
_LOG_DEPTH = 3


def topmost(folders: Iterable[str]) -> list[str]:
    """Sort folders and leave out those inside another one."""
    kept: set[str] = set()
    for folder in sorted(set(folders)):
        parts = folder.split("/")
        if "" in kept or any("/".join(parts[:count]) in kept for count in range(1, len(parts))):
            continue
        kept.add(folder)
    return sorted(kept)


def with_logs(tree: Tree, roots: list[str], in_named: bool = False) -> list[str]:
    """Return the roots. A root without event files moves up to the folder around it, if that has some.

    Scripts put checkpoints and logs side by side (``trained/model.zip``, ``tb/PPO_1/events…``). A root moves
    up only if that folder contains no other weights. With ``in_named``, it moves only to logs in a folder
    with a typical name: any other folder with event files may be a run that kept no checkpoint.
    """
    with_events: set[str] = set()
    # Folder -> its subfolders that are named for logs and contain some.
    named: dict[str, set[str]] = {}
    weights: Counter[str] = Counter()
    for path in tree.files:
        if "tfevents" in path.rpartition("/")[2]:
            folders = folders_around(path)
            with_events.update(folders)
            parts = path.split("/")[:-1]
            for index, part in enumerate(parts):
                # Deeper folders contain the logs of many runs.
                if part.lower() in LOG_FOLDERS and len(parts) - index <= _LOG_DEPTH:
                    named.setdefault(folders[index], set()).add(folders[index + 1])
        elif path.endswith(weight_suffixes()):
            weights.update(folders_around(path))
    raised = []
    for root in roots:
        candidate = root
        only_named = in_named and root not in with_events

        def has_logs(folder: str, root: str = root, only_named: bool = only_named) -> bool:
            if not only_named:
                return folder in with_events
            # A root inside such a folder is one of the runs whose logs are there.
            return any(not (root + "/").startswith(logs + "/") for logs in named.get(folder, ()))

        while candidate and not has_logs(candidate):
            candidate = parent(candidate)
            if weights[candidate] > weights[root]:
                candidate = root
                break
        raised.append(candidate if has_logs(candidate) else root)
    return topmost(raised)


def folders_around(path: str) -> list[str]:
    """Return the folders around a path, with the tree's root (``""``) first."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts))]
