"""Configuration files that a run keeps beside its checkpoints, read as plain data.

Only :class:`yaml.SafeLoader` is used. Isaac Lab, Hydra and GR00T write tags such as
``!!python/tuple`` or ``!!python/object:groot.Config``; what is under such a tag is kept as the plain
list, dictionary or text that it is, and nothing is imported or called. A file that cannot be read is one
warning, and the answer is then None: a run is never lost over its notes.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Hashable
from typing import Any

import yaml

from aml_mirror.core.errors import DataError
from aml_mirror.sources.tree import Tree
from aml_mirror.support import redaction

# Real configurations hold some KB, the longest known (an Isaac Lab env.yaml) 60 KB. PyYAML reads about
# 200 KB a second, so that what is larger is not worth the wait.
MAX_CONFIG_BYTES = 1 << 20
# Anchors make a small YAML file unfold to any size ("billion laughs"); counted after loading.
MAX_CONFIG_NODES = 100_000
MAX_CONFIG_DEPTH = 64


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader that takes what is under an unknown tag as plain data."""

    # PyYAML merges "<<" by building lists of all pairs: aliases of merges grow without end.
    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        self._merges = getattr(self, "_merges", 0) + 1
        if self._merges > MAX_CONFIG_NODES or len(node.value) > MAX_CONFIG_NODES:
            raise yaml.YAMLError("it unfolds to more than a configuration holds")
        super().flatten_mapping(node)

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Hashable, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.YAMLError("a tag claims a mapping where there is none")
        self.flatten_mapping(node)
        plain: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool)):
                key = str(key)
            plain[key] = self.construct_object(value_node, deep=deep)
        return plain


def _plain(loader: _PlainLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    # "!!python/name:torch.float32 ''" has its meaning in the tag.
    return node.value if node.value else suffix.removeprefix("tag:yaml.org,2002:")


_PlainLoader.add_multi_constructor("", _plain)


def read_yaml(tree: Tree, path: str, warnings: list[str]) -> Any:
    """Return a YAML file as plain data; None, with a line added to ``warnings``, where it cannot be."""
    return _read(tree, path, warnings, _load_yaml)


def read_json(tree: Tree, path: str, warnings: list[str]) -> Any:
    """Return a JSON file as plain data; None, with a line added to ``warnings``, where it cannot be.

    ``trainer_state.json`` and shard indexes are read by this too: the bound is that of
    :meth:`Tree.read_text`.
    """
    try:
        return tree.read_json(path)
    except DataError as error:
        warnings.append(error.message)
    except KeyError:
        warnings.append(f"{path} is not there")
    return None


def read_mapping(tree: Tree, path: str, warnings: list[str]) -> dict[str, Any]:
    """Return a JSON or YAML file that holds a dictionary (told by its name); else an empty dictionary."""
    read = read_json if path.endswith(".json") else read_yaml
    value = read(tree, path, warnings)
    if isinstance(value, dict):
        return {str(key): item for key, item in value.items()}
    if value is not None:
        warnings.append(f"{path} does not hold what its name says: it is no dictionary")
    return {}


def _load_yaml(text: str) -> Any:
    value = yaml.load(text, Loader=_PlainLoader)  # noqa: S506 - a SafeLoader, see the class
    return _Unfolding().plain(value, 0)


class _Unfolding:
    """Copies loaded data into JSON's types, each alias on its own, within the bounds of a configuration."""

    def __init__(self) -> None:
        self._nodes = 0

    def plain(self, value: Any, depth: int) -> Any:
        self._nodes += 1
        if self._nodes > MAX_CONFIG_NODES or depth > MAX_CONFIG_DEPTH:
            raise yaml.YAMLError("it unfolds to more than a configuration holds")
        if isinstance(value, dict):
            return {str(key): self.plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple, set)):
            return [self.plain(item, depth + 1) for item in value]
        if isinstance(value, bytes):
            return f"{len(value)} bytes"
        if isinstance(value, (datetime.date, datetime.datetime)):
            return value.isoformat()
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        if value is None or isinstance(value, (str, int, float, bool)):
            return value
        return str(value)


def _read(tree: Tree, path: str, warnings: list[str], load: Any) -> Any:
    try:
        size = tree.size(path)
    except KeyError:
        warnings.append(f"{path} is not there")
        return None
    if size > MAX_CONFIG_BYTES:
        warnings.append(f"{path} is larger than {MAX_CONFIG_BYTES >> 10} KiB and was not read")
        return None
    try:
        return load(tree.read_text(path))
    except DataError as error:
        warnings.append(error.message)
    # PyYAML lets errors of Python through: "!!int ''" is an IndexError, "!!bool x" a KeyError.
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        ArithmeticError,
        RecursionError,
    ) as error:
        reason = redaction.start(" ".join(str(error).split()), 200) or type(error).__name__
        warnings.append(f"{path} cannot be read as YAML: {reason}")
    return None
