"""Where runs begin: the topmost of the folders that layouts found, raised to where the logs lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from aml_mirror.formats.registry import weight_suffixes
from aml_mirror.sources.tree import Tree, parent

# Names of folders that scripts make for the logs of a run, beside those of its checkpoints.
LOG_FOLDERS = frozenset(
    {"tb", "tensorboard", "tb_logs", "logs", "log", "events", "summaries", "summary", ".summary", "runs"}
)
# In a folder named for logs those of one run are this deep at most: logs/tensorboard/version_0.
_LOG_DEPTH = 3


def topmost(folders: Iterable[str]) -> list[str]:
    """Sort folders and leave out those inside another one of them."""
    kept: set[str] = set()
    for folder in sorted(set(folders)):
        parts = folder.split("/")
        if "" in kept or any("/".join(parts[:count]) in kept for count in range(1, len(parts))):
            continue
        kept.add(folder)
    return sorted(kept)


def with_logs(tree: Tree, roots: list[str], in_named: bool = False) -> list[str]:
    """Return the roots, one that has no event file raised to the folder around it that has.

    Scripts put checkpoints and logs side by side (``trained/model.zip``, ``tb/PPO_1/events…``). A root is
    raised only while the folder holds no weights of anything else, and with ``in_named`` only to logs in a
    folder that is named for them: any other folder with event files may be a run that kept no checkpoint.
    """
    with_events: set[str] = set()
    # Folder -> the folders directly in it that are named for logs and hold some.
    named: dict[str, set[str]] = {}
    weights: Counter[str] = Counter()
    for path in tree.files:
        if "tfevents" in path.rpartition("/")[2]:
            folders = folders_around(path)
            with_events.update(folders)
            parts = path.split("/")[:-1]
            for index, part in enumerate(parts):
                # Deeper down are the logs of many runs.
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
            # A root inside of such a folder is one of those whose logs are there.
            return any(not (root + "/").startswith(logs + "/") for logs in named.get(folder, ()))

        while candidate and not has_logs(candidate):
            candidate = parent(candidate)
            if weights[candidate] > weights[root]:
                candidate = root
                break
        raised.append(candidate if has_logs(candidate) else root)
    return topmost(raised)


def folders_around(path: str) -> list[str]:
    """Return the folders that a path is in, the tree's root (``""``) first."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts))]
