"""GGUF: a header of keys and values, then the positions of the tensors, then the tensors.

Source: docs/gguf.md of github.com/ggml-org/ggml. The values may contain a chat template, a program in Jinja
that llama-cpp-python and others run.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from aml_mirror.formats.archives import Read
from aml_mirror.formats.base import Format, FormatFile, Kind, Weights

MAGIC = b"GGUF"
# A vocabulary of 250,000 tokens has some MB. Larger headers are not read.
MAX_HEADER_BYTES = 64 << 20
_STEP = 1 << 20
_MAX_ENTRIES = 1 << 20
_SIMPLE = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(slots=True)
class Header:
    """The parts of a GGUF file that are read: its strings by key, and where its last tensor begins."""

    texts: dict[str, str]
    last_tensor: int


class _Reader:
    def __init__(self, read: Read, size: int) -> None:
        self._read = read
        self._size = min(size, MAX_HEADER_BYTES)
        self._data = b""
        self.at = 0

    def take(self, count: int) -> bytes:
        end = self.at + count
        if count < 0 or end > self._size:
            raise ValueError("its header is truncated")
        while len(self._data) < end:
            part = self._read(
                len(self._data), min(max(_STEP, end - len(self._data)), self._size - len(self._data))
            )
            if not part:
                raise ValueError("its header is truncated")
            self._data += part
        taken = self._data[self.at : end]
        self.at = end
        return taken

    def number(self, form: str) -> Any:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def text(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", "replace")

    def value(self, kind: int) -> object:
        if kind == _STRING:
            return self.text()
        if kind in _SIMPLE:
            return self.number(_SIMPLE[kind])
        if kind != _ARRAY:
            raise ValueError("its header is damaged")
        inner, count = self.number("I"), self.number("Q")
        if inner in _SIMPLE:
            self.take(count * struct.calcsize("<" + _SIMPLE[inner]))
        elif inner == _STRING and count <= _MAX_ENTRIES:
            for _ in range(count):
                self.text()
        else:
            raise ValueError("its header is damaged")
        return None


def read_header(read: Read, size: int) -> Header:
    """Read the header of a GGUF file.

    Raises:
        ValueError: it is not one, or is truncated or damaged.
    """
    reader = _Reader(read, size)
    if reader.take(4) != MAGIC or reader.number("I") not in (2, 3):
        raise ValueError("it is not a GGUF file of version 2 or 3")
    tensors, pairs = reader.number("Q"), reader.number("Q")
    if tensors > _MAX_ENTRIES or pairs > _MAX_ENTRIES:
        raise ValueError("its header is damaged")
    texts: dict[str, str] = {}
    alignment = 32
    for _ in range(pairs):
        key = reader.text()
        value = reader.value(reader.number("I"))
        if isinstance(value, str):
            texts[key] = value
        elif key == "general.alignment" and isinstance(value, int) and 0 < value <= 1 << 20:
            alignment = value
    last = 0
    for _ in range(tensors):
        reader.text()
        dimensions = reader.number("I")
        if dimensions > 8:
            raise ValueError("its header is damaged")
        reader.take(8 * dimensions + 4)
        last = max(last, reader.number("Q"))
    start = -(-reader.at // alignment) * alignment
    return Header(texts, start + last if tensors else reader.at)


def _problem(file: FormatFile) -> str:
    try:
        header = read_header(file.read, file.size)
    except ValueError as error:
        return str(error)
    return "" if file.size >= header.last_tensor else "it ends before its last tensor begins"


GGUF = Format("GGUF", (".gguf",), Kind.CODE, Weights.ALWAYS, _problem, run_by="llama-cpp-python")
