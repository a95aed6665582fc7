"""Every known file format, and the questions of the rest of the program about them.

No other module lists suffixes of files with weights, because lists in several places drift apart.
"""

from __future__ import annotations

import re
from functools import cache

from aml_mirror.formats import code_files, media, packed, tensorflow, texts, torch_export, torch_save
from aml_mirror.formats.base import Format, FormatFile, Kind, Weights
from aml_mirror.formats.gguf import GGUF
from aml_mirror.formats.hdf5 import HDF5
from aml_mirror.formats.json_text import JSON
from aml_mirror.formats.keras import KERAS
from aml_mirror.formats.msgpack import MSGPACK
from aml_mirror.formats.numpy_files import NPY, NPZ
from aml_mirror.formats.ocdbt import OCDBT
from aml_mirror.formats.onnx import ONNX, ONNX_DATA
from aml_mirror.formats.pickle_file import JOBLIB, OTHER_PICKLE, PICKLE
from aml_mirror.formats.safetensors import SAFETENSORS
from aml_mirror.formats.stable_baselines3 import STABLE_BASELINES3
from aml_mirror.formats.torch_distributed import DISTCP, DISTCP_METADATA
from aml_mirror.sources.tree import Tree

FORMATS: tuple[Format, ...] = (
    SAFETENSORS, torch_save.TORCH, torch_save.TORCH_BIN, torch_save.CLEANRL, torch_save.D3RLPY,
    STABLE_BASELINES3, PICKLE, OTHER_PICKLE, JOBLIB, NPZ, NPY, MSGPACK, OCDBT, ONNX, ONNX_DATA, HDF5, KERAS,
    GGUF, DISTCP, DISTCP_METADATA, torch_export.PT2, torch_export.EXECUTORCH, tensorflow.SAVED_MODEL,
    tensorflow.TFLITE, tensorflow.VARIABLES, code_files.PYTHON, code_files.SHELL, code_files.SCRIPT,
    code_files.NATIVE_LIBRARY, code_files.TENSORRT, code_files.SOURCE, packed.COMPRESSED, packed.ARCHIVE,
    JSON, texts.YAML, texts.TEXT, media.MEDIA, media.MESH, media.TABLE, media.EVENTS, media.SENTENCEPIECE,
)  # fmt: skip

_BY_SUFFIX = {suffix: kind for kind in FORMATS for suffix in kind.suffixes}
# flax.training.checkpoints writes msgpack without a suffix.
_FLAX = re.compile(r"checkpoint_[0-9]+")
_SHARED_LIBRARY = re.compile(r".*\.so(?:\.[0-9]+)+")


def format_of(path: str) -> Format | None:
    """Return the format of a file's name, by its longest known suffix; None: unknown."""
    name = path.rpartition("/")[2].lower()
    at = name.find(".")
    while at >= 0:
        if known := _BY_SUFFIX.get(name[at:]):
            return known
        at = name.find(".", at + 1)
    if _FLAX.fullmatch(name):
        return MSGPACK
    return code_files.NATIVE_LIBRARY if _SHARED_LIBRARY.fullmatch(name) else None


@cache
def weight_suffixes(*weights: Weights) -> tuple[str, ...]:
    """Return the suffixes of the formats that contain weights to this degree (default: always, or often)."""
    wanted = weights or (Weights.ALWAYS, Weights.OFTEN)
    return tuple(suffix for kind in FORMATS if kind.weights in wanted for suffix in kind.suffixes)


def suffixes_of(*names: str) -> tuple[str, ...]:
    """Return the suffixes of formats by their names. Raises KeyError for an unknown one."""
    by_name = {kind.name: kind for kind in FORMATS}
    return tuple(suffix for name in names for suffix in by_name[name].suffixes)


def pattern_of(suffixes: tuple[str, ...]) -> str:
    """Return a regular expression for one of some suffixes, without a group."""
    return "(?:" + "|".join(re.escape(suffix) for suffix in suffixes) + ")"


def problem_of(tree: Tree, path: str, holds_weights: bool) -> str:
    """Return why a file's bytes are not complete; empty: there is no sign that they are not.

    Raises:
        DataError, NotAllowed: the errors of :meth:`Tree.read`.
        KeyError: there is no such file.
    """
    known = format_of(path)
    if tree.size(path) == 0:
        # Markers and __init__ files may be empty. Weights and configurations never are.
        return "it is empty" if holds_weights or (known and known.never_empty) else ""
    return known.problem(FormatFile(tree, path, holds_weights)) if known else ""


__all__ = [
    "FORMATS",
    "Format",
    "Kind",
    "Weights",
    "format_of",
    "problem_of",
    "suffixes_of",
    "weight_suffixes",
]
