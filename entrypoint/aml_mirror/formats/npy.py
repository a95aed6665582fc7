"""Reads tables of plain numbers in numpy's format, without numpy. Nothing is unpickled."""

from __future__ import annotations

import ast
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

# The largest array of an .npz, in bytes after decompression: 10^5 evaluations of 20 episodes.
MAX_ARRAY = 16 << 20
# The largest header of an .npy; numpy itself refuses larger ones.
MAX_NPY_HEADER = 10_000


def read_rows(archive: zipfile.ZipFile, member: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a one- or two-dimensional array of plain numbers.

    The format: numpy/lib/format.py. Raises ValueError, KeyError, EOFError, or the errors of :mod:`zipfile`.
    """
    info = archive.getinfo(f"{member}.npy")
    # The other methods inflate a whole block at once, whatever its size.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"its member {member} is compressed with a method that numpy does not use")
    with archive.open(info) as stream:
        prefix = _exactly(stream.read, 8)
        if prefix[:6] != b"\x93NUMPY" or prefix[6] not in (1, 2, 3):
            raise ValueError(f"its member {member} is not an array")
        length = int.from_bytes(_exactly(stream.read, 2 if prefix[6] == 1 else 4), "little")
        if length > MAX_NPY_HEADER:
            raise ValueError(f"the header of its member {member} is too long")
        form, fortran, shape = _npy_header(_exactly(stream.read, length).decode("latin-1"), member)
        rows, width = shape[0], shape[1] if len(shape) == 2 else 1
        count, size = rows * width, struct.calcsize(form)
        if max(rows, count) * size > MAX_ARRAY:
            raise ValueError(f"its member {member} is larger than {MAX_ARRAY >> 20} MiB")
        data = _exactly(stream.read, count * size)
    if fortran and len(shape) == 2:
        for row in range(rows):
            yield tuple(
                struct.unpack_from(form, data, (column * rows + row) * size)[0] for column in range(width)
            )
    else:
        unpack = struct.Struct(form[0] + str(width) + form[1])
        for row in range(rows):
            yield unpack.unpack_from(data, row * width * size)


# numpy's names of plain numbers -> struct's.
_NUMPY_TYPES = {
    "f2": "e", "f4": "f", "f8": "d", "b1": "?",
    "i1": "b", "i2": "h", "i4": "i", "i8": "q",
    "u1": "B", "u2": "H", "u4": "I", "u8": "Q",
}  # fmt: skip


def _npy_header(text: str, member: str) -> tuple[str, bool, tuple[int, ...]]:
    try:
        header = ast.literal_eval(text.strip())
        descr, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise ValueError(f"the header of its member {member} is damaged") from error
    if not isinstance(descr, str) or descr[1:] not in _NUMPY_TYPES or descr[0] not in "<>|=":
        raise ValueError(f"its member {member} contains {str(descr)[:40]}, not plain numbers")
    if (
        not isinstance(shape, tuple)
        or len(shape) not in (1, 2)
        or not all(type(size) is int and 0 <= size <= MAX_ARRAY for size in shape)
    ):
        raise ValueError(f"its member {member} has the shape {str(shape)[:40]}, not that of a table")
    return (">" if descr[0] == ">" else "<") + _NUMPY_TYPES[descr[1:]], bool(fortran), shape


def _exactly(read: Callable[[int], bytes], count: int) -> bytes:
    data = read(count)
    if len(data) != count:
        raise EOFError("it ends inside an array")
    return data
