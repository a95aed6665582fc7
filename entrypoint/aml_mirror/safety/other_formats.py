"""Files that are no pickles and no archives: is the format known, is the file one of it, does it run code."""

from __future__ import annotations

import re
from collections.abc import Callable

from aml_mirror.formats import gguf, hdf5_attributes, onnx
from aml_mirror.formats.archives import Read
from aml_mirror.formats.base import Format, Kind
from aml_mirror.formats.hdf5 import HDF5, SIGNATURE
from aml_mirror.formats.json_text import JSON
from aml_mirror.formats.msgpack import MSGPACK, msgpack_problem
from aml_mirror.formats.ocdbt import OCDBT
from aml_mirror.formats.protobuf import fields_problem
from aml_mirror.formats.registry import format_of
from aml_mirror.formats.safetensors import SAFETENSORS as SAFETENSORS_FORMAT
from aml_mirror.formats.safetensors import read_header
from aml_mirror.formats.tensorflow import SAVED_MODEL
from aml_mirror.formats.texts import YAML
from aml_mirror.safety import configurations
from aml_mirror.safety.findings import Findings
from aml_mirror.safety.words import NO_CODE, SAFETENSORS, UNKNOWN

# First bytes of what a machine runs (ELF, PE, Mach-O in four orders, Java, WebAssembly), of scripts, and of
# TensorRT's engines.
_NATIVE = {
    b"\x7fELF": "a native program or library (ELF)",
    b"MZ": "a native program or library (PE)",
    b"\xfe\xed\xfa\xce": "a native program or library (Mach-O)",
    b"\xfe\xed\xfa\xcf": "a native program or library (Mach-O)",
    b"\xce\xfa\xed\xfe": "a native program or library (Mach-O)",
    b"\xcf\xfa\xed\xfe": "a native program or library (Mach-O)",
    b"\xca\xfe\xba\xbe": "a native program or library (Mach-O), or a class of Java",
    b"\0asm": "a program in WebAssembly",
    b"#!": "a script",
    b"ftrt": "a TensorRT engine",
    b"ptrt": "a TensorRT engine",
}
_MEDIA = {
    "picture or film": (
        b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"\x1aE\xdf\xa3",
    ),
    "table": (b"PAR1", b"ARROW1", b"\xff\xff\xff\xff", b"FEA1"),
    "mesh": (b"glTF", b"ply", b"solid"),
}  # fmt: skip
_FILM = re.compile(rb".{4}ftyp", re.S)
# Of TensorFlow's operations those that read or write files, or call Python.
_FILE_OPERATIONS = frozenset(
    b"ReadFile WriteFile MatchingFiles PyFunc EagerPyFunc PyFuncStateless ImmutableConst DebugIdentity "
    b"DebugIdentityV2 PrintV2 GeneratorDataset TextLineDataset TFRecordDataset SaveSlices LoadLibrary "
    b"WholeFileReader WholeFileReaderV2 ReadVariableFile XlaLaunch".split()
)
_MAX_TEXT_BYTES = 64 << 20
_PART = 1 << 20
_MAX_GRAPH_BYTES = 256 << 20


def native_code(head: bytes) -> str:
    """Say what program a file is by its first bytes; empty: none of those that are known."""
    for magic, what in _NATIVE.items():
        # Two bytes are many things: a portable executable goes on with its header's size.
        program = magic != b"MZ" or (head[2:4] not in (b"", b"\0\0") and len(head) >= 64)
        if head.startswith(magic) and program:
            return f"it is {what}, which runs where it is loaded or started"
    return ""


def scan_other(read: Read, size: int, path: str, head: bytes, findings: Findings) -> str:
    """Look into a file that is no pickle; returns ``safetensors``, ``no-code`` or ``unknown``."""
    name = path.rpartition("/")[2]
    if name.lower() in ("mlmodel", "mlmodel_"):
        return NO_CODE if configurations.scan_mlmodel(read, size, findings) else UNKNOWN
    known = format_of(path)
    if head.startswith(gguf.MAGIC):
        known = gguf.GGUF
    elif head.startswith(SIGNATURE):
        known = HDF5
    if known is None:
        return _unnamed(read, size, name, findings)
    scan = _SCANS.get(known.name)
    if scan is not None:
        return scan(read, size, findings)
    if known.kind is Kind.CODE:
        findings.runs(f"it is a file of {known.name}, which is run by {known.run_by}")
        return NO_CODE
    if known.name in _MEDIA:
        known_head = head.startswith(_MEDIA[known.name]) or bool(_FILM.match(head))
        return NO_CODE if known_head or (known.name == "mesh" and _is_mesh(read, size)) else UNKNOWN
    return _named_only(known, head)


def _named_only(known: Format, head: bytes) -> str:
    # TensorFlow's tables of variables are what the graph beside them reads; TensorBoard's logs are framed.
    return NO_CODE if known.name in ("TensorFlow variables", "TensorBoard events") and head else UNKNOWN


def _unnamed(read: Read, size: int, name: str, findings: Findings) -> str:
    """A file whose name says nothing: Orbax's metadata, a licence, or anything."""
    if ".tfevents." in name:
        return NO_CODE
    if configurations.scan_json(read, size, findings, name):
        return NO_CODE
    # Without a suffix no loader takes a text for anything else.
    if "." not in name.lstrip(".") and _is_text(read, size):
        return NO_CODE
    return UNKNOWN


def _is_text(read: Read, size: int) -> bool:
    """Tell whether a file is a text of UTF-8 without control characters, up to ``_MAX_TEXT_BYTES``."""
    if size > _MAX_TEXT_BYTES:
        return False
    rest = b""
    for offset in range(0, size, _PART):
        part = rest + read(offset, min(_PART, size - offset))
        if re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", part):
            return False
        try:
            part.decode()
            rest = b""
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                return False
            rest = part[error.start :]
    return not rest


def _is_mesh(read: Read, size: int) -> bool:
    # A binary STL is 80 bytes, a count, and 50 bytes for each triangle.
    return (size > 84 and 84 + 50 * int.from_bytes(read(80, 4), "little") == size) or _is_text(read, size)


def _safetensors(read: Read, size: int, findings: Findings) -> str:
    try:
        read_header(read, size)
    except ValueError as error:
        findings.untold(f"it is no whole safetensors file: {error}")
        return UNKNOWN
    return SAFETENSORS


def _msgpack(read: Read, size: int, findings: Findings) -> str:
    if why := msgpack_problem(read, size):
        findings.untold(f"it is no msgpack: {why}")
    return NO_CODE


def _protobuf(read: Read, size: int, findings: Findings) -> str:
    if why := fields_problem(read, size):
        findings.untold(f"it is not what its name says: {why}")
    return NO_CODE


def _ocdbt(read: Read, size: int, findings: Findings) -> str:
    return NO_CODE if read(0, 4) == b"\x0c\xdb\x3a\x2a" else UNKNOWN


def _json(read: Read, size: int, findings: Findings) -> str:
    if not configurations.scan_json(read, size, findings, ""):
        findings.untold("it is named as JSON, and is none")
    return NO_CODE


def _yaml(read: Read, size: int, findings: Findings) -> str:
    if not configurations.scan_yaml(read, size, findings):
        findings.untold("it is named as YAML, and is none")
    return NO_CODE


def _text(read: Read, size: int, findings: Findings) -> str:
    if not _is_text(read, size):
        return UNKNOWN
    if size <= 1 << 20:
        text = read(0, size).decode("utf-8", "replace")
        if "{%" in text or "{{" in text:
            configurations.scan_template(text, findings)
    return NO_CODE


def _gguf(read: Read, size: int, findings: Findings) -> str:
    try:
        texts = gguf.read_header(read, size).texts
    except ValueError as error:
        findings.untold(f"it is no whole GGUF file: {error}")
        return UNKNOWN
    for key, text in texts.items():
        if "chat_template" in key:
            configurations.scan_template(text, findings)
            findings.runs("it holds a chat template, a program that llama-cpp-python renders")
    return NO_CODE


def _hdf5(read: Read, size: int, findings: Findings) -> str:
    try:
        attributes = hdf5_attributes.root_attributes(read, size)
    except ValueError as error:
        findings.untold(f"it is an HDF5 file, in which Keras may keep code, and cannot be examined: {error}")
        return UNKNOWN
    for name, value in attributes.items():
        if name in ("model_config", "training_config"):
            if value is None:
                findings.untold(f"its attribute {name}, in which Keras may keep code, cannot be read")
            elif not configurations.scan_json(
                lambda offset, count, value=value: value[offset : offset + count],  # type: ignore[misc]
                len(value),
                findings,
                name,
            ):
                findings.untold(f"its attribute {name} is no JSON")
    return NO_CODE


def _saved_model(read: Read, size: int, findings: Findings) -> str:
    findings.runs("it is a TensorFlow graph, which is run by tf.saved_model.load and the functions in it")
    rest = b""
    for offset in range(0, min(size, _MAX_GRAPH_BYTES), _PART):
        part = rest + read(offset, min(_PART, size - offset))
        # A node is its name (field 1), then its operation (field 2): the length before it is a byte.
        for name in _FILE_OPERATIONS:
            if b"\x12" + bytes([len(name)]) + name in part:
                findings.problem(f"its graph has the operation {name.decode()}, which reads or writes files")
        rest = part[-64:]
    return NO_CODE


_SCANS: dict[str, Callable[[Read, int, Findings], str]] = {
    SAFETENSORS_FORMAT.name: _safetensors,
    MSGPACK.name: _msgpack,
    OCDBT.name: _ocdbt,
    onnx.ONNX.name: _protobuf,
    "SentencePiece vocabulary": _protobuf,
    JSON.name: _json,
    YAML.name: _yaml,
    "text": _text,
    gguf.GGUF.name: _gguf,
    HDF5.name: _hdf5,
    SAVED_MODEL.name: _saved_model,
}
