"""Files that a system or an editor left beside the real ones, under names that look like theirs.

None of them is part of a model: macOS's attributes (AppleDouble ``._x``, ``.DS_Store``), what NFS
(``.nfs…``), Samba (``.smbdelete…``) and libfuse (``.fuse_hidden…``) make of a file that is removed while it
is open, and backups of editors (``NAME~``). What interrupted copies leave is another matter: there the file
itself may be missing.

Nor is a second copy of a file beside it: of a browser (``NAME (1).pt``), wget (``NAME.pt.1``), macOS
(``NAME copy.pt``), Windows (``NAME - Copy.pt``), GNOME (``NAME (copy).pt``), Google Drive
(``Copy of NAME.pt``) or a person (``NAME.pt.bak``). Where the first is not there, the
second is all that there is.
"""

from __future__ import annotations

import re

_BEGINS = ("._", ".nfs", ".smbdelete", ".fuse_hidden", ".goutputstream-")
# What a second copy has more in its name than the first: between that and the suffix, before, or behind it.
_AGAIN = (
    re.compile(
        r"(?P<stem>.+?)(?: \((?:[0-9]{1,3}|(?:another |[0-9]{1,3}(?:st|nd|rd|th) )?copy)\)"
        r"| copy(?: [0-9]{1,3})?| - Copy(?: \([0-9]{1,3}\))?)(?P<suffix>\.[A-Za-z0-9_]+)"
    ),
    re.compile(r"Copy of (?P<stem>.+)(?P<suffix>\.[A-Za-z0-9_]+)"),
    re.compile(r"(?P<stem>.+)(?P<suffix>\.[A-Za-z][A-Za-z0-9_]*)\.(?:[0-9]{1,3}|bak|orig|old)"),
)
# What no name of a second copy lacks.
_MAYBE_AGAIN = re.compile(r"[ ](?:\(|copy|- Copy)|^Copy of |\.(?:[0-9]{1,3}|bak|orig|old)$")


def is_system_file(path: str) -> bool:
    """Return whether a file is one of these, by its name."""
    name = path.rpartition("/")[2]
    if name.startswith("."):
        return name.startswith(_BEGINS) or name == ".DS_Store"
    return name.endswith("~")


def first_of(path: str) -> str:
    """Return the path that a second copy's name is made of; empty: it is none by its name."""
    folder, slash, name = path.rpartition("/")
    if _MAYBE_AGAIN.search(name):
        for pattern in _AGAIN:
            if match := pattern.fullmatch(name):
                return folder + slash + match["stem"] + match["suffix"]
    return ""
