"""The types of a workflow's fields, validated as pydantic validates them for OSMO."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any


class Refused(Exception):
    """OSMO would not accept the workflow. The text says where and why."""


Check = Callable[[str, Any], Any]
Fields = dict[str, Check]


def map_field(where: str, value: Any, fields: Fields, required: Iterable[str] = ()) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused(f"{where} is no map")
    for key in required:
        if key not in value:
            raise Refused(f"{where}.{key}: Field required")
    for key, found in value.items():
        if key not in fields:
            raise Refused(f"{where}.{key}: Extra inputs are not permitted")
        fields[key](f"{where}.{key}", found)
    return value


def list_of(check_one: Check) -> Check:
    def check_list(where: str, value: Any) -> None:
        if not isinstance(value, list):
            raise Refused(f"{where} is no list")
        for place, item in enumerate(value):
            check_one(f"{where}[{place}]", item)

    return check_list


def map_of(check_one: Check) -> Check:
    def check_map(where: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise Refused(f"{where} is no map")
        for key, item in value.items():
            check_one(f"{where}.{key}", item)

    return check_map


def one_of(where: str, value: Any, *shapes: tuple[Fields, tuple[str, ...]]) -> None:
    errors = []
    for fields, required in shapes:
        try:
            map_field(where, value, fields, required)
        except Refused as error:
            errors.append(str(error))
        else:
            return
    raise Refused("; ".join(errors))


def anything(where: str, value: Any) -> None:
    pass


def text_field(where: str, value: Any) -> None:
    # Numbers become strings (coerce_numbers_to_str); nothing else does.
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise Refused(f"{where}: Input should be a valid string")


def scalar(where: str, value: Any) -> None:
    # Booleans too: `environment: {DEBUG: true}` arrives as "True".
    if not isinstance(value, (str, int, float, bool)):
        raise Refused(f"{where}: Input should be a valid string")


def truth(where: str, value: Any) -> None:
    if value not in (True, False, "true", "false", "True", "False", "yes", "no", "on", "off", "1", "0"):
        raise Refused(f"{where}: Input should be a valid boolean")


def whole_number(where: str, value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not re.fullmatch(r"-?\d+", str(value))):
        raise Refused(f"{where}: Input should be a valid integer")
