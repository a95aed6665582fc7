"""Protobuf messages described at run time: only the fields that are read, in a pool of their own.

Fields that are not described are unknown to the parser and passed over. A pool of its own cannot collide with
the full description of the same messages that another package brings into the process.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

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
    """Return the class of the message ``root`` of a file of that name."""
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
