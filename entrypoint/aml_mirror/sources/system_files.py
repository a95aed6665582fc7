"""Files that a system or an editor left beside the real ones, under names that look like theirs.

None of them is part of a model: macOS's attributes (AppleDouble ``._x``, ``.DS_Store``), what NFS
(``.nfs…``), Samba (``.smbdelete…``) and libfuse (``.fuse_hidden…``) make of a file that is removed while it
is open, backups of editors (``NAME~``), and second downloads of one name (``NAME (1).pt``). What interrupted
copies leave is another matter: there the file itself may be missing.
"""

from __future__ import annotations

import re

_BEGINS = ("._", ".nfs", ".smbdelete", ".fuse_hidden", ".goutputstream-")
_AGAIN = re.compile(r".+ \([0-9]{1,3}\)\.[A-Za-z0-9]+")


def is_system_file(path: str) -> bool:
    """Tell whether a file is one of these, by its name."""
    name = path.rpartition("/")[2]
    if name.startswith("."):
        return name.startswith(_BEGINS) or name == ".DS_Store"
    return name.endswith("~") or (" (" in name and _AGAIN.fullmatch(name) is not None)
