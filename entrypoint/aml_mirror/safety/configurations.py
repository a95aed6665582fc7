"""Finds what configurations in JSON and YAML, and templates, make their readers import, call or render.

:mod:`.references` says which values count under which keys. Other sources: PyYAML's constructors
(``!!python/…``); MLflow's ``pyfunc.load_model`` (``loader_module``, ``code``); Jinja's documentation of its
sandbox.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from aml_mirror.formats.archives import Read
from aml_mirror.formats.json_text import MAX_PARSED_BYTES, PART_BYTES
from aml_mirror.safety.findings import Findings, Name
from aml_mirror.safety.known_code import FRAMEWORKS
from aml_mirror.safety.references import KEYS, walk

# Without its C library, PyYAML reads about 100 KB per second. The largest configuration of Isaac Lab has 60
# KB.
MAX_YAML_BYTES = 2 << 20
MAX_TEXT_BYTES = 64 << 20
# How deep a configuration may be nested. Python's own limit is not far above that.
_MAX_DEPTH = 200
# Without white space. A vocabulary contains such words too, followed by numbers.
_KEYS = re.compile(
    rb'"(?:' + "|".join(map(re.escape, KEYS)).encode() + rb')":["{\[]'
    # An escaped letter or underscore, which is only used as a disguise.
    rb"|\\u00(?:5[fF0-9aA]|[46][0-9a-fA-F]|7[0-9aA])"
)
# Those of YAML's tags for Python that produce plain values.
_PLAIN_TAGS = frozenset(
    ("none", "bool", "str", "unicode", "int", "long", "float", "complex", "list", "tuple", "dict", "bytes")
)
# GR00T's configurations are dataclasses without their own code, and an enumeration.
_STORES_STATE = re.compile(
    r"object:gr00t\.configs(?:\.\w+)*\.[A-Z]\w*|object/apply:gr00t\.data(?:\.\w+)*\.EmbodimentTag"
)
_PYTHON_TAG = "tag:yaml.org,2002:python/"
# A template escapes its sandbox by attributes with underscores, however their names are written.
_OUT_OF_SANDBOX = re.compile(
    r"__|\|\s*attr\b|\\x5f|\\u005f|\\137|lipsum|\bself\b\s*[.\[]|_\s*~\s*['\"]_", re.I
)
_WORDS: dict[str, object] = {"": None, "~": None, "null": None, "true": True, "false": False}


def scan_json(read: Read, size: int, findings: Findings, name: str) -> bool:
    """Examine a JSON file; return whether it was examined."""
    if size > MAX_PARSED_BYTES:
        return _scan_large_json(read, size, findings)
    try:
        document = json.loads(read(0, size).decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return False
    _walk(document, findings, name)
    return True


def _walk(document: Any, findings: Findings, name: str) -> None:
    for text in walk(document, findings, name):
        scan_template(text, findings)


def _scan_large_json(read: Read, size: int, findings: Findings) -> bool:
    """A tokenizer's vocabulary: it is searched for the keys that make a reader run something, not parsed."""
    if size > MAX_TEXT_BYTES:
        findings.untold(f"it is JSON of more than {MAX_TEXT_BYTES >> 20} MiB, which is not examined")
        return True
    rest = b""
    for offset in range(0, size, PART_BYTES):
        part = rest + re.sub(rb"[ \t\r\n]+", b"", read(offset, min(PART_BYTES, size - offset)))
        if match := _KEYS.search(part):
            key = match[0].decode("ascii", "replace")
            findings.untold(f"it is JSON of more than {MAX_PARSED_BYTES >> 20} MiB that holds {key}")
            return True
        rest = part[-64:]
    return True


def scan_template(text: str, findings: Findings) -> None:
    """Examine a chat template, which is a program in Jinja that transformers renders in a sandbox."""
    if _OUT_OF_SANDBOX.search(text):
        findings.problem("its chat template accesses something outside its sandbox")


def scan_yaml(read: Read, size: int, findings: Findings) -> bool:
    """Examine a YAML file; return whether it was examined."""
    if size > MAX_YAML_BYTES:
        findings.untold(f"it is YAML of more than {MAX_YAML_BYTES >> 20} MiB, which is not examined")
        return True
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    builder = _Builder()
    try:
        for event in yaml.parse(read(0, size), Loader=loader):
            tag = getattr(event, "tag", None)
            if isinstance(tag, str):
                _yaml_tag(tag, findings)
            builder.take(event)
            if builder.depth > _MAX_DEPTH:
                findings.untold("it is YAML that is nested too deeply to be examined")
                return True
    except (yaml.YAMLError, ValueError, RecursionError):
        return False
    _walk(builder.documents, findings, "")
    return True


class _Builder:
    """Builds plain values from a YAML stream. Anchors are resolved, but no objects are created."""

    def __init__(self) -> None:
        self.documents: list[Any] = []
        self.depth = 0
        self._open: list[list[Any]] = [self.documents]
        self._mappings: list[dict[Any, Any] | None] = []
        self._anchors: dict[str, Any] = {}

    def take(self, event: Any) -> None:
        if isinstance(event, yaml.CollectionStartEvent):
            # A mapping is complete at its end, but may be referred to before.
            mapping: dict[Any, Any] | None = {} if isinstance(event, yaml.MappingStartEvent) else None
            items: list[Any] = []
            self._put(items if mapping is None else mapping, event.anchor)
            self._open.append(items)
            self._mappings.append(mapping)
            self.depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            items, mapping = self._open.pop(), self._mappings.pop()
            self.depth -= 1
            if mapping is not None:
                self._fill(mapping, items)
        elif isinstance(event, yaml.ScalarEvent):
            plain = event.implicit[0] and event.value.lower() in _WORDS
            self._put(_WORDS[event.value.lower()] if plain else event.value, event.anchor)
        elif isinstance(event, yaml.AliasEvent):
            self._put(self._anchors.get(str(event.anchor)), None)

    def _put(self, value: Any, anchor: str | None) -> None:
        if anchor:
            self._anchors[anchor] = value
        self._open[-1].append(value)

    def _fill(self, mapping: dict[Any, Any], items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):
                # Null, a list or a mapping as a key, which may contain anything.
                self.documents.append(key)
                key = f"key {len(mapping)}"
            if key in mapping:
                self.documents.append({key: mapping[key]})  # readers use the first or the last one
            mapping[key] = value


def _yaml_tag(tag: str, findings: Findings) -> None:
    if not tag.startswith(_PYTHON_TAG):
        if not tag.startswith(("tag:yaml.org,2002:", "!")) or tag.startswith(("!!python", "!python")):
            findings.runs(f"its tag {tag[:200]} creates an object in the reader")
        return
    kind, _, name = tag.removeprefix(_PYTHON_TAG).partition(":")
    if kind in _PLAIN_TAGS:
        return
    module, _, attribute = name.rpartition(".")
    if Name(module or "builtins", attribute).allowed:
        return
    if _STORES_STATE.fullmatch(f"{kind}:{name}"):
        return
    text = f"its tag !!python/{kind}:{name[:200]} is run by yaml.unsafe_load"
    is_framework = module.partition(".")[0] in FRAMEWORKS
    if is_framework and (kind == "name" or (kind.startswith("object") and attribute[:1].isupper())):
        findings.runs(text)
    else:
        findings.problem(text)


def scan_mlmodel(read: Read, size: int, findings: Findings) -> bool:
    """Examine a file that MLflow reads as a model's description; return whether it is one."""
    if not scan_yaml(read, size, findings):
        return False
    try:
        document = yaml.safe_load(read(0, min(size, MAX_YAML_BYTES)))
    except (yaml.YAMLError, ValueError, RecursionError):
        return False
    flavors = document.get("flavors") if isinstance(document, dict) else None
    for flavor in flavors.values() if isinstance(flavors, dict) else ():
        if isinstance(flavor, dict):
            for key in ("loader_module", "code", "code_path", "model_code_path", "python_model"):
                if flavor.get(key):
                    findings.runs(
                        f"it names {str(flavor[key])[:200]} ({key}), which mlflow.pyfunc.load_model would "
                        "run: the version stores it under another name"
                    )
    return True
