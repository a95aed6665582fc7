"""Protobuf messages described at run time: only the fields that are read, in a separate pool.

Fields that are not described are unknown to the parser and skipped. A separate pool cannot collide with the
full description of the same messages from another package in the process.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from aml_mirror.formats.archives import Read

_Field = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "double": _Field.TYPE_DOUBLE,
    "float": _Field.TYPE_FLOAT,
    "int64": _Field.TYPE_INT64,
    "uint64": _Field.TYPE_UINT64,
    "int32": _Field.TYPE_INT32,
    "uint32": _Field.TYPE_UINT32,
    "bool": _Field.TYPE_BOOL,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
}

Messages = dict[str, dict[str, tuple[int, str, str]]]
"""Message -> field -> (number, type or message, kind): "repeated", the name of a oneof, or nothing."""


def message_class(name: str, messages: Messages, root: str) -> Any:
    """Return the class of the message ``root`` in a file with this name."""
    package = "aml_mirror"
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}/{name}.proto", package=package, syntax="proto3"
    )
    for message_name, fields in messages.items():
        message = file.message_type.add(name=message_name)
        for field_name, (number, type_name, kind) in fields.items():
            field = message.field.add(name=field_name, number=number)
            field.label = _Field.LABEL_REPEATED if kind == "repeated" else _Field.LABEL_OPTIONAL
            if type_name in _TYPES:
                field.type = _TYPES[type_name]
            else:
                field.type = _Field.TYPE_MESSAGE
                field.type_name = f".{package}.{type_name}"
            if kind not in ("", "repeated"):
                if not message.oneof_decl:
                    message.oneof_decl.add(name=kind)
                field.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{root}"))


# A message has some dozen top-level fields. A repeated one has as many as it has entries.
_MAX_FIELDS = 100_000


def fields_problem(read: Read, size: int) -> str:
    """Return why a file is not a complete protobuf message, by its top-level lengths; empty: it is one.

    A cut inside the last field is detected, a cut between two fields is not.
    """
    at = 0
    for _ in range(_MAX_FIELDS):
        if at == size:
            return ""
        head = read(at, min(20, size - at))
        tag, used = _varint(head, 0)
        kind = tag & 7
        if not tag >> 3 or kind not in (0, 1, 2, 5):
            return "its protobuf message is damaged"
        length, after = _varint(head, used) if kind in (0, 2) else (0, used)
        if not used or not after:
            return (
                "its protobuf message is truncated" if len(head) < 20 else "its protobuf message is damaged"
            )
        at += after + {0: 0, 1: 8, 2: length, 5: 4}[kind]
        if at > size:
            return "its protobuf message is truncated"
    return ""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number and where it ends; 0 for the end if it is truncated or too long."""
    value = 0
    for shift, byte in enumerate(data[at : at + 10]):
        value |= (byte & 127) << (7 * shift)
        if byte < 128:
            return value, at + shift + 1
    return 0, 0
