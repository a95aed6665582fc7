"""HDF5: Keras's older models, and arrays. Its superblock says where the file ends.

Source: HDF5 File Format Specification 3.0, "Disk Format: Level 0A - Format Signature and Superblock".
"""

from __future__ import annotations

from aml_mirror.formats.archives import Read
from aml_mirror.formats.base import Format, FormatFile, Kind, Weights

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Where the superblock may begin: at 0, or after a user block of 512 bytes or two, four, … times as many.
_PLACES = (0, 512, 1024, 2048, 4096, 8192)


def superblock_of(read: Read, size: int) -> int | None:
    """Return where the superblock begins; None: the file is not an HDF5 file."""
    return next((place for place in _PLACES if place < size and read(place, 8) == SIGNATURE), None)


def _problem(file: FormatFile) -> str:
    start = superblock_of(file.read, file.size)
    if start is None:
        return "it is not an HDF5 file" if file.holds_weights else ""
    head = file.read(start, 64)
    if len(head) < 64:
        return "its HDF5 superblock is truncated"
    # Versions 0 and 1 (which have 8 and 12 bytes of other numbers more) contain base, free space and end;
    # versions 2 and 3 contain base, extension and end.
    version = head[8]
    if version in (0, 1):
        width, at = head[13], 24 + 4 * version
    elif version in (2, 3):
        width, at = head[9], 12
    else:
        return f"its HDF5 superblock has the unknown version {version}"
    if width not in (2, 4, 8):
        return "its HDF5 superblock is damaged"
    base, _, end = (int.from_bytes(head[at + i * width : at + (i + 1) * width], "little") for i in range(3))
    # The address of the end is relative to the base.
    end = end if base == 0 else base + end
    return "" if file.size >= end else f"it has {file.size} bytes, but its superblock says {end}"


HDF5 = Format("HDF5", (".h5", ".hdf5"), Kind.CODE, Weights.ALWAYS, _problem, run_by="Keras")
