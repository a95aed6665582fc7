"""Finds what one file could do when it is loaded, with ranged reads of that file alone. Nothing is loaded.

The bytes of a file decide what it is, not its name. The name counts only if the bytes say nothing. In a zip
archive, the directory and the members that are not tensors are read. Legacy files of torch are read up to
their tensors, numpy files if they contain objects, compressed files as far as memory allows, and a pickle
inside another one where it is. A file of an unknown format, or one that was not examined, is ``unknown``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from aml_mirror.formats.archives import Read
from aml_mirror.formats.registry import format_of
from aml_mirror.formats.torch_distributed import DISTCP, items_in
from aml_mirror.safety.findings import Findings
from aml_mirror.safety.inspection import Inspection
from aml_mirror.safety.words import CLEAN, CODE, NO_CODE, SAFETENSORS, SUSPICIOUS, UNKNOWN
from aml_mirror.sources.tree import Tree, join, parent
from aml_mirror.support import redaction

# TensorStore's data files, which only TensorStore reads, by offsets. An Orbax checkpoint has hundreds of
# them.
_TENSORSTORE = re.compile(r"(?P<store>.*?)/?d/[0-9a-f]{32}")
# Chunks of a Zarr array: in version 2 beside .zarray, in version 3 below the folder of zarr.json.
_CHUNK = re.compile(r"(?:c/)?[0-9]+(?:[./][0-9]+)*")
_RAW = "tensors of ONNX"
# A shard of TensorFlow's variables. The index beside it describes it.
_SHARD = re.compile(r"(?P<prefix>.*)\.data-[0-9]{5}-of-[0-9]{5}")


@dataclass(frozen=True, slots=True)
class File:
    """The result for one file."""

    path: str
    safety: str
    pickles: int = 0
    names: tuple[str, ...] = ()
    names_count: int = 0
    problems: tuple[str, ...] = ()
    """Why it is suspicious, which code it is or contains, or why nothing is known about it."""
    allowed: str = ""
    """The reason why a person accepts it whatever was found (``--allow``)."""


def scan_file(tree: Tree, path: str) -> File:
    """Examine one file. Raises the errors of :meth:`Tree.read`."""
    findings = Findings()
    size = tree.size(path)

    def read(offset: int, count: int) -> bytes:
        return tree.read(path, offset, count)

    known = format_of(path)
    if _is_array_data(tree, path):
        Inspection(findings).raw(read, size)
        found = NO_CODE
    elif known is DISTCP and (items := items_in(tree, path)):
        found = _distributed(read, size, items, findings)
    else:
        found = Inspection(findings).file(read, size, path)
    safety, problems = found, []
    if findings.problems:
        safety, problems = SUSPICIOUS, [*findings.problems, *findings.code, *findings.unknown]
    elif findings.code:
        safety, problems = CODE, [*findings.code, *findings.unknown]
    elif findings.unknown:
        safety, problems = UNKNOWN, list(findings.unknown)
    elif findings.pickles:
        safety = CLEAN
    elif found == UNKNOWN:
        problems = ["its format is unknown or was not examined"]
    return File(
        path,
        safety,
        findings.pickles,
        tuple(redaction.text(name) for name in findings.names),
        findings.names_count,
        tuple(redaction.text(problem) for problem in problems),
    )


def _is_array_data(tree: Tree, path: str) -> bool:
    """Tell whether a file is raw data of an array in an index beside it. Nothing else reads it."""
    if match := _TENSORSTORE.fullmatch(path):
        store = re.sub(r"(?:^|/)ocdbt\.process_[0-9]+$", "", match["store"])
        return any(tree.has(tree.resolve(join(at, "manifest.ocdbt"))) for at in (match["store"], store))
    above = parent(path)
    if _CHUNK.fullmatch(path.rpartition("/")[2]):
        for _ in range(8):
            if tree.has(join(above, ".zarray")) or tree.has(join(above, "zarr.json")):
                return True
            if not above:
                return False
            above = parent(above)
    if match := _SHARD.fullmatch(path):
        return tree.has(tree.resolve(f"{match['prefix']}.index"))
    if path.endswith(".memmap"):  # of TensorDict
        return tree.has(tree.resolve(join(above, "meta.json")))
    known = format_of(path)
    if known is not None and known.name == _RAW:
        folder = parent(path)
        return any(name.endswith(".onnx") for name in tree.children.get(folder, ()))
    return False


def _distributed(read: Read, size: int, items: list[tuple[int, int]], findings: Findings) -> str:
    """Examine each saved item in a file of a distributed checkpoint separately."""
    at = 0
    for offset, length in items:
        if offset != at or offset + length > size:
            break
        Inspection(findings).file(
            lambda start, count, offset=offset, length=length: read(  # type: ignore[misc]
                offset + start, max(0, min(count, length - start))
            ),
            length,
            "item.pt",
        )
        at = offset + length
    if at != size:
        findings.untold(f"its bytes from {at} on are not among the items that .metadata names")
    return CLEAN


__all__ = ["CLEAN", "CODE", "NO_CODE", "SAFETENSORS", "SUSPICIOUS", "UNKNOWN", "File", "scan_file"]
