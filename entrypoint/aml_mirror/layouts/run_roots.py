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
    above_named: set[str] = set()
    weights: Counter[str] = Counter()
    for path in tree.files:
        if "tfevents" in path.rpartition("/")[2]:
            folders = folders_around(path)
            with_events.update(folders)
            for index, part in enumerate(path.split("/")[:-1]):
                if part.lower() in LOG_FOLDERS:
                    above_named.update(folders[: index + 1])
        elif path.endswith(weight_suffixes()):
            weights.update(folders_around(path))
    raised = []
    for root in roots:
        candidate = root
        there = above_named if in_named and root not in with_events else with_events
        while candidate and candidate not in there:
            candidate = parent(candidate)
            if weights[candidate] > weights[root]:
                candidate = root
                break
        raised.append(candidate if candidate in there else root)
    return topmost(raised)


def folders_around(path: str) -> list[str]:
    """Return the folders that a path lies in, the tree's root (``""``) first."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts))]
