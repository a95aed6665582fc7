"""TensorFlow: a SavedModel's ``saved_model.pb`` is a graph of operations, some of which open files."""

from __future__ import annotations

from aml_mirror.formats.base import Format, FormatFile, Kind, Weights
from aml_mirror.formats.protobuf import fields_problem


def _problem(file: FormatFile) -> str:
    return fields_problem(file.read, file.size)


SAVED_MODEL = Format(
    "TensorFlow graph",
    (".pb",),
    Kind.CODE,
    problem=_problem,
    run_by="tf.saved_model.load and the functions in it",
)
TFLITE = Format("TensorFlow Lite", (".tflite",), Kind.CODE, Weights.ALWAYS, run_by="the interpreter")
# The tables of tensors that SavedModels and tf.train.Checkpoint both store beside the graph.
VARIABLES = Format("TensorFlow variables", (".data-00000-of-00001", ".index"), Kind.NO_CODE)
# The last bytes of such a table's index (tsl/lib/io/format.h: kTableMagicNumber, lowest byte first).
INDEX_END = 0xDB4775248B80FB57.to_bytes(8, "little")
