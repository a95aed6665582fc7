"""Reads the configuration files that a run keeps beside its checkpoints, as plain data.

Only :class:`yaml.SafeLoader` is used. Isaac Lab, Hydra and GR00T write tags such as ``!!python/tuple`` or
``!!python/object:groot.Config``. The value under such a tag is kept as a plain list, dictionary or text.
Nothing is imported or called. A file that cannot be read causes one warning, and the result is None: an
unreadable configuration never fails the run.
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

# Real configurations have a few KB. The largest known one, an Isaac Lab env.yaml, has 60 KB. PyYAML reads
# about 200 KB per second, so larger files are not worth the wait.
MAX_CONFIG_BYTES = 1 << 20
# Anchors can make a small YAML file expand to any size ("billion laughs"). The size is counted after loading.
MAX_CONFIG_NODES = 100_000
MAX_CONFIG_DEPTH = 64


class _PlainLoader(yaml.SafeLoader):
    """A SafeLoader that reads the value under an unknown tag as plain data."""

    # PyYAML merges "<<" by building lists of all pairs, so aliases of merges can grow without limit.
    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        self._merges = getattr(self, "_merges", 0) + 1
        if self._merges > MAX_CONFIG_NODES or len(node.value) > MAX_CONFIG_NODES:
            raise yaml.YAMLError("it expands to more than a configuration contains")
        super().flatten_mapping(node)

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Hashable, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.YAMLError("a tag promises a mapping, but the value is not a mapping")
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
    # In "!!python/name:torch.float32 ''" the tag carries the meaning.
    return node.value if node.value else suffix.removeprefix("tag:yaml.org,2002:")


_PlainLoader.add_multi_constructor("", _plain)


def read_yaml(tree: Tree, path: str, warnings: list[str]) -> Any:
    """Return a YAML file as plain data; None if it cannot be read, after adding a line to ``warnings``."""
    return _read(tree, path, warnings, _load_yaml)


def read_json(tree: Tree, path: str, warnings: list[str]) -> Any:
    """Return a JSON file as plain data; None if it cannot be read, after adding a line to ``warnings``.

    This also reads ``trainer_state.json`` and shard indexes. The size limit is that of
    :meth:`Tree.read_text`.
    """
    try:
        return tree.read_json(path)
    except DataError as error:
        warnings.append(error.message)
    except KeyError:
        warnings.append(f"{path} does not exist")
    return None


def read_mapping(tree: Tree, path: str, warnings: list[str]) -> dict[str, Any]:
    """Return the dictionary in a JSON or YAML file (the suffix says which); an empty one if there is none."""
    read = read_json if path.endswith(".json") else read_yaml
    value = read(tree, path, warnings)
    if isinstance(value, dict):
        return {str(key): item for key, item in value.items()}
    if value is not None:
        warnings.append(f"{path} should contain a dictionary, but does not")
    return {}


def _load_yaml(text: str) -> Any:
    value = yaml.load(text, Loader=_PlainLoader)  # noqa: S506 - a SafeLoader, see the class
    return _Unfolding().plain(value, 0)


class _Unfolding:
    """Copies loaded data into JSON types, expanding each alias, within the limits of a configuration."""

    def __init__(self) -> None:
        self._nodes = 0

    def plain(self, value: Any, depth: int) -> Any:
        self._nodes += 1
        if self._nodes > MAX_CONFIG_NODES or depth > MAX_CONFIG_DEPTH:
            raise yaml.YAMLError("it expands to more than a configuration contains")
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
        warnings.append(f"{path} does not exist")
        return None
    if size > MAX_CONFIG_BYTES:
        warnings.append(f"{path} is larger than {MAX_CONFIG_BYTES >> 10} KiB and was not read")
        return None
    try:
        return load(tree.read_text(path))
    except DataError as error:
        warnings.append(error.message)
    # PyYAML lets Python's own errors through: "!!int ''" raises IndexError, "!!bool x" KeyError.
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
