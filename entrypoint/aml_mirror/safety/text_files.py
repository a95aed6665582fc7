"""Finds programs among text files, and files whose names say nothing."""

from __future__ import annotations

import re

import google_crc32c

from aml_mirror.formats.archives import Read
from aml_mirror.safety import configurations
from aml_mirror.safety.findings import Findings
from aml_mirror.safety.words import NO_CODE, UNKNOWN

_PART = 1 << 20
# Graphs of TensorFlow in text: a SavedModel, or a node with its operation.
_GRAPH = re.compile(
    r"^[ \t]*(?:saved_model_schema_version\s*:|meta_graphs\s*[{<])|\bnode\s*{[^{}]*\bop\s*:", re.M
)
# Expressions of xacro, which evaluates the contents of braces as Python without its built-in functions.
_XACRO = re.compile(r"\$\{[^{}]{1,2000}\}")
_TEXT_HEAD_BYTES = 1 << 20
# Files that their names identify as programs of a build tool or of a shell.
_RECIPES = frozenset(
    (
        "makefile", "gnumakefile", "dockerfile", "containerfile", "jenkinsfile", "vagrantfile", "rakefile",
        "justfile", "procfile", "sconstruct", "snakefile", ".bashrc", ".bash_profile", ".profile", ".zshrc",
        ".envrc",
    )
)  # fmt: skip
_LEGAL = re.compile(
    r"(?:LICEN[CS]E|COPYING|NOTICE|README|AUTHORS|CITATION|CHANGELOG|CHANGES|VERSION)(?:[-_]\w+)*", re.I
)
# A word, or lines with a key and a value, like TensorFlow's file "checkpoint" and DeepSpeed's "latest".
_VALUES = re.compile(
    rb"\s*(?:[\w./:=+-]+\s*|(?:[ \t]*[\w.-]+[ \t]*[:=][ \t]*[\w./:+\"'-]*[ \t]*(?:\r?\n|$))+)"
)
_SNIFF_TEXT = 64 << 10
_MAX_TEXT_BYTES = 64 << 20


def unnamed(read: Read, size: int, name: str, findings: Findings) -> str:
    """Examine a file whose name says nothing: Orbax's metadata, a licence, or anything else."""
    if ".tfevents." in name:
        return NO_CODE if is_framed(read(0, min(size, 12))) else UNKNOWN
    if name.lower() in _RECIPES:
        findings.runs(f"it is a {name}, whose commands the tool of this name runs")
        return NO_CODE
    if configurations.scan_json(read, size, findings, name):
        return NO_CODE
    # A text without a suffix may also be a script. Licences, and pointers to a checkpoint, are not.
    if "." not in name.lstrip(".") and is_text(read, size):
        known = _LEGAL.fullmatch(name) or (size <= _SNIFF_TEXT and _VALUES.fullmatch(read(0, size)))
        return NO_CODE if known else UNKNOWN
    return UNKNOWN


def is_text(read: Read, size: int) -> bool:
    """Tell whether a file is UTF-8 text without control characters, up to ``_MAX_TEXT_BYTES``."""
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


def scan_text(read: Read, size: int, findings: Findings) -> str:
    """Examine a file whose name says that it is a text."""
    if not is_text(read, size):
        return UNKNOWN
    text = read(0, min(size, _TEXT_HEAD_BYTES)).decode("utf-8", "replace")
    if size <= _TEXT_HEAD_BYTES and ("{%" in text or "{{" in text):
        configurations.scan_template(text, findings)
    if "<!ENTITY" in text:
        findings.problem("it declares XML entities, with which a reader opens files and addresses")
    if "<robot" in text:
        for match in _XACRO.finditer(text):
            if "__" in match[0]:
                findings.problem(f"it has the expression {match[0][:200]}, which xacro evaluates")
    if _GRAPH.search(text):
        findings.runs("it is a TensorFlow graph, which is run by tf.saved_model.load and the functions in it")
    return NO_CODE


def is_framed(head: bytes) -> bool:
    """Tell whether a file begins like TensorBoard's records: a length and its checksum."""
    checksum = google_crc32c.value(head[:8])
    masked = ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return len(head) >= 12 and head[8:12] == masked.to_bytes(4, "little")
