"""What one file could do to whoever loads it, from ranged reads of it alone. Nothing is loaded.

A file is what its bytes are, not what its name says; where the bytes say nothing, the name counts. Zip
archives are entered through their directory and only the members that are no tensors are read; legacy files
of torch up to where their tensors begin; numpy files where they hold objects; compressed files as far as
memory allows; a pickle inside another one where it is. What is of no known format, or was not examined, is
``unknown``.
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

# TensorStore's data files, which it alone reads, by offsets: an Orbax checkpoint has hundreds of them.
_TENSORSTORE = re.compile(r"(?P<store>.*?)/?d/[0-9a-f]{32}")
# Chunks of an array of Zarr, version 2 beside .zarray, version 3 below the folder of zarr.json.
_CHUNK = re.compile(r"(?:c/)?[0-9]+(?:[./][0-9]+)*")
_RAW = "tensors of ONNX"
# A shard of TensorFlow's variables, which the index beside it describes.
_SHARD = re.compile(r"(?P<prefix>.*)\.data-[0-9]{5}-of-[0-9]{5}")


@dataclass(frozen=True, slots=True)
class File:
    """What one file was found to be."""

    path: str
    safety: str
    pickles: int = 0
    names: tuple[str, ...] = ()
    names_count: int = 0
    problems: tuple[str, ...] = ()
    """Why it is suspicious, what code it is or holds, or why nothing can be said of it."""
    allowed: str = ""
    """The reason for which a person accepts it whatever was found (``--allow``)."""


def scan_file(tree: Tree, path: str) -> File:
    """Look into one file. Raises as :meth:`Tree.read`."""
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
        problems = ["it is of no format that is known and was examined"]
    return File(
        path,
        safety,
        findings.pickles,
        tuple(redaction.text(name) for name in findings.names),
        findings.names_count,
        tuple(redaction.text(problem) for problem in problems),
    )


def _is_array_data(tree: Tree, path: str) -> bool:
    """Tell whether a file is raw data of an array that an index beside it names: nothing else reads it."""
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
    """Look into each saved item of a file of a distributed checkpoint by itself."""
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
        findings.untold(f"its bytes from {at} on are none of the items that .metadata names")
    return CLEAN


__all__ = ["CLEAN", "CODE", "NO_CODE", "SAFETENSORS", "SUSPICIOUS", "UNKNOWN", "File", "scan_file"]
