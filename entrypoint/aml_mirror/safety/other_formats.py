"""Examines files that are neither pickles nor archives: the format, its validity, whether it runs code."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable

from aml_mirror.formats import gguf, hdf5_attributes, hdf5_links, onnx
from aml_mirror.formats.archives import Read
from aml_mirror.formats.base import Kind
from aml_mirror.formats.hdf5 import HDF5, SIGNATURE
from aml_mirror.formats.json_text import JSON
from aml_mirror.formats.media import EVENTS
from aml_mirror.formats.msgpack import MSGPACK, msgpack_problem
from aml_mirror.formats.ocdbt import OCDBT
from aml_mirror.formats.protobuf import fields_problem
from aml_mirror.formats.registry import format_of
from aml_mirror.formats.safetensors import SAFETENSORS as SAFETENSORS_FORMAT
from aml_mirror.formats.safetensors import read_header
from aml_mirror.formats.tensorflow import INDEX_END, SAVED_MODEL, VARIABLES
from aml_mirror.formats.texts import YAML
from aml_mirror.safety import configurations
from aml_mirror.safety.findings import Findings
from aml_mirror.safety.references import leads_out
from aml_mirror.safety.text_files import is_framed, is_text, scan_text, unnamed
from aml_mirror.safety.words import NO_CODE, SAFETENSORS, UNKNOWN

# First bytes of machine code (ELF, PE, Mach-O in four orders, Java, WebAssembly), of scripts, and of
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
# TensorFlow's operations that read or write files, or call Python.
_FILE_OPERATIONS = frozenset(
    b"ReadFile WriteFile MatchingFiles PyFunc EagerPyFunc PyFuncStateless ImmutableConst DebugIdentity "
    b"DebugIdentityV2 PrintV2 GeneratorDataset TextLineDataset TFRecordDataset SaveSlices LoadLibrary "
    b"WholeFileReader WholeFileReaderV2 ReadVariableFile XlaLaunch".split()
)
# Operations of ONNX Runtime and its extensions that call Python.
_PYTHON_OPERATIONS = frozenset(("PyOp", "PythonOp", "PythonOpGrad", "PyCustomOp", "PyCustomOpDef"))
_TABLE_BYTES = 1 << 20
_ZIP_END_BYTES = 22 + (64 << 10)  # the record and the longest comment
_PART = 1 << 20
_MAX_GRAPH_BYTES = 256 << 20


def native_code(head: bytes) -> str:
    """Return what kind of program a file is, by its first bytes; empty: none of the known ones."""
    for magic, what in _NATIVE.items():
        # Two bytes match many things. A portable executable continues with its header's size.
        program = magic != b"MZ" or (head[2:4] not in (b"", b"\0\0") and len(head) >= 64)
        if head.startswith(magic) and program:
            return f"it is {what}, which runs when it is loaded or started"
    return ""


def scan_other(read: Read, size: int, path: str, head: bytes, findings: Findings) -> str:
    """Examine a file that is not a pickle; return ``safetensors``, ``no-code`` or ``unknown``."""
    name = path.rpartition("/")[2]
    if name.lower() in ("mlmodel", "mlmodel_"):
        return NO_CODE if configurations.scan_mlmodel(read, size, findings) else UNKNOWN
    known = format_of(path)
    if head.startswith(gguf.MAGIC):
        known = gguf.GGUF
    elif head.startswith(SIGNATURE):
        known = HDF5
    if known is None:
        return unnamed(read, size, name, findings)
    if known is JSON:
        return _json(read, size, findings, name)
    scan = _SCANS.get(known.name)
    if scan is not None:
        return scan(read, size, findings)
    if known.kind is Kind.CODE:
        findings.runs(f"it is a file of {known.name}, which is run by {known.run_by}")
        return NO_CODE
    if known.name in _MEDIA:
        if known.name == "table" and _unpickles(read, size):
            findings.problem("its type arrow.py_extension_type makes older releases of pyarrow unpickle it")
        # Python starts such an archive, whatever comes before it.
        if b"PK\x05\x06" in read(max(0, size - _ZIP_END_BYTES), min(size, _ZIP_END_BYTES)):
            findings.untold(f"behind the {known.name} a zip archive seems to end")
        known_head = head.startswith(_MEDIA[known.name]) or bool(_FILM.match(head))
        return NO_CODE if known_head or (known.name == "mesh" and _is_mesh(read, size)) else UNKNOWN
    if known is VARIABLES:
        return NO_CODE if read(max(0, size - 8), 8) == INDEX_END else UNKNOWN
    return NO_CODE if known is EVENTS and is_framed(head) else UNKNOWN


def _unpickles(read: Read, size: int) -> bool:
    """Tell whether an Arrow table has the type whose description is a pickle (CVE-2023-47248)."""
    name = b"arrow.py_extension_type"
    # Parquet contains Arrow's schema in base64: the middle of the name, at any byte offset.
    wanted = [name] + [base64.b64encode(bytes(shift) + name)[4:-4] for shift in range(3)]
    parts = (read(0, min(size, _TABLE_BYTES)), read(max(0, size - _TABLE_BYTES), min(size, _TABLE_BYTES)))
    return any(text in part for part in parts for text in wanted)


def _is_mesh(read: Read, size: int) -> bool:
    # A binary STL is 80 bytes, a count, and 50 bytes for each triangle.
    return (size > 84 and 84 + 50 * int.from_bytes(read(80, 4), "little") == size) or is_text(read, size)


def _safetensors(read: Read, size: int, findings: Findings) -> str:
    try:
        read_header(read, size)
    except ValueError as error:
        findings.untold(f"it is not a complete safetensors file: {error}")
        return UNKNOWN
    return SAFETENSORS


def _msgpack(read: Read, size: int, findings: Findings) -> str:
    found: set[str] = set()
    if why := msgpack_problem(read, size, found):
        findings.untold(f"it is not valid msgpack: {why}")
    if found:
        findings.problem("it contains an array of objects, which msgpack-numpy unpickles")
    return NO_CODE


def _protobuf(read: Read, size: int, findings: Findings) -> str:
    if why := fields_problem(read, size):
        findings.untold(f"it is not what its name says: {why}")
    return NO_CODE


def _onnx(read: Read, size: int, findings: Findings) -> str:
    try:
        found = onnx.references(read, size)
    except ValueError as error:
        findings.untold(f"it is not an ONNX model that can be examined: {error}")
        return UNKNOWN
    for path in sorted(found.paths):
        if leads_out(path):
            findings.problem(f"it reads tensors from {path[:200]}, outside of its folder")
    for name in sorted(found.operations & _PYTHON_OPERATIONS):
        findings.runs(f"it has the operation {name}, with which ONNX Runtime calls Python")
    return NO_CODE


def _ocdbt(read: Read, size: int, findings: Findings) -> str:
    return NO_CODE if read(0, 4) == b"\x0c\xdb\x3a\x2a" else UNKNOWN


def _json(read: Read, size: int, findings: Findings, name: str) -> str:
    if not configurations.scan_json(read, size, findings, name):
        findings.untold("its name says JSON, but it is not")
    return NO_CODE


def _yaml(read: Read, size: int, findings: Findings) -> str:
    if not configurations.scan_yaml(read, size, findings):
        findings.untold("its name says YAML, but it is not")
    return NO_CODE


def _gguf(read: Read, size: int, findings: Findings) -> str:
    try:
        texts = gguf.read_header(read, size).texts
    except ValueError as error:
        findings.untold(f"it is not a complete GGUF file: {error}")
        return UNKNOWN
    for key, text in texts.items():
        if "chat_template" in key:
            configurations.scan_template(text, findings)
            findings.runs("it contains a chat template, a program that llama-cpp-python renders")
    return NO_CODE


def _hdf5(read: Read, size: int, findings: Findings) -> str:
    try:
        attributes = hdf5_attributes.root_attributes(read, size)
        others = hdf5_links.other_files(read, size)
    except ValueError as error:
        findings.untold(f"it is an HDF5 file, which may contain Keras code, and cannot be examined: {error}")
        return UNKNOWN
    for path in sorted(others):
        if leads_out(path):
            findings.problem(f"it reads arrays from {path[:200]}, outside of its folder")
    if "PYTABLES_FORMAT_VERSION" in attributes:
        findings.runs("it is a file of PyTables, which unpickles objects in it (pandas.read_hdf)")
    for name, value in attributes.items():
        if name in ("model_config", "training_config"):
            if value is None:
                findings.untold(f"its attribute {name}, in which Keras may store code, cannot be read")
            elif not configurations.scan_json(
                lambda offset, count, value=value: value[offset : offset + count],  # type: ignore[misc]
                len(value),
                findings,
                name,
            ):
                findings.untold(f"its attribute {name} is not JSON")
    return NO_CODE


def _saved_model(read: Read, size: int, findings: Findings) -> str:
    findings.runs("it is a TensorFlow graph, which is run by tf.saved_model.load and the functions in it")
    rest = b""
    for offset in range(0, min(size, _MAX_GRAPH_BYTES), _PART):
        part = rest + read(offset, min(_PART, size - offset))
        # A node is its name (field 1), then its operation (field 2). The length before it is one byte.
        for name in _FILE_OPERATIONS:
            if b"\x12" + bytes([len(name)]) + name in part:
                findings.problem(f"its graph has the operation {name.decode()}, which reads or writes files")
        rest = part[-64:]
    return NO_CODE


_SCANS: dict[str, Callable[[Read, int, Findings], str]] = {
    SAFETENSORS_FORMAT.name: _safetensors,
    MSGPACK.name: _msgpack,
    OCDBT.name: _ocdbt,
    onnx.ONNX.name: _onnx,
    "SentencePiece vocabulary": _protobuf,
    YAML.name: _yaml,
    "text": scan_text,
    gguf.GGUF.name: _gguf,
    HDF5.name: _hdf5,
    SAVED_MODEL.name: _saved_model,
}
