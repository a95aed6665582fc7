"""OSMO's workflow grammar: what a submission is rendered to, and whether OSMO would take it.

As NVIDIA/OSMO has it in 6.2.10, 6.3.1 and on main (6.4): ``src/lib/utils/workflow.py`` (sections),
``src/utils/job/workflow.py`` (``TemplateSpec``, ``WorkflowSpec``, ``TimeoutSpec``), ``src/utils/job/task.py``
(``TaskGroupSpec``, ``TaskSpec`` and what they hold), ``src/utils/connectors/postgres.py`` (``ResourceSpec``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Any

import yaml
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment

VERSIONS = ("6.2", "6.3", "6.4")
MAX_TASKS = 20  # WorkflowConfig.max_num_tasks

_NAME = r"[a-zA-Z]([a-zA-Z0-9_-]*[a-zA-Z0-9])?"
_SECTION = re.compile(
    r"^([a-zA-Z][a-zA-Z0-9_-]*):(.*?)(?=^[a-zA-Z][a-zA-Z0-9_-]*:|\Z)", re.DOTALL | re.MULTILINE
)
_TOKEN = re.compile(r"{{(uuid|workflow_id|output|input:[^}]+|host:[^}]+)}}")
_PART = r"[^/,;*]+"
# How many parts each scheme's URL has at least below the first one (src/lib/api/storage.py).
_STORAGE = {"swift": 2, "s3": 0, "gs": 0, "tos": 1, "azure": 1}
_EXIT_CODES = re.compile(r"(\d+(-\d+)?)+(,\d+(-\d+)?)*")
_DURATION = re.compile(r"\d+(d|h|m|s|ms|us)")
_ISO_DURATION = re.compile(r"P(?=.)(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?")
_SIZE = re.compile(r"\d+(\.\d+)?([TGMK](i|iB)?|B|m)?")


class Refused(Exception):
    """OSMO would not take the workflow; the text says where and why."""


def render(text: str, set_values: Iterable[str] = (), set_strings: Iterable[str] = ()) -> str:
    """Render a workflow file as OSMO does, for ``--set`` and ``--set-string``.

    Raises:
        Refused: it cannot be rendered.
    """
    sections: dict[str, str] = {}
    for match in _SECTION.finditer(text):
        if match[1] not in ("workflow", "default-values", "version"):
            raise Refused(f'Unknown top-level key "{match[1]}" found in the workflow spec.')
        if match[1] in sections:
            raise Refused(f'Duplicate top-level key "{match[1]}" found in the workflow spec.')
        sections[match[1]] = match[0]
    if "workflow" not in sections:
        raise Refused("Workflow spec not found.")
    values: dict[str, Any] = {}
    if "default-values" in sections:
        values = _load(sections["default-values"])["default-values"] or {}
    for given, strings in ((set_values, False), (set_strings, True)):
        for item in given:
            key, equals, value = item.partition("=")
            if not equals:
                raise Refused(f"Data {item} is incorrectly formatted")
            values[key] = value if strings else _number(value)
    body = sections["workflow"]
    # OSMO's own tokens pass through; only these, and only without blanks inside.
    for token in dict.fromkeys(_TOKEN.findall(body)):
        name = "hash" + str(int(hashlib.md5(token.strip().encode()).hexdigest(), 16))
        values[name] = "{{" + token + "}}"
        body = body.replace("{{" + token + "}}", "{{" + name + "}}")
    try:
        return SandboxedEnvironment(undefined=StrictUndefined).from_string(body).render(values)
    except (TemplateError, TypeError) as error:
        raise Refused(f"Jinja Template Error: {error}") from error


def submitted(text: str, set_values: Iterable[str] = (), set_strings: Iterable[str] = ()) -> Any:
    """What the server gets to see: the client sends what it was answered, and that is rendered once more."""
    set_values, set_strings = list(set_values), list(set_strings)
    first = _load(render(text, set_values, set_strings))
    return _load(render(yaml.dump(first), set_values, set_strings))


def check(document: Any, version: str, max_tasks: int = MAX_TASKS) -> None:
    """Check a rendered workflow.

    Raises:
        Refused: that version of OSMO would not take it.
    """
    assert version in VERSIONS, version
    root = _map("the workflow file", document, {"workflow": _anything}, required=("workflow",))
    fields: Fields = {
        "name": _name,
        "pool": _text,
        "backend": _text,
        "groups": _list_of(lambda where, value: _group(where, value, version)),
        "tasks": _list_of(lambda where, value: _task(where, value, version)),
        "resources": _map_of(_resource),
        "timeout": _timeout if version != "6.2" else _timeout_without_iso,
    }
    if version == "6.4":
        fields["labels"] = _map_of(_text)
    workflow = _map("workflow", root["workflow"], fields, required=("name",))
    groups, tasks = workflow.get("groups") or [], workflow.get("tasks") or []
    if groups and tasks:
        raise Refused("Cannot use both groups and tasks in the same workflow.")
    if not groups and not tasks:
        raise Refused("Workflows need to have at least one group or one task.")
    groups = groups or [{"name": f"{task['name']}-group", "tasks": [task]} for task in tasks]
    every = [task for group in groups for task in group["tasks"]]
    _check_names([*(group["name"] for group in groups), *(task["name"] for task in every)])
    _check_inputs(groups)
    resources = workflow.get("resources", {"default": {}})
    for task in every:
        if task.get("resource", "default") not in resources:
            raise Refused(f"Requesting undefined resource {task.get('resource', 'default')}.")
    if len(every) > max_tasks:
        raise Refused(f"Workflow cannot have more than {max_tasks} tasks.")


def _check_names(names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        plain = name.lower().replace("_", "-")
        if plain in seen:
            raise Refused(f'Multiple tasks/groups have the same name: "{plain}".')
        seen.add(plain)


def _check_inputs(groups: list[dict[str, Any]]) -> None:
    home = {task["name"]: group["name"] for group in groups for task in group["tasks"]}
    before: set[str] = set()
    for group in groups:
        for task in group["tasks"]:
            for item in task.get("inputs") or []:
                upstream = item.get("task", ":")
                if ":" in upstream:
                    continue
                if upstream not in home:
                    raise Refused(f"Task input {upstream} does not exist.")
                if home[upstream] not in before:
                    raise Refused(f'Group "{group["name"]}" requires input group "{home[upstream]}" before.')
        before.add(group["name"])


Check = Callable[[str, Any], Any]
Fields = dict[str, Check]


def _map(where: str, value: Any, fields: Fields, required: Iterable[str] = ()) -> dict[str, Any]:
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


def _list_of(check_one: Check) -> Check:
    def check_list(where: str, value: Any) -> None:
        if not isinstance(value, list):
            raise Refused(f"{where} is no list")
        for place, item in enumerate(value):
            check_one(f"{where}[{place}]", item)

    return check_list


def _map_of(check_one: Check) -> Check:
    def check_map(where: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise Refused(f"{where} is no map")
        for key, item in value.items():
            check_one(f"{where}.{key}", item)

    return check_map


def _one_of(where: str, value: Any, *shapes: tuple[Fields, tuple[str, ...]]) -> None:
    errors = []
    for fields, required in shapes:
        try:
            _map(where, value, fields, required)
        except Refused as error:
            errors.append(str(error))
        else:
            return
    raise Refused("; ".join(errors))


def _anything(where: str, value: Any) -> None:
    pass


def _text(where: str, value: Any) -> None:
    # Numbers become strings (coerce_numbers_to_str); nothing else does.
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise Refused(f"{where}: Input should be a valid string")


def _scalar(where: str, value: Any) -> None:
    # Booleans too: `environment: {DEBUG: true}` arrives as "True".
    if not isinstance(value, (str, int, float, bool)):
        raise Refused(f"{where}: Input should be a valid string")


def _truth(where: str, value: Any) -> None:
    if value not in (True, False, "true", "false", "True", "False", "yes", "no", "on", "off", "1", "0"):
        raise Refused(f"{where}: Input should be a valid boolean")


def _number_of(where: str, value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not re.fullmatch(r"-?\d+", str(value))):
        raise Refused(f"{where}: Input should be a valid integer")


def _name(where: str, value: Any) -> None:
    if not isinstance(value, str) or not re.fullmatch(_NAME, value):
        raise Refused(f"{where}: {value!r} does not match ^{_NAME}$")
    if len(value) > 64:
        raise Refused(f"{where}: {value!r} has more than 64 characters")


def _url(where: str, value: Any) -> None:
    # A template's token may stand in it; anything else than a storage URL is an HTTP 500, not a refusal.
    scheme, _, rest = value.partition("://") if isinstance(value, str) else ("", "", "")
    least = _STORAGE.get(scheme)
    if least is None or not re.fullmatch(rf"{_PART}(/{_PART}){{{least},}}/*", rest):
        raise Refused(f"{where}: Unknown URI scheme in {value!r}")


def _regex(where: str, value: Any) -> None:
    _text(where, value)
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
    _text(where, value)
    if not _SIZE.fullmatch(str(value)):
        raise Refused(f"{where} has invalid value {value}")


def _timeout(where: str, value: Any) -> None:
    _map(where, value, {"exec_timeout": _duration, "queue_timeout": _duration})


def _timeout_without_iso(where: str, value: Any) -> None:
    _timeout(where, value)
    if any(str(found).startswith("P") for found in value.values()):
        raise Refused(f"{where}: Only support xd, xh, xm, xs, xms, xus")


def _resource(where: str, value: Any) -> None:
    topology: Fields = {"key": _text, "group": _text, "requirementType": _requirement}
    _map(
        where,
        value,
        {
            "cpu": _number_of,
            "gpu": _number_of,
            "memory": _size,
            "storage": _size,
            "platform": lambda place, found: None if found is None else _text(place, found),
            "nodesExcluded": _list_of(_text),
            "topology": _list_of(lambda place, found: _map(place, found, topology, ("key",))),
        },
    )


def _requirement(where: str, value: Any) -> None:
    if value not in ("required", "preferred"):
        raise Refused(f"{where}: Input should be 'required' or 'preferred'")


def _group(where: str, value: Any, version: str) -> None:
    fields: Fields = {
        "name": _name,
        "barrier": _truth,
        "ignoreNonleadStatus": _truth,
        "tasks": _list_of(lambda place, found: _task(place, found, version)),
    }
    group = _map(where, value, fields, ("name", "tasks"))
    tasks = group["tasks"]
    if not tasks:
        raise Refused(f'Group "{group["name"]}" needs to have at least one task.')
    leaders = sum(1 for task in tasks if task.get("lead"))
    if len(tasks) > 1 and leaders != 1:
        raise Refused(f'Group "{group["name"]}" has {leaders} leader(s) but must have exactly one.')


def _task(where: str, value: Any, version: str) -> None:
    fields: Fields = {
        "name": _name,
        "image": _text,
        "command": _list_of(_text),
        "args": _list_of(_text),
        "inputs": _list_of(lambda place, found: _input(place, found, version)),
        "outputs": _list_of(lambda place, found: _output(place, found, version)),
        "environment": _map_of(_scalar),
        "files": _list_of(_file),
        "credentials": _map_of(_credential),
        "exitActions": _exit_actions,
        "resource": _text,
        "resources": _resource,
        "backend": _text,
        "lead": _truth,
        "privileged": _truth,
        "hostNetwork": _truth,
        "volumeMounts": _list_of(_volume_mount),
        "kpis": _list_of(
            lambda place, found: _map(place, found, {"index": _text, "path": _text}, ("index", "path"))
        ),
        "checkpoint": _list_of(_checkpoint),
        "downloadType": _download_type,
        "cacheSize": lambda place, found: None if found is None else _text(place, found),
    }
    task = _map(where, value, fields, ("name", "image", "command"))
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
        dataset: Fields = {"name": _text, "path": _text, "regex": _regex}
        shapes.append(
            ({"dataset": lambda place, found: _map(place, found, dataset, ("name",))}, ("dataset",))
        )
    _one_of(where, value, *shapes)


def _output(where: str, value: Any, version: str) -> None:
    shapes: list[tuple[Fields, tuple[str, ...]]] = [({"url": _url, "regex": _regex}, ("url",))]
    if version != "6.4":
        some = _list_of(_text)
        dataset: Fields = {"name": _text, "path": _text, "metadata": some, "labels": some, "regex": _regex}
        update: Fields = {"name": _text, "paths": some, "metadata": some, "labels": some}
        shapes += [
            ({"dataset": lambda place, found: _map(place, found, dataset, ("name",))}, ("dataset",)),
            (
                {"update_dataset": lambda place, found: _map(place, found, update, ("name",))},
                ("update_dataset",),
            ),
        ]
    _one_of(where, value, *shapes)


def _task_name(where: str, value: Any) -> None:
    if not isinstance(value, str) or not re.fullmatch(rf"{_NAME}(:{_NAME})?", value):
        raise Refused(f"{where}: {value!r} is neither a task nor WORKFLOW_ID:TASK")


def _checkpoint(where: str, value: Any) -> None:
    fields: Fields = {"path": _text, "url": _url, "frequency": _frequency, "regex": _regex}
    _map(where, value, fields, ("path", "url", "frequency"))


def _frequency(where: str, value: Any) -> None:
    if value is None:
        raise Refused(f"{where}: Input should be a valid timedelta")
    _duration(where, value)


def _file(where: str, value: Any) -> None:
    _map(
        where, value, {"path": _file_path, "contents": _text, "base64": _truth, "localpath": _text}, ("path",)
    )
    if ("contents" in value) == ("localpath" in value):
        raise Refused(f"{where} has one of contents and localpath")


def _file_path(where: str, value: Any) -> None:
    _text(where, value)
    parts = [part for part in str(value).split("/") if part]
    if not str(value).startswith("/osmo/data/output/") and (not parts or parts[0] == "osmo"):
        raise Refused(f'{where}: Empty path or adding file to "/osmo" is forbidden for file: {value}')


def _credential(where: str, value: Any) -> None:
    if isinstance(value, dict):
        _map_of(_scalar)(where, value)
    else:
        _scalar(where, value)


def _exit_actions(where: str, value: Any) -> None:
    _map_of(_scalar)(where, value)
    for action, codes in value.items():
        if str(action).upper() not in ("COMPLETE", "FAIL", "RESCHEDULE"):
            raise Refused(f"{where}: Invalid exit action {action}")
        if not _EXIT_CODES.fullmatch(str(codes)):
            raise Refused(f"{where}: Invalid exit codes {codes} for action {action}")


def _volume_mount(where: str, value: Any) -> None:
    _text(where, value)
    parts = str(value).split(":")
    if len(parts) > 2 or not all(parts):
        raise Refused(f"{where}: Invalid task volume mount: {value}.")


def _download_type(where: str, value: Any) -> None:
    if value not in (None, "download"):
        raise Refused(f"{where}: invalid downloadType {value!r}")


def _load(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise Refused(f"no YAML: {' '.join(str(error).split())}") from error


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
