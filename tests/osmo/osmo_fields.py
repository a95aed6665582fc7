"""The fields of OSMO's workflows, as defined by NVIDIA/OSMO in 6.2.10, 6.3.1 and on main (6.4).

``src/utils/job/workflow.py`` (``TimeoutSpec``), ``src/utils/job/task.py`` (``TaskGroupSpec``, ``TaskSpec``
and their parts), ``src/utils/connectors/postgres.py`` (``ResourceSpec``), ``src/lib/data/storage`` (URLs).
README.md lists what differs between the versions.
"""

from __future__ import annotations

import re
from typing import Any

from osmo_shapes import (
    Fields,
    Refused,
    list_of,
    map_field,
    map_of,
    one_of,
    scalar,
    text_field,
    truth,
    whole_number,
)

_NAME = r"[a-zA-Z]([a-zA-Z0-9_-]*[a-zA-Z0-9])?"
_PART = r"[^/,;*]+"
# The minimum number of parts that a URL of each scheme has after the first one (src/lib/api/storage.py).
_STORAGE = {"swift": 2, "s3": 0, "gs": 0, "tos": 1, "azure": 1}
_EXIT_CODES = re.compile(r"(\d+(-\d+)?)+(,\d+(-\d+)?)*")
_DURATION = re.compile(r"\d+(d|h|m|s|ms|us)")
_ISO_DURATION = re.compile(r"P(?=.)(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?")
_SIZE = re.compile(r"\d+(\.\d+)?([TGMK](i|iB)?|B|m)?")


def name_field(where: str, value: Any) -> None:
    if not isinstance(value, str) or not re.fullmatch(_NAME, value):
        raise Refused(f"{where}: {value!r} does not match ^{_NAME}$")
    if len(value) > 64:
        raise Refused(f"{where}: {value!r} has more than 64 characters")


def _url(where: str, value: Any) -> None:
    # It may contain a template's token. Anything other than a storage URL is an HTTP 500, not a refusal.
    scheme, _, rest = value.partition("://") if isinstance(value, str) else ("", "", "")
    least = _STORAGE.get(scheme)
    if least is None or not re.fullmatch(rf"{_PART}(/{_PART}){{{least},}}/*", rest):
        raise Refused(f"{where}: Unknown URI scheme in {value!r}")


def _regex(where: str, value: Any) -> None:
    text_field(where, value)
    try:
        re.compile(str(value))
    except re.error as error:
        raise Refused(f"{where}: Invalid regex: {value}") from error


def _duration(where: str, value: Any) -> None:
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return
    if not isinstance(value, str) or not (_DURATION.fullmatch(value) or _ISO_DURATION.fullmatch(value)):
        raise Refused(f"{where}: Cannot recognize duration: {value}.")


def _size(where: str, value: Any) -> None:
    if value is None:
        return
    text_field(where, value)
    if not _SIZE.fullmatch(str(value)):
        raise Refused(f"{where} has invalid value {value}")


def timeout_field(where: str, value: Any) -> None:
    map_field(where, value, {"exec_timeout": _duration, "queue_timeout": _duration})


def timeout_without_iso(where: str, value: Any) -> None:
    timeout_field(where, value)
    if any(str(found).startswith("P") for found in value.values()):
        raise Refused(f"{where}: Only support xd, xh, xm, xs, xms, xus")


def resource_field(where: str, value: Any) -> None:
    topology: Fields = {"key": text_field, "group": text_field, "requirementType": _requirement}
    map_field(
        where,
        value,
        {
            "cpu": whole_number,
            "gpu": whole_number,
            "memory": _size,
            "storage": _size,
            "platform": lambda place, found: None if found is None else text_field(place, found),
            "nodesExcluded": list_of(text_field),
            "topology": list_of(lambda place, found: map_field(place, found, topology, ("key",))),
        },
    )


def _requirement(where: str, value: Any) -> None:
    if value not in ("required", "preferred"):
        raise Refused(f"{where}: Input should be 'required' or 'preferred'")


def group_field(where: str, value: Any, version: str) -> None:
    fields: Fields = {
        "name": name_field,
        "barrier": truth,
        "ignoreNonleadStatus": truth,
        "tasks": list_of(lambda place, found: task_field(place, found, version)),
    }
    group = map_field(where, value, fields, ("name", "tasks"))
    tasks = group["tasks"]
    if not tasks:
        raise Refused(f'Group "{group["name"]}" needs to have at least one task.')
    leaders = sum(1 for task in tasks if task.get("lead"))
    if len(tasks) > 1 and leaders != 1:
        raise Refused(f'Group "{group["name"]}" has {leaders} leader(s) but must have exactly one.')


def task_field(where: str, value: Any, version: str) -> None:
    fields: Fields = {
        "name": name_field,
        "image": text_field,
        "command": list_of(text_field),
        "args": list_of(text_field),
        "inputs": list_of(lambda place, found: _input(place, found, version)),
        "outputs": list_of(lambda place, found: _output(place, found, version)),
        "environment": map_of(scalar),
        "files": list_of(_file),
        "credentials": map_of(_credential),
        "exitActions": _exit_actions,
        "resource": text_field,
        "resources": resource_field,
        "backend": text_field,
        "lead": truth,
        "privileged": truth,
        "hostNetwork": truth,
        "volumeMounts": list_of(_volume_mount),
        "kpis": list_of(
            lambda place, found: map_field(
                place, found, {"index": text_field, "path": text_field}, ("index", "path")
            )
        ),
        "checkpoint": list_of(_checkpoint),
        "downloadType": _download_type,
        "cacheSize": lambda place, found: None if found is None else text_field(place, found),
    }
    task = map_field(where, value, fields, ("name", "image", "command"))
    if not task["command"]:
        raise Refused(f"Container {task['name']} should have at least one command.")
    if not str(task["image"]).strip():
        raise Refused(f"{where}.image is empty")
    if task["name"].lower().replace("_", "-") == "osmo-ctrl":
        raise Refused('Container osmo-ctrl cannot be named "osmo-ctrl".')
    paths = [file["path"] for file in task.get("files", [])]
    if len(paths) != len(set(paths)):
        raise Refused(f'Task "{task["name"]}" has multiple files at the same path.')


def _input(where: str, value: Any, version: str) -> None:
    task: Fields = {"task": _task_name, "regex": _regex}
    shapes: list[tuple[Fields, tuple[str, ...]]] = [
        (task, ("task",)),
        ({"url": _url, "regex": _regex}, ("url",)),
    ]
    if version != "6.4":
        dataset: Fields = {"name": text_field, "path": text_field, "regex": _regex}
        shapes.append(
            ({"dataset": lambda place, found: map_field(place, found, dataset, ("name",))}, ("dataset",))
        )
    one_of(where, value, *shapes)


def _output(where: str, value: Any, version: str) -> None:
    shapes: list[tuple[Fields, tuple[str, ...]]] = [({"url": _url, "regex": _regex}, ("url",))]
    if version != "6.4":
        some = list_of(text_field)
        dataset: Fields = {
            "name": text_field,
            "path": text_field,
            "metadata": some,
            "labels": some,
            "regex": _regex,
        }
        update: Fields = {"name": text_field, "paths": some, "metadata": some, "labels": some}
        shapes += [
            ({"dataset": lambda place, found: map_field(place, found, dataset, ("name",))}, ("dataset",)),
            (
                {"update_dataset": lambda place, found: map_field(place, found, update, ("name",))},
                ("update_dataset",),
            ),
        ]
    one_of(where, value, *shapes)


def _task_name(where: str, value: Any) -> None:
    if not isinstance(value, str) or not re.fullmatch(rf"{_NAME}(:{_NAME})?", value):
        raise Refused(f"{where}: {value!r} is neither a task nor WORKFLOW_ID:TASK")


def _checkpoint(where: str, value: Any) -> None:
    fields: Fields = {"path": text_field, "url": _url, "frequency": _frequency, "regex": _regex}
    map_field(where, value, fields, ("path", "url", "frequency"))


def _frequency(where: str, value: Any) -> None:
    if value is None:
        raise Refused(f"{where}: Input should be a valid timedelta")
    _duration(where, value)


def _file(where: str, value: Any) -> None:
    map_field(
        where,
        value,
        {"path": _file_path, "contents": text_field, "base64": truth, "localpath": text_field},
        ("path",),
    )
    if ("contents" in value) == ("localpath" in value):
        raise Refused(f"{where} has one of contents and localpath")


def _file_path(where: str, value: Any) -> None:
    text_field(where, value)
    parts = [part for part in str(value).split("/") if part]
    if not str(value).startswith("/osmo/data/output/") and (not parts or parts[0] == "osmo"):
        raise Refused(f'{where}: Empty path or adding file to "/osmo" is forbidden for file: {value}')


def _credential(where: str, value: Any) -> None:
    if isinstance(value, dict):
        map_of(scalar)(where, value)
    else:
        scalar(where, value)


def _exit_actions(where: str, value: Any) -> None:
    map_of(scalar)(where, value)
    for action, codes in value.items():
        if str(action).upper() not in ("COMPLETE", "FAIL", "RESCHEDULE"):
            raise Refused(f"{where}: Invalid exit action {action}")
        if not _EXIT_CODES.fullmatch(str(codes)):
            raise Refused(f"{where}: Invalid exit codes {codes} for action {action}")


def _volume_mount(where: str, value: Any) -> None:
    text_field(where, value)
    parts = str(value).split(":")
    if len(parts) > 2 or not all(parts):
        raise Refused(f"{where}: Invalid task volume mount: {value}.")


def _download_type(where: str, value: Any) -> None:
    if value not in (None, "download"):
        raise Refused(f"{where}: invalid downloadType {value!r}")
