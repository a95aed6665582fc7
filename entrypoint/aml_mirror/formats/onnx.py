"""ONNX: one protobuf message, ModelProto, whose fields end where the file ends.

Source: onnx/onnx.proto3 (``graph`` is field 7 and holds nearly all of the file). Tensors may lie in other
files, of any suffix, that the model names by relative paths.
"""

from __future__ import annotations

from aml_mirror.formats.base import Format, FormatFile, Kind, Weights
from aml_mirror.formats.protobuf import fields_problem


def _problem(file: FormatFile) -> str:
    return fields_problem(file.read, file.size)


ONNX = Format("ONNX", (".onnx",), Kind.NO_CODE, Weights.ALWAYS, _problem)
ONNX_DATA = Format("tensors of ONNX", (".onnx.data", ".onnx_data"), Kind.NO_CODE)
