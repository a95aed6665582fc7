"""Finds what a configuration makes its reader import, call, open or render, by its keys.

Sources, as facts: Hydra's ``instantiate`` and ``_locate`` (``_target_``); LightningCLI (``class_path``);
``instantiate_from_config`` of latent diffusion (``target``, ``params``); transformers'
``get_class_from_dynamic_module`` (``auto_map``, ``custom_pipelines``) and its kernels from the Hub
(``attn_implementation``); diffusers' ``DiffusionPipeline`` (``model_index.json``, ``custom_pipeline``);
PEFT's ``auto_mapping``; sentence-transformers' ``modules.json``; lerobot/processor/pipeline.py,
``_resolve_step_class`` (a step's ``class``); Isaac Lab's ``string_to_callable``; Keras's
``deserialize_keras_object``; jsonpickle's tags; the codecs of Zarr; the index of sharded weights.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterator
from typing import Any

from aml_mirror.safety.findings import Findings
from aml_mirror.safety.known_code import FRAMEWORKS

_TARGETS = ("_target_", "_instantiator", "_class_path")
_REMOTE = ("auto_map", "custom_pipelines", "custom_pipeline")
_ATTENTION = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")
_JSONPICKLE = ("py/object", "py/reduce", "py/type", "py/function", "py/repr", "py/class", "py/iterator")
# They distinguish JSON that is too large to be parsed from a vocabulary.
KEYS = (
    *_TARGETS, *_REMOTE, *_ATTENTION, *_JSONPICKLE, "class_path", "loader_module", "chat_template",
    "class_name", "class", "auto_mapping", "parent_library", "filters", "codecs",
)  # fmt: skip
_STEP_CLASS = re.compile(r"lerobot(?:\.[a-z_][a-z0-9_]*)+\.[A-Z]\w*(?:ProcessorStep|Step|Processor)")
_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
_CALLABLE = re.compile(r"(?P<module>[A-Za-z_]\w*)(?:\.\w+)*:[A-Za-z_][\w.]*")
# Keys from which Isaac Lab's environments never take a function.
_SYSTEM = re.compile(
    r"os|posix|nt|subprocess|builtins|sys|importlib|runpy|pty|shutil|socket|ctypes|pickle|marshal|code|codeop"
    r"|webbrowser|pdb|bdb|cProfile|profile|trace|timeit|multiprocessing|asyncio|urllib|http|ftplib|smtplib"
    r"|operator|functools|types|inspect|pydoc|pkgutil|zipimport|tempfile|io"
)
_LAMBDA = re.compile(r"\s*lambda\b.*(?:__|\b(?:eval|exec|open|import|compile|getattr|globals)\b)", re.S)
# The modules of Keras with functions that a model's layers may name.
_KERAS_FUNCTIONS = re.compile(
    r"keras(?:\.src)?\.(?:activations|losses|metrics|initializers|regularizers|constraints|optimizers|ops)"
    r"(?:\.\w+)*"
)
_KERAS_CODE = frozenset(
    ("Lambda", "__lambda__", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer", "TFOpLambda")
)
# Parts of diffusers that a pipeline's index names without a package.
_DIFFUSERS = re.compile(r"(?:stable_diffusion|deprecated|audioldm2|[a-z0-9_]*_diffusion)\w*")


def walk(document: Any, findings: Findings, name: str = "") -> Iterator[str]:
    """Examine everything in a document; yield the chat templates in it.

    Args:
        document: dictionaries, lists and plain values. Values that are referred to twice are examined once.
        findings: receives what is found.
        name: the file's name. Some readers look for special keys in certain files.
    """
    pending: list[tuple[Any, str]] = [(document, "")]
    seen: set[int] = set()
    while pending:
        value, key = pending.pop()
        if isinstance(value, str):
            _text(value, findings)
            continue
        if not isinstance(value, (dict, list)) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, list):
            pending += [(item, key) for item in value]
            continue
        _mapping(value, key, findings)
        if name.lower() == "model_index.json" and value is document:
            _pipeline(value, findings)
        for under, item in value.items():
            if under == "chat_template":
                yield from _texts(item)
            pending.append((item, str(under)))


def _texts(item: Any) -> list[str]:
    """Yield all strings in a value. An anchor of YAML may refer to itself, or multiply references."""
    texts: list[str] = []
    pending, seen = [item], set[int]()
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, (dict, list)) and id(value) not in seen:
            seen.add(id(value))
            pending += value.values() if isinstance(value, dict) else value
    return texts


def _plain(item: Any) -> str:
    """Return a plain value as text. Others are not: a few YAML anchors can expand to gigabytes."""
    if isinstance(item, (dict, list)):
        return f"a {type(item).__name__}"
    return "" if item is None else str(item)


def _text(value: str, findings: Findings) -> None:
    findings.text(value)
    match = _CALLABLE.fullmatch(value) if ":" in value else None
    if match and _SYSTEM.fullmatch(match["module"]):
        findings.problem(f"it names {value[:200]}, which Isaac Lab imports when it builds the environment")
    elif "lambda" in value and _LAMBDA.match(value):
        findings.problem(f"it has the function {value[:200]}, which Isaac Lab evaluates")


def _mapping(value: dict[Any, Any], key: str, findings: Findings) -> None:
    for under, item in value.items():
        if isinstance(item, str):
            _named(str(under), item, value, findings)
        if under in _REMOTE and item:
            findings.runs(
                f"its {under} names Python files, which transformers imports with trust_remote_code"
            )
        elif under in _JSONPICKLE:
            findings.problem(f"its key {under} makes jsonpickle import and call {_plain(item)[:200]}")
        elif under == "auto_mapping" and isinstance(item, dict):
            library = _plain(item.get("parent_library"))
            if library and library.partition(".")[0] not in FRAMEWORKS:
                findings.runs(f"its auto_mapping names {library[:200]}, which PEFT imports")
        elif under == "weight_map" and isinstance(item, dict):
            for path in item.values():
                if isinstance(path, str) and leads_out(path):
                    findings.problem(f"its weight_map names {path[:200]}, outside the folder")
    step = value.get("class") if key == "steps" and "registry_name" not in value else None
    if isinstance(step, str) and not _STEP_CLASS.fullmatch(step):
        findings.runs(f"its step names the class {step[:200]}, which LeRobot imports and creates")
    if isinstance(value.get("class_name"), str) and "config" in value:
        keras_object(value, findings)
    codec = value.get("id", value.get("name")) if key in ("filters", "compressor", "codecs") else None
    if isinstance(codec, str) and codec.rpartition(".")[2] in ("pickle", "dill"):
        findings.problem(f"its codec {codec} unpickles each part of the array")
    if {"cells", "nbformat"} <= value.keys():
        findings.runs("it is a notebook, whose cells a reader may run")
    if {"idx", "path"} <= value.keys() and isinstance(value.get("type"), str):
        module = value["type"].partition(".")[0]
        if module not in FRAMEWORKS:
            findings.runs(f"it names {value['type'][:200]}, which sentence-transformers imports")


def _named(under: str, item: str, value: dict[Any, Any], findings: Findings) -> None:
    """A string that names something to import or to call."""
    if under in _TARGETS:
        findings.target(item, strict=True)
    elif (under == "class_path" or (under == "target" and isinstance(value.get("params"), dict))) and (
        _DOTTED.fullmatch(item)
    ):
        findings.target(item)
    elif under in _ATTENTION and "/" in item:
        findings.runs(
            f"its {under} names {item[:200]}, a kernel that transformers gets from the Hub and runs"
        )


def _pipeline(index: dict[Any, Any], findings: Findings) -> None:
    """The index of a diffusers pipeline: library and class of each part."""
    for part, item in index.items():
        if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str):
            continue
        library = item[0].partition(".")[0]
        if part == "_class_name" or not (library in FRAMEWORKS or _DIFFUSERS.fullmatch(library)):
            findings.runs(f"its {part} names {item[0][:200]}, a file whose code diffusers may run")


def keras_object(value: dict[str, Any], findings: Findings) -> None:
    """Examine one layer, function or other object in the configuration of a Keras model."""
    kind, config = value["class_name"], value["config"]
    module = None if value.get("module") is None else _plain(value["module"])
    registered = _plain(value.get("registered_name"))
    if kind in _KERAS_CODE:
        findings.runs(f"its layer {kind} contains or names code, which Keras runs with safe_mode=False")
    elif kind == "function":
        _keras_function(_plain(config), module or "", findings)
    elif module is not None and module.partition(".")[0] not in ("keras", "tensorflow"):
        if not (module == "builtins" and kind.startswith("__")):
            findings.runs(f"its configuration names {module}.{kind}, which Keras imports")
    elif module is not None and not re.fullmatch(r"_{0,2}[A-Z]\w*|__\w+__", kind):
        findings.runs(f"its configuration names {module}.{kind}, which is not a class, and Keras calls it")
    elif module is None and ">" in registered and not registered.startswith(("keras>", "Keras>")):
        findings.runs(f"its configuration names {registered[:200]}, which the loading program has to provide")
    if isinstance(config, dict) and isinstance(config.get("vocabulary"), str):
        findings.runs(f"its layer {kind} reads the file {config['vocabulary'][:200]} when it is created")


def _keras_function(name: str, module: str, findings: Findings) -> None:
    if module in ("", "builtins"):
        if hasattr(builtins, name):
            findings.problem(f"its configuration names the function builtins.{name}, which Keras calls")
    elif not _KERAS_FUNCTIONS.fullmatch(module):
        findings.runs(f"its configuration names the function {module}.{name}, which Keras imports and calls")


def leads_out(path: str) -> bool:
    """Tell whether a path leads out of the folder that it is relative to."""
    parts = path.replace("\\", "/").split("/")
    return ".." in parts or path.startswith(("/", "\\", "~")) or bool(re.match(r"[A-Za-z]:|\w+://", path))
