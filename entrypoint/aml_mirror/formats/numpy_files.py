"""numpy's arrays: ``.npy`` is a header and the array's bytes, ``.npz`` a zip archive of such files.

An array of objects is a pickle after the header (numpy/lib/format.py).
"""

from __future__ import annotations

from aml_mirror.formats.archives import Archive
from aml_mirror.formats.base import Format, FormatFile, Kind, Weights


def archive_problem(file: FormatFile) -> str:
    """Return why a file is not a complete zip archive; empty: it is one."""
    try:
        Archive(file.read, file.size)
    except ValueError as error:
        return str(error)
    return ""


NPZ = Format("numpy archive", (".npz",), Kind.PICKLE, Weights.NAMED, archive_problem)
NPY = Format("numpy array", (".npy",), Kind.PICKLE)
