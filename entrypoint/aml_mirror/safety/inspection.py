"""Examines the parts of one file, each according to its bytes or its name."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import tarfile
import zlib

from aml_mirror.formats.archives import LEGACY_TORCH, Archive, Member, Read
from aml_mirror.formats.base import Kind
from aml_mirror.formats.registry import format_of, suffixes_of
from aml_mirror.formats.stable_baselines3 import MARK
from aml_mirror.safety import pickle_vm
from aml_mirror.safety.arrays import MAX_HEADER_BYTES, holds_objects
from aml_mirror.safety.findings import Findings, MalformedPickle, TooMuch
from aml_mirror.safety.other_formats import native_code, scan_other
from aml_mirror.safety.pickle_stream import Stream
from aml_mirror.safety.pickle_vm import MAX_DEPTH, MAX_PICKLE_BYTES
from aml_mirror.safety.references import leads_out
from aml_mirror.safety.unpacking import foreign_archive, unpack
from aml_mirror.safety.words import NO_CODE, UNKNOWN

# Settings of Stable-Baselines3 have some KiB, and may include an observation. Parsed JSON takes up to 20
# times its size.
MAX_DATA_BYTES = 8 << 20
# The most members of a zip archive besides tensors: torch adds a handful, TorchScript some hundred.
MAX_MEMBERS = 2_000
# For one file, including its archives. Python inflates some 500 MB per second.
MAX_INFLATED_BYTES = 1 << 30
_SNIFF = 512  # bytes; the magic of a tar archive is at 257
# What torch.save wrote before its tensors in that format: magic number, version, system, object, keys.
_LEGACY_PICKLES = 5
_TENSOR = re.compile(r"[^/\\]+/(?:data|constants)/\d+")
# A file with such a name is given to a loader of pickles, whatever it contains.
_LOADED_AS_PICKLE = suffixes_of(
    "torch.save", "pickle", "pickle under another name", "joblib", "numpy array", "numpy archive"
)
# Stable-Baselines3 finds an archive wherever it begins in such a file.
_LOADED_AS_ARCHIVE = suffixes_of("Stable-Baselines3", "Keras", "numpy archive", "exported program of torch")
_COMPRESSED = suffixes_of("compressed file")
_PT2 = suffixes_of("exported program of torch")
_KERAS = "config.json", "metadata.json"


class Inspection:
    """The examination of one file. The results for its parts are collected in one :class:`Findings`."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings

    def file(self, read: Read, size: int, path: str, depth: int = 0) -> str:
        """Examine a file; return its kind if it contains no pickle."""
        found = self._file(read, size, path, depth) if size else NO_CODE
        while self._findings.embedded:
            self._encoded(self._findings.embedded.pop(), depth + 1)
        return found

    def raw(self, read: Read, size: int) -> None:
        """Examine numbers that something else describes: do they begin like code for a loader?"""
        head = read(0, min(size, _SNIFF))
        if head.startswith((b"PK\x03\x04", LEGACY_TORCH)):
            self._file(read, size, "", 0)
        elif why := native_code(head):
            self._findings.runs(why)
        else:
            # A number may begin like a pickle, but is not one up to an import.
            self._text_pickle(read, size, 0)

    def _encoded(self, data: bytes, depth: int) -> None:
        """Examine bytes that a string contains in base64 or hexadecimal digits."""
        if depth > MAX_DEPTH:
            self._findings.problem(f"it has nested pickles, more than {MAX_DEPTH} levels deep")
            return
        trial = self._findings.trial()
        inner = Inspection(trial)
        if data.startswith(b"\x1f\x8b"):
            inner._compressed(lambda offset, count: data[offset : offset + count], len(data), depth, "")
        else:
            inner.inside(data, depth)
        if trial.pickles or trial.problems or trial.code:
            self._findings.take(trial)
        else:
            self._findings.spent(trial)

    def _file(self, read: Read, size: int, path: str, depth: int) -> str:
        head = read(0, min(size, _SNIFF))
        name = path.rpartition("/")[2].lower()
        if _is_tar(head):
            # Before all others: its first bytes are a file's name, which may look like the beginning of
            # anything.
            self._findings.problem("it is a tar archive, which is not examined")
        elif head.startswith(b"PK\x03\x04") or name.endswith(_LOADED_AS_ARCHIVE):
            return self._archive(read, size, depth, name)
        elif head.startswith(LEGACY_TORCH):
            self._legacy_torch(read, size, depth)
        elif head.startswith(b"\x93NUMPY"):
            self._numpy(read, size, depth)
        elif why := native_code(head):
            self._findings.runs(why)
        elif self._compressed(read, size, depth, name):
            pass
        elif head.startswith(pickle_vm.MAY_BE_INSIDE) or name.endswith(_LOADED_AS_PICKLE):
            self._pickles(read, size, depth)
        else:
            self._text_pickle(read, size, depth)
            return scan_other(read, size, path, head, self._findings)
        known = format_of(name)
        told = self._findings.problems or self._findings.code or self._findings.unknown
        if known is not None and known.kind is Kind.CODE and not told and not depth:
            self._findings.runs(f"its name belongs to {known.name}, which is run by {known.run_by}")
        return NO_CODE

    def inside(self, data: bytes, depth: int) -> bool:
        """Examine bytes that a pickle contains; return whether they are a file of torch."""

        def read(offset: int, count: int) -> bytes:
            return data[offset : offset + count]

        if data.startswith(b"PK"):
            self._archive(read, len(data), depth, "")
            return True
        if data.startswith(LEGACY_TORCH):
            self._legacy_torch(read, len(data), depth)
            return True
        # An array's bytes may begin like a pickle. They count if they are one up to its end, or as far as an
        # import; without the mark of protocol 2 or later, as far as a call. Either may come after more
        # opcodes than are followed.
        marked = data.startswith(pickle_vm.MAY_BE_INSIDE)
        trial = self._findings.trial()
        try:
            pickle_vm.follow(io.BytesIO(data), trial, Inspection(trial).inside, False, depth)
            counts = marked or bool(trial.names)
        except TooMuch as endless:
            counts = True
            trial.problem(f"a pickle inside it: {endless}")
        except MalformedPickle as damaged:
            counts = bool(trial.calls or trial.names) if marked else bool(trial.calls and trial.names)
            trial.problem(f"a pickle inside it: {damaged}")
        if counts:
            self._findings.take(trial)
        else:
            self._findings.spent(trial)
        return False

    def _pickles(self, read: Read, size: int, depth: int, start: int = 0, torch: bool = False) -> None:
        """Follow consecutive pickles up to the end of a file. There is at least one."""
        source = Stream(read, start, size)
        before = self._findings.pickles
        while self._findings.pickles == before or source.left:
            try:
                pickle_vm.follow(source, self._findings, self.inside, torch, depth)
            except pickle_vm.RawBytes as raw:
                self._findings.runs(str(raw))
                return
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
        """Check whether a file of another kind would also do something as a pickle.

        Protocols 0 and 1 have no mark of their own: such a pickle begins like any text. A text gets no
        further than a few opcodes, and calls nothing.
        """
        trial = self._findings.trial()
        try:
            pickle_vm.follow(Stream(read, 0, size), trial, Inspection(trial).inside, False, depth)
            counts = bool(trial.calls or trial.names)
        except TooMuch as endless:
            counts = True
            trial.problem(str(endless))
        except MalformedPickle:
            counts = bool(trial.calls)
        if counts:
            trial.problem("it is a pickle under another name")
            self._findings.take(trial)
        else:
            self._findings.spent(trial)

    def _numpy(self, read: Read, size: int, depth: int) -> None:
        """An array file. One with objects is a header and a pickle (numpy.lib.format)."""
        start = 12 if read(6, 1) != b"\x01" else 10
        length = int.from_bytes(read(8, start - 8), "little")
        header = read(start, min(length, MAX_HEADER_BYTES))
        if length > MAX_HEADER_BYTES or len(header) < length:
            self._findings.problem("its numpy header cannot be read")
        elif holds_objects(header):
            self._pickles(read, size, depth, start + length)

    def _compressed(self, read: Read, size: int, depth: int, name: str) -> bool:
        """Examine the contents of a compressed file; return whether it is one."""
        head = read(0, min(size, 16))
        named = name.endswith(_COMPRESSED)
        if foreign := foreign_archive(head):
            self._findings.untold(f"it is compressed ({foreign}) in a format that is not unpacked here")
            return True
        unpacked = unpack(read, size)
        if unpacked is None:
            if named:
                self._findings.untold("its name says that it is compressed, in an unknown format")
            return named
        if depth >= MAX_DEPTH:
            self._findings.problem(f"it has nested archives, more than {MAX_DEPTH} levels deep")
            return True
        trial = self._findings.trial()
        trial.inflated_bytes += len(unpacked.data)
        if trial.inflated_bytes > MAX_INFLATED_BYTES:
            trial.problem(f"it unpacks to more than {MAX_INFLATED_BYTES >> 20} MiB")
        elif unpacked.problem:
            trial.problem(unpacked.problem)
        else:
            data = unpacked.data
            inner = name
            for suffix in _COMPRESSED:
                inner = inner.removesuffix(suffix)
            # Joblib's loader and loaders of compressed pickles ignore the name.
            expected = name.endswith(_LOADED_AS_PICKLE)
            found = Inspection(trial).file(
                lambda offset, count: data[offset : offset + count],
                len(data),
                "x.pkl" if expected else inner,
                depth + 1,
            )
            if found == UNKNOWN and not (trial.problems or trial.code or trial.pickles):
                trial.untold("it is compressed, and the format of its contents is unknown")
        self._findings.take(trial)
        return True

    def _archive(self, read: Read, size: int, depth: int, name: str) -> str:
        if depth >= MAX_DEPTH:
            self._findings.problem(f"it has nested archives, more than {MAX_DEPTH} levels deep")
            return NO_CODE
        try:
            archive = Archive(read, size)
        except ValueError as error:
            self._findings.problem(f"its zip archive cannot be read: {error}")
            return NO_CODE
        members = [
            member
            for member in archive.members.values()
            if not (member.stored and _TENSOR.fullmatch(member.name)) and member.bytes
        ]
        if len(members) > MAX_MEMBERS:
            self._findings.problem(f"its zip archive has over {MAX_MEMBERS:,} members that are not tensors")
            return NO_CODE
        if (
            name.endswith(_PT2)
            or archive.find("archive_format")
            or archive.find("serialized_exported_program.json")
        ):
            self._findings.runs("it is an exported program: torch.export.load evaluates expressions in it")
        elif any(re.search(r"(?:^|[/\\])code[/\\]", member.name, re.I) for member in members):
            self._findings.runs("it holds TorchScript code, which torch.jit.load and torch.load run")
        for member in archive.members.values():
            if leads_out(member.name):
                self._findings.problem(
                    f"its member {member.name[:200]} leads out of the folder that it is unpacked into"
                )
        for member in members:
            self._member(read, archive, member, depth + 1)
        if not _is_known(archive):
            self._findings.untold("it is an unknown kind of zip archive")
        return NO_CODE

    def _member(self, read: Read, archive: Archive, member: Member, depth: int) -> None:
        # Readers differ in which part of a name counts. torch always finds data.pkl.
        name = member.name.replace("\\", "/").rpartition("/")[2].lower()
        if member.stored:
            contents: Read = lambda offset, count: read(  # noqa: E731
                member.start + offset, max(0, min(count, member.bytes - offset))
            )
        else:
            data = self._inflated(archive, member)
            if data is None:
                return
            contents = lambda offset, count: data[offset : offset + count]  # noqa: E731
        if name == "data" and member.name == name:
            self._settings(contents, member.bytes, depth)
        elif name.endswith(".pkl"):
            self._pickles(contents, member.bytes, depth, torch=True)
        else:
            self.file(contents, member.bytes, member.name, depth)

    def _inflated(self, archive: Archive, member: Member) -> bytes | None:
        if member.bytes > MAX_PICKLE_BYTES:
            # Compressed numbers (numpy.savez_compressed): only their header must be seen.
            head = archive.read(member.name, _SNIFF) if member.name.endswith(".npy") else b""
            if head.startswith(b"\x93NUMPY") and not _header_holds_objects(head):
                return None
            self._findings.problem(f"its compressed member {member.name} is too large to be examined")
            return None
        self._findings.inflated_bytes += member.bytes
        if self._findings.inflated_bytes > MAX_INFLATED_BYTES:
            self._findings.problem(f"it has more than {MAX_INFLATED_BYTES >> 20} MiB in compressed members")
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
            self._findings.problem("its settings (data) are too large to be examined")
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


def _is_known(archive: Archive) -> bool:
    """Tell whether an archive belongs to torch, Stable-Baselines3, numpy or Keras."""
    names = list(archive.members)
    if archive.find("data.pkl") or MARK in names or all(name in names for name in _KERAS):
        return True
    return all(name.endswith((".npy", "/")) for name in names) or any(
        name.endswith(("data.pkl", ".pth")) for name in map(str.lower, names)
    )


def _header_holds_objects(head: bytes) -> bool:
    start = 12 if head[6:7] != b"\x01" else 10
    (length,) = struct.unpack("<I" if start == 12 else "<H", head[8:start])
    return length > len(head) - start or holds_objects(head[start : start + length])


def _is_tar(head: bytes) -> bool:
    """Tell whether a file is a tar archive, by its first header's checksum. Old ones have no other mark."""
    try:
        return bool(tarfile.TarInfo.frombuf(head, "latin-1", "strict").name)
    except tarfile.HeaderError:
        return False
