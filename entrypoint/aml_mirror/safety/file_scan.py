"""What one file could do to whoever loads it, from ranged reads of its pickles alone.

A file is what its bytes are, not what its name says. Zip archives (torch, Lightning, Stable-Baselines3) are
entered through their directory and only the members that are no tensors are read; legacy files of torch up
to where their tensors begin; numpy files where they hold objects; a pickle inside another one where it lies.
Each pickle is followed by :mod:`.machine`; nothing is loaded.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import re
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from aml_mirror.formats.archives import LEGACY_TORCH, Archive, Member
from aml_mirror.formats.registry import pattern_of, suffixes_of
from aml_mirror.safety import pickle_vm
from aml_mirror.safety.findings import Findings, MalformedPickle, TooMuch
from aml_mirror.safety.pickle_stream import Stream
from aml_mirror.safety.pickle_vm import MAX_DEPTH, MAX_PICKLE_BYTES
from aml_mirror.sources.tree import Tree
from aml_mirror.support import redaction

SAFETENSORS, CLEAN, SUSPICIOUS, NO_PICKLE = (
    "safetensors",
    "pickle-clean",
    "pickle-suspicious",
    "no-pickle",
)
# Settings of Stable-Baselines3, some KiB; an observation may be among them. Parsed, JSON takes up to 20 times
# its size.
MAX_DATA_BYTES = 8 << 20
# What a zip archive may hold besides tensors: torch adds a handful, TorchScript some hundred.
MAX_MEMBERS = 2_000
# Of one file, whatever its archives hold. Python inflates some 500 MB a second.
MAX_INFLATED_BYTES = 1 << 30
_MAX_HEADER_BYTES = 64 << 10  # of a numpy file
_SNIFF = 512  # bytes; the magic of a tar archive is at 257
# What torch.save wrote before its tensors in that format: magic number, version, system, object, keys.
_LEGACY_PICKLES = 5
_TENSOR = re.compile(r"[^/\\]+/(?:data|constants)/\d+")
# TensorStore's data files, which it alone reads, by offsets: an Orbax checkpoint has hundreds of them.
_TENSORSTORE = re.compile(r"(?:^|/)d/[0-9a-f]{32}$")
# A file with such a name is given to a loader of pickles, whatever it holds.
_LOADED_AS_PICKLE = re.compile(
    pattern_of(
        suffixes_of(
            "torch.save", "pickle", "pickle under another name", "joblib", "numpy array", "numpy archive"
        )
    )
    + f"{pattern_of(suffixes_of('compressed file'))}?$",
    re.I,
)

Read = Callable[[int, int], bytes]
# Stable-Baselines3 finds an archive wherever in such a file it begins.
_LOADED_AS_ARCHIVE = re.compile(r"\.zip$", re.I)
# Keras's Lambda layers are code, in a text among a model's attributes or in its archive's settings.
_LOADED_AS_HDF5 = re.compile(pattern_of(suffixes_of("HDF5", "Keras")) + "$", re.I)
_HDF5 = b"\x89HDF\r\n\x1a\n"


@dataclass(slots=True)
class File:
    """What one file was found to be."""

    path: str
    safety: str
    pickles: int = 0
    names: list[str] = field(default_factory=list)
    names_count: int = 0
    problems: list[str] = field(default_factory=list)


def look(tree: Tree, path: str) -> File:
    """Look into one file. Raises as :meth:`Tree.read`."""
    findings = Findings()
    known = NO_PICKLE
    if not _TENSORSTORE.search(path):
        known = _Inspection(findings).file(
            lambda offset, count: tree.read(path, offset, count), tree.size(path), path
        )
    safety = known
    if findings.problems:
        safety = SUSPICIOUS
    elif findings.pickles:
        safety = CLEAN
    return File(
        path,
        safety,
        findings.pickles,
        [redaction.text(name) for name in findings.names],
        findings.names_count,
        [redaction.text(problem) for problem in findings.problems],
    )


class _Inspection:
    """Of one file; what its parts show comes together in one :class:`Findings`."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings

    def file(self, read: Read, size: int, path: str, depth: int = 0) -> str:
        """Look into a file; returns what it is where it holds no pickle."""
        if size == 0:
            return NO_PICKLE
        head = read(0, min(size, _SNIFF))
        expected = bool(_LOADED_AS_PICKLE.search(path))
        if _is_tar(head):
            # Before all others: its first bytes are a file's name, which may be the beginning of anything.
            self._findings.problem("it is a tar archive, which is not looked into")
        elif head.startswith(b"PK\x03\x04") or _LOADED_AS_ARCHIVE.search(path):
            self._archive(read, size, depth)
        elif head.startswith(LEGACY_TORCH):
            self._legacy_torch(read, size, depth)
        elif head.startswith(b"\x93NUMPY"):
            self._numpy(read, size, depth)
        elif head.startswith(pickle_vm.MAY_BE_INSIDE) or expected:
            self._pickles(read, size, depth)
        elif head.startswith(_HDF5) or _LOADED_AS_HDF5.search(path):
            self._findings.problem(
                "it is an HDF5 file, in which Keras keeps code with a model, and is not looked into"
            )
        else:
            self._text_pickle(read, size, depth)
            if path.endswith(".safetensors") and head[8:9] == b"{":
                return SAFETENSORS
        return NO_PICKLE

    def inside(self, data: bytes, depth: int) -> bool:
        """Look into bytes that a pickle carries; returns whether they are a file of torch's."""

        def read(offset: int, count: int) -> bytes:
            return data[offset : offset + count]

        if data.startswith(b"PK"):
            self._archive(read, len(data), depth)
            return True
        if data.startswith(LEGACY_TORCH):
            self._legacy_torch(read, len(data), depth)
            return True
        # An array's bytes may begin as a pickle does. They count where they are one up to its end, or as far
        # as an import; without a mark of protocol 2 or later, as far as a call. Either may come behind more
        # than is followed.
        marked = data.startswith(pickle_vm.MAY_BE_INSIDE)
        trial = self._findings.trial()
        try:
            pickle_vm.follow(io.BytesIO(data), trial, _Inspection(trial).inside, False, depth)
            found = marked or bool(trial.names)
        except TooMuch as endless:
            found = True
            trial.problem(f"a pickle inside it: {endless}")
        except MalformedPickle as damaged:
            found = bool(trial.calls or trial.names) if marked else bool(trial.calls and trial.names)
            trial.problem(f"a pickle inside it: {damaged}")
        if found:
            self._take(trial)
        else:
            self._findings.spent(trial)
        return False

    def _take(self, trial: Findings) -> None:
        into = self._findings
        into.spent(trial)
        into.pickles += trial.pickles
        into.calls += trial.calls
        for name in trial.names:
            if name not in into.names:
                into.names[name] = None
                into.names_count += 1
        for problem in trial.problems:
            into.problem(problem)

    def _pickles(self, read: Read, size: int, depth: int, start: int = 0, torch: bool = False) -> None:
        """Follow pickles one behind the other up to the end of a file; there is at least one."""
        source = Stream(read, start, size)
        before = self._findings.pickles
        while self._findings.pickles == before or source.left:
            try:
                pickle_vm.follow(source, self._findings, self.inside, torch, depth)
            except MalformedPickle as damaged:
                self._findings.problem(str(damaged))
                return

    def _legacy_torch(self, read: Read, size: int, depth: int) -> None:
        source = Stream(read, 0, size)
        try:
            for _ in range(_LEGACY_PICKLES):
                pickle_vm.follow(source, self._findings, self.inside, True, depth)
        except MalformedPickle as damaged:
            self._findings.problem(str(damaged))

    def _text_pickle(self, read: Read, size: int, depth: int) -> None:
        """Look whether a file of another kind would also do something as a pickle.

        Protocols 0 and 1 have no mark of their own: such a pickle begins like any text. A text gets no
        further than some opcodes, and calls nothing.
        """
        trial = self._findings.trial()
        try:
            pickle_vm.follow(Stream(read, 0, size), trial, _Inspection(trial).inside, False, depth)
            found = bool(trial.calls or trial.names)
        except TooMuch as endless:
            found = True
            trial.problem(str(endless))
        except MalformedPickle:
            found = bool(trial.calls)
        if found:
            trial.problem("it is a pickle under another name")
            self._take(trial)
        else:
            self._findings.spent(trial)

    def _numpy(self, read: Read, size: int, depth: int) -> None:
        """An array file; one of objects is a header and a pickle (numpy.lib.format)."""
        start = 12 if read(6, 1) != b"\x01" else 10
        length = int.from_bytes(read(8, start - 8), "little")
        header = read(start, min(length, _MAX_HEADER_BYTES))
        if length > _MAX_HEADER_BYTES or len(header) < length:
            self._findings.problem("its numpy header cannot be read")
        elif _holds_objects(header):
            self._pickles(read, size, depth, start + length)

    def _archive(self, read: Read, size: int, depth: int) -> None:
        if depth >= MAX_DEPTH:
            self._findings.problem(f"it has archives inside of each other, more than {MAX_DEPTH} deep")
            return
        try:
            archive = Archive(read, size)
        except ValueError as error:
            self._findings.problem(f"its zip archive cannot be read: {error}")
            return
        members = [
            member
            for member in archive.members.values()
            if not (member.stored and _TENSOR.fullmatch(member.name)) and member.bytes
        ]
        if len(members) > MAX_MEMBERS:
            self._findings.problem(f"its zip archive has over {MAX_MEMBERS:,} members that are no tensors")
            return
        if any(re.search(r"(?:^|[/\\])code[/\\]", member.name, re.I) for member in members):
            self._findings.problem(
                "it holds TorchScript code, which runs when it is loaded and is not looked into"
            )
        for member in members:
            self._member(read, archive, member, depth + 1)

    def _member(self, read: Read, archive: Archive, member: Member, depth: int) -> None:
        # Readers differ in what of a name counts: torch finds data.pkl in any case.
        name = member.name.replace("\\", "/").rpartition("/")[2].lower()
        if member.stored:
            found: Read = lambda offset, count: read(  # noqa: E731
                member.start + offset, max(0, min(count, member.bytes - offset))
            )
        else:
            data = self._inflated(archive, member)
            if data is None:
                return
            found = lambda offset, count: data[offset : offset + count]  # noqa: E731
        if name == "data" and member.name == name:
            self._settings(found, member.bytes, depth)
        elif name.endswith(".pkl"):
            self._pickles(found, member.bytes, depth, torch=True)
        else:
            self.file(found, member.bytes, member.name, depth)

    def _inflated(self, archive: Archive, member: Member) -> bytes | None:
        if member.bytes > MAX_PICKLE_BYTES:
            self._findings.problem(f"its compressed member {member.name} is larger than can be looked into")
            return None
        self._findings.inflated_bytes += member.bytes
        if self._findings.inflated_bytes > MAX_INFLATED_BYTES:
            self._findings.problem(f"it has over {MAX_INFLATED_BYTES >> 20} MiB in compressed members")
            return None
        try:
            data = archive.read(member.name, member.bytes + 1)
        except ValueError as error:
            self._findings.problem(str(error))
            return None
        if len(data) != member.bytes or zlib.crc32(data) != member.crc:
            self._findings.problem(f"its member {member.name} is not what the zip directory says")
            return None
        return data

    def _settings(self, read: Read, size: int, depth: int) -> None:
        """Stable-Baselines3's ``data``: JSON, with pickles in base64 (common/save_util.py)."""
        if size > MAX_DATA_BYTES:
            self._findings.problem("its settings (data) are larger than can be looked into")
            return
        try:
            pending = [json.loads(read(0, size))]
        except (ValueError, RecursionError):
            self._findings.problem("its settings (data) are not JSON")
            return
        while pending:
            value = pending.pop()
            if isinstance(value, list):
                pending.extend(item for item in value if isinstance(item, (dict, list)))
            elif isinstance(value, dict):
                if ":serialized:" in value:
                    self._serialized(value[":serialized:"], depth)
                pending.extend(item for item in value.values() if isinstance(item, (dict, list)))

    def _serialized(self, text: object, depth: int) -> None:
        try:
            data = base64.b64decode(str(text).encode())
            pickle_vm.follow(io.BytesIO(data), self._findings, self.inside, False, depth)
        except (ValueError, MalformedPickle) as error:
            self._findings.problem(f"its settings (data): {error}")


def _is_tar(head: bytes) -> bool:
    """Whether a file is a tar archive by its first header's sum, as the oldest ones have no other mark."""
    try:
        return bool(tarfile.TarInfo.frombuf(head, "latin-1", "strict").name)
    except tarfile.HeaderError:
        return False


def _holds_objects(header: bytes) -> bool:
    """Whether an array of numpy's may hold objects, which are pickled; so where its header cannot be read."""
    try:
        # As numpy reads it: two texts one behind the other are one, "'ob' 'ject'".
        found = ast.literal_eval(header.decode("latin-1").strip())
        return bool(re.search(r"O|obj", repr(found["descr"])))
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        return True
