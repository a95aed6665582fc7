"""OSMO's workflow grammar: how it renders a submission, and whether OSMO would accept the result.

As defined by NVIDIA/OSMO in 6.2.10, 6.3.1 and on main (6.4): ``src/lib/utils/workflow.py`` (sections),
``src/utils/job/workflow.py`` (``TemplateSpec``, ``WorkflowSpec``). The fields are in osmo_fields.py.
README.md lists what differs between the versions.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any

import yaml
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment

import osmo_fields
import osmo_shapes as shapes
from osmo_shapes import Refused as Refused

VERSIONS = ("6.2", "6.3", "6.4")
MAX_TASKS = 20  # WorkflowConfig.max_num_tasks

_SECTION = re.compile(
    r"^([a-zA-Z][a-zA-Z0-9_-]*):(.*?)(?=^[a-zA-Z][a-zA-Z0-9_-]*:|\Z)", re.DOTALL | re.MULTILINE
)
_TOKEN = re.compile(r"{{(uuid|workflow_id|output|input:[^}]+|host:[^}]+)}}")


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
    # Only OSMO's own tokens pass through, and only without spaces inside.
    for token in dict.fromkeys(_TOKEN.findall(body)):
        name = "hash" + str(int(hashlib.md5(token.strip().encode()).hexdigest(), 16))
        values[name] = "{{" + token + "}}"
        body = body.replace("{{" + token + "}}", "{{" + name + "}}")
    try:
        return SandboxedEnvironment(undefined=StrictUndefined).from_string(body).render(values)
    except (TemplateError, TypeError) as error:
        raise Refused(f"Jinja Template Error: {error}") from error


def submitted(text: str, set_values: Iterable[str] = (), set_strings: Iterable[str] = ()) -> Any:
    """What the server sees: the client sends the rendered workflow, and the server renders it again."""
    set_values, set_strings = list(set_values), list(set_strings)
    first = _load(render(text, set_values, set_strings))
    return _load(render(yaml.dump(first), set_values, set_strings))


def check(document: Any, version: str, max_tasks: int = MAX_TASKS) -> None:
    """Check a rendered workflow.

    Raises:
        Refused: that version of OSMO would not accept it.
    """
    assert version in VERSIONS, version
    root = shapes.map_field(
        "the workflow file", document, {"workflow": shapes.anything}, required=("workflow",)
    )
    fields: shapes.Fields = {
        "name": osmo_fields.name_field,
        "pool": shapes.text_field,
        "backend": shapes.text_field,
        "groups": shapes.list_of(lambda where, value: osmo_fields.group_field(where, value, version)),
        "tasks": shapes.list_of(lambda where, value: osmo_fields.task_field(where, value, version)),
        "resources": shapes.map_of(osmo_fields.resource_field),
        "timeout": osmo_fields.timeout_field if version != "6.2" else osmo_fields.timeout_without_iso,
    }
    if version == "6.4":
        fields["labels"] = shapes.map_of(shapes.text_field)
    workflow = shapes.map_field("workflow", root["workflow"], fields, required=("name",))
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
