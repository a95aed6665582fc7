"""Files that a system or an editor left beside the real ones, with similar names.

They are never part of a model: macOS's attributes (AppleDouble ``._x``, ``.DS_Store``), the names that NFS
(``.nfs…``), Samba (``.smbdelete…``) and libfuse (``.fuse_hidden…``) give to a file that is removed while it
is open, and backups of editors (``NAME~``). Leftovers of interrupted copies are different: there the real
file may be missing.

A second copy of a file beside it is not part of a model either: of a browser (``NAME (1).pt``), wget
(``NAME.pt.1``), macOS (``NAME copy.pt``), Windows (``NAME - Copy.pt``), GNOME (``NAME (copy).pt``), Google
Drive (``Copy of NAME.pt``) or a person (``NAME.pt.bak``). If the original does not exist, the second copy is
used.
"""

from __future__ import annotations

import re

_BEGINS = ("._", ".nfs", ".smbdelete", ".fuse_hidden", ".goutputstream-")
# What the name of a second copy adds: before the suffix, in front of the name, or behind it.
_AGAIN = (
    re.compile(
        r"(?P<stem>.+?)(?: \((?:[0-9]{1,3}|(?:another |[0-9]{1,3}(?:st|nd|rd|th) )?copy)\)"
        r"| copy(?: [0-9]{1,3})?| - Copy(?: \([0-9]{1,3}\))?)(?P<suffix>\.[A-Za-z0-9_]+)"
    ),
    re.compile(r"Copy of (?P<stem>.+)(?P<suffix>\.[A-Za-z0-9_]+)"),
    re.compile(r"(?P<stem>.+)(?P<suffix>\.[A-Za-z][A-Za-z0-9_]*)\.(?:[0-9]{1,3}|bak|orig|old)"),
)
# Every name of a second copy contains one of these.
_MAYBE_AGAIN = re.compile(r"[ ](?:\(|copy|- Copy)|^Copy of |\.(?:[0-9]{1,3}|bak|orig|old)$")


def is_system_file(path: str) -> bool:
    """Tell by its name whether a file is one of these."""
    name = path.rpartition("/")[2]
    if name.startswith("."):
        return name.startswith(_BEGINS) or name == ".DS_Store"
    return name.endswith("~")


def first_of(path: str) -> str:
    """Return the path of the original of a second copy; empty: by its name it is not a copy."""
    folder, slash, name = path.rpartition("/")
    if _MAYBE_AGAIN.search(name):
        for pattern in _AGAIN:
            if match := pattern.fullmatch(name):
                return folder + slash + match["stem"] + match["suffix"]
    return ""
