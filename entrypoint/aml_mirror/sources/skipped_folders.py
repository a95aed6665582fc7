"""Folders that never contain a run: downloads, environments, trash, snapshots.

Sources: huggingface_hub (``constants.py``, ``file_download.repo_folder_name``: ``models--OWNER--NAME``), the
freedesktop.org trash specification (``Trash/files``, ``.Trash-UID``), Synology (``#recycle``, ``#snapshot``,
``@eaDir``), QNAP (``@Recycle``, ``@Recently-Snapshot``), NetApp (``.snapshot``, ``~snapshot``), Samba
(``@GMT-…``), Windows (``$RECYCLE.BIN``), Docker's and containerd's storage drivers.

A folder that a person passes by path is always accepted. Only folders below it are judged by their names.
"""

from __future__ import annotations

import re

_NAMES = frozenset(
    {"site-packages", "dist-packages", "node_modules", "__pycache__", "__pypackages__", "lost+found"}
    | {"#recycle", "@recycle", "$recycle.bin", "recycler", "system volume information"}
    | {"@eadir", "#snapshot", "~snapshot", "@snapshot", "@snapshots", "@recently-snapshot", "@tmp"}
    | {"overlay2", "fuse-overlayfs", "aufs"}
)
_PATTERN = re.compile(r"(?:models|datasets|spaces)--.+|@gmt-[0-9].*|io\.containerd\..+")
# Names that mean this only in a certain parent folder.
_INSIDE = (
    (re.compile(r"trash"), re.compile(r"files|info|expunged")),
    (re.compile(r"overlay"), re.compile(r"l|[0-9a-f]{32,}(?:-init)?")),
    (re.compile(r"docker"), re.compile(r"overlay|vfs|btrfs|devicemapper|image|buildkit|containerd")),
    (re.compile(r"vfs"), re.compile(r"dir")),
)
# Names that begin with a dot but belong to a run: Hydra's configuration, Sample Factory's logs, and files
# that rsync has not moved to their place.
_OF_A_RUN = frozenset({".hydra", ".summary", ".rsync-partial", ".~tmp~"})
# So does the folder of a checkpoint whose save is not finished.
_BEING_SAVED = re.compile(
    r"\.(?!trash)(?=.*[0-9]).*(?:tmp|temp|part|incomplete|checkpoint|ckpt|step|iter|epoch|model).*"
)


def is_skipped(name: str, around: str = "") -> bool:
    """Tell whether a folder with this name contains neither a run nor a part of one.

    Args:
        name: the name of the folder.
        around: the name of its parent folder; empty: unknown.
    """
    low = name.lower()
    if low.startswith("."):
        return low not in _OF_A_RUN and not _BEING_SAVED.fullmatch(low)
    if low in _NAMES or _PATTERN.fullmatch(low):
        return True
    outer = around.lower()
    return any(above.fullmatch(outer) and own.fullmatch(low) for above, own in _INSIDE)


class SkippedFolders:
    """Tells for many folders, by their paths below a source, whether they or one around them are skipped."""

    def __init__(self) -> None:
        self._known = {"": False}

    def __contains__(self, folder: str) -> bool:
        if (known := self._known.get(folder)) is not None:
            return known
        # Not recursive: a path can be deeper than Python's stack.
        missing = []
        while folder not in self._known:
            missing.append(folder)
            folder = folder.rpartition("/")[0]
        skipped = self._known[folder]
        for folder in reversed(missing):
            above, _, name = folder.rpartition("/")
            skipped = skipped or is_skipped(name, above.rpartition("/")[2])
            self._known[folder] = skipped
        return skipped


def around(path: str) -> str:
    """Return the outermost skipped folder around a path; empty: none."""
    parts = path.split("/")
    for count in range(1, len(parts)):
        if is_skipped(parts[count - 1], parts[count - 2] if count > 1 else ""):
            return "/".join(parts[:count])
    return ""
