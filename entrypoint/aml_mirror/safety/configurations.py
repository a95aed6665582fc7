"""What configurations make their readers import, call or render: JSON, YAML, templates, MLmodel.

Sources: Hydra's ``instantiate`` (``_target_``); transformers' ``get_class_from_dynamic_module``
(``auto_map``, ``custom_pipelines``); lerobot/processor/pipeline.py, ``_resolve_step_class`` (a step's
``class``); MLflow's ``pyfunc.load_model`` (``loader_module``, ``code``); PyYAML's constructors
(``!!python/…``); Keras's ``deserialize_keras_object``; Jinja's documentation of its sandbox.
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

# PyYAML reads some 100 KB a second without its C library; the largest configuration of Isaac Lab has 60 KB.
MAX_YAML_BYTES = 2 << 20
MAX_TEXT_BYTES = 64 << 20
# How deep a configuration may be nested; Python's own limit is not far.
_MAX_DEPTH = 200
_KEYS = re.compile(
    rb'"(?:_target_|auto_map|custom_pipelines|loader_module|chat_template|class_name|class)"\s*:'
    # A letter or an underscore that is escaped, which nothing but a disguise has.
    rb"|\\u00(?:5[fF0-9aA]|[46][0-9a-fA-F]|7[0-9aA])"
)
_STEP_CLASS = re.compile(r"lerobot(?:\.[a-z_][a-z0-9_]*)+\.[A-Z]\w*(?:ProcessorStep|Step|Processor)")
# Of YAML's tags for Python these make plain values.
_PLAIN_TAGS = frozenset(
    ("none", "bool", "str", "unicode", "int", "long", "float", "complex", "list", "tuple", "dict", "bytes")
)
# GR00T's configurations are dataclasses without code of their own, and an enumeration.
_STORES_STATE = re.compile(
    r"object:gr00t\.configs(?:\.\w+)*\.[A-Z]\w*|object/apply:gr00t\.data(?:\.\w+)*\.EmbodimentTag"
)
_PYTHON_TAG = "tag:yaml.org,2002:python/"
# A template reaches out of its sandbox by attributes with underscores, however their names are written.
_OUT_OF_SANDBOX = re.compile(
    r"__|\|\s*attr\b|\\x5f|\\u005f|\\137|lipsum|\bself\b\s*[.\[]|_\s*~\s*['\"]_", re.I
)


def scan_json(read: Read, size: int, findings: Findings, name: str) -> bool:
    """Look into a JSON file; returns whether it is one that was examined."""
    if size > MAX_PARSED_BYTES:
        return _scan_large_json(read, size, findings)
    try:
        document = json.loads(read(0, size).decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return False
    _walk(document, findings, name)
    return True


def _scan_large_json(read: Read, size: int, findings: Findings) -> bool:
    """A tokenizer's vocabulary: searched for the keys that make a reader run something, not parsed."""
    if size > MAX_TEXT_BYTES:
        findings.untold(f"it is JSON of more than {MAX_TEXT_BYTES >> 20} MiB, which is not looked into")
        return True
    rest = b""
    for offset in range(0, size, PART_BYTES):
        part = rest + read(offset, min(PART_BYTES, size - offset))
        if match := _KEYS.search(part):
            key = match[0].decode("ascii", "replace")
            findings.untold(f"it is JSON of more than {MAX_PARSED_BYTES >> 20} MiB that holds {key}")
            return True
        rest = part[-64:]
    return True


def _walk(document: Any, findings: Findings, name: str) -> None:
    pending: list[tuple[Any, str]] = [(document, "")]
    while pending:
        value, key = pending.pop()
        if isinstance(value, str):
            findings.text(value)
        elif isinstance(value, list):
            pending += [(item, key) for item in value]
        elif isinstance(value, dict):
            _mapping(value, key, findings, name)
            pending += [(item, str(under)) for under, item in value.items()]


def _mapping(value: dict[Any, Any], key: str, findings: Findings, name: str) -> None:
    for under, item in value.items():
        if under in ("_target_", "_instantiator", "_class_path") and isinstance(item, str):
            findings.target(item)
        elif under in ("auto_map", "custom_pipelines") and item:
            findings.runs(
                f"its {under} names Python files, which transformers imports where trust_remote_code is given"
            )
        elif under == "chat_template":
            for text in _texts(item):
                scan_template(text, findings)
    step = value.get("class") if key == "steps" and "registry_name" not in value else None
    if isinstance(step, str) and not _STEP_CLASS.fullmatch(step):
        findings.runs(f"its step names the class {step[:200]}, which LeRobot imports and makes")
    if isinstance(value.get("class_name"), str) and isinstance(value.get("config"), dict):
        keras_object(value, findings)


def _texts(item: Any) -> list[str]:
    if isinstance(item, str):
        return [item]
    if isinstance(item, dict):
        return [text for below in item.values() for text in _texts(below)]
    return [text for below in item for text in _texts(below)] if isinstance(item, list) else []


def keras_object(value: dict[str, Any], findings: Findings) -> None:
    """Look at one layer, function or other object in the configuration of a Keras model."""
    kind, module = value["class_name"], value.get("module")
    registered = str(value.get("registered_name") or "")
    if kind in ("Lambda", "__lambda__", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer"):
        findings.runs(f"its layer {kind} holds or names code, which Keras runs with safe_mode=False")
    elif module is not None and str(module).partition(".")[0] not in ("keras", "builtins", "tensorflow"):
        findings.runs(f"its configuration names {module}.{kind}, which Keras imports")
    elif module is None and ">" in registered and not registered.startswith(("keras>", "Keras>")):
        findings.runs(f"its configuration names {registered[:200]}, which whoever loads it has to provide")


def scan_template(text: str, findings: Findings) -> None:
    """Look into a chat template, a program in Jinja that transformers renders in a sandbox."""
    if _OUT_OF_SANDBOX.search(text):
        findings.problem("its chat template reaches for what is outside of its sandbox")


def scan_yaml(read: Read, size: int, findings: Findings) -> bool:
    """Look into a YAML file; returns whether it is one that was examined."""
    if size > MAX_YAML_BYTES:
        findings.untold(f"it is YAML of more than {MAX_YAML_BYTES >> 20} MiB, which is not looked into")
        return True
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    last = ""
    depth = 0
    try:
        for event in yaml.parse(read(0, size), Loader=loader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > _MAX_DEPTH:
                    findings.untold("it is YAML that is nested too deep to be looked into")
                    return True
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            tag = getattr(event, "tag", None)
            if isinstance(tag, str):
                _yaml_tag(tag, findings)
            if isinstance(event, yaml.ScalarEvent):
                if last in ("_target_", "_instantiator", "_class_path"):
                    findings.target(event.value)
                findings.text(event.value)
                last = event.value
            else:
                last = "" if isinstance(event, yaml.CollectionStartEvent) else last
    except (yaml.YAMLError, ValueError, RecursionError):
        return False
    return True


def _yaml_tag(tag: str, findings: Findings) -> None:
    if not tag.startswith(_PYTHON_TAG):
        if not tag.startswith(("tag:yaml.org,2002:", "!")) or tag.startswith(("!!python", "!python")):
            findings.runs(f"its tag {tag[:200]} makes an object of the reader's")
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
    """Look into a file that MLflow reads as a model's own description; returns whether it is one."""
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
                        "run: the version keeps it under another name"
                    )
    return True
