"""ONNX: one protobuf message, ModelProto, whose fields end where the file ends.

Source: onnx/onnx.proto3 (``graph`` is field 7 and contains nearly all of the file). Tensors may be in other
files, with any suffix, that the model names by relative paths.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from aml_mirror.formats.archives import Read
from aml_mirror.formats.base import Format, FormatFile, Kind, Weights
from aml_mirror.formats.protobuf import fields_problem
from aml_mirror.formats.protobuf_walk import Schema, Walk


def _problem(file: FormatFile) -> str:
    return fields_problem(file.read, file.size)


ONNX = Format("ONNX", (".onnx",), Kind.NO_CODE, Weights.ALWAYS, _problem)
ONNX_DATA = Format("tensors of ONNX", (".onnx.data", ".onnx_data"), Kind.NO_CODE)


@dataclass(slots=True)
class References:
    """The references of a model to things outside it."""

    paths: set[str] = field(default_factory=set)
    """Files with tensors, relative to the model's folder, and other facts about them."""
    operations: set[str] = field(default_factory=set)
    """Names of its operations, without their domains."""


def references(read: Read, size: int) -> References:
    """Read the references of a model to things outside it.

    Raises:
        ValueError: it is not a model, or its graph is too large.
    """
    found = References()
    entry: list[str] = []

    def text(data: bytes) -> None:
        entry.append(data.decode("utf-8", "replace"))

    def operation(data: bytes) -> None:
        found.operations.add(data.decode("utf-8", "replace"))

    # Field numbers of onnx.proto3. An entry of external_data is a key and a value, in either order. All of
    # them are read, because only that of "location" contains a path.
    tensor: Schema = {13: {1: text, 2: text}}
    graph: Schema = {}
    attribute: Schema = {5: tensor, 10: tensor, 6: graph, 11: graph, 22: {1: tensor, 2: tensor}}
    attribute[23] = {1: tensor, 2: tensor}
    node: Schema = {4: operation, 5: attribute}
    graph.update({1: node, 5: tensor, 15: {1: tensor, 2: tensor}})
    Walk(read, size).message({7: graph, 20: {1: graph, 2: graph}, 25: {7: node, 11: attribute}})
    found.paths.update(entry)
    return found
