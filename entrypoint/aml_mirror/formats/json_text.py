"""JSON: configurations and indexes, parsed to check whether they are complete."""

from __future__ import annotations

import re

from aml_mirror.core.errors import DataError
from aml_mirror.formats.base import Format, FormatFile, Kind
from aml_mirror.sources.tree import MAX_TEXT_BYTES

# Larger JSON, especially a tokenizer's, would take ten times its size in memory. Its brackets are counted, up
# to MAX_TEXT_BYTES.
MAX_PARSED_BYTES = 4 << 20
PART_BYTES = 1 << 20


def _problem(file: FormatFile) -> str:
    size = file.size
    if size <= MAX_PARSED_BYTES:
        try:
            file.tree.read_json(file.path)
        except DataError:
            return "it is not valid JSON"
        return ""
    if file.read(max(0, size - 64), 64).rstrip()[-1:] not in (b"}", b"]"):
        return "its end is missing"
    return "" if size > MAX_TEXT_BYTES or _brackets_close(file) else "its end is missing"


def _brackets_close(file: FormatFile) -> bool:
    depth, in_string, rest = 0, False, b""
    for offset in range(0, file.size, PART_BYTES):
        part = rest + file.read(offset, PART_BYTES)
        # A backslash and the character after it: neither ends a string.
        rest = b"\\" if (len(part) - len(part.rstrip(b"\\"))) % 2 else b""
        pieces = re.sub(rb"\\.", b"", part[: len(part) - len(rest)], flags=re.S).split(b'"')
        outside = b"".join(pieces[in_string::2])
        in_string ^= len(pieces) % 2 == 0
        depth += outside.count(b"{") + outside.count(b"[") - outside.count(b"}") - outside.count(b"]")
    return depth == 0 and not in_string


JSON = Format("JSON", (".json",), Kind.NO_CODE, problem=_problem, never_empty=True)
