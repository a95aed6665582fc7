"""Pure functions that add the mirror's variables to a pod template and remove them again.

The rules are those of terraform/main.template.tf. In every container called {{USER_CONTAINER_NAME}}, an
existing variable is replaced in its place (also one with `valueFrom`), a second entry of the same name is
removed, and new variables are appended in the order of the specification. A template without such a container
gets one. Nothing else changes.

The description of a revision records what that revision added (a Record). An entry is removed only if it is
still what that revision wrote; a later edit by somebody else stays.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from osmo_config_cli import EX_CONFIG, MirrorError, Template, Templates
from pod_template_spec import OUTPUTS_TEMPLATE, Record, Spec

USER_CONTAINER = re.compile(r"^\{\{\s*USER_CONTAINER_NAME\s*\}\}$")


class Refused(MirrorError):
    """Applying would overwrite a value that somebody else set."""


@dataclass(frozen=True)
class Seen:
    """OSMO's pod templates at one moment."""

    revision: int
    templates: Templates
    record: Record = field(default_factory=Record)
    # The templates as the mirror's last write left them. None if it never wrote or the revision was deleted.
    written: Templates | None = None


@dataclass
class Plan:
    writes: Templates
    deletes: list[str]
    record: Record
    what: str
    notes: list[str]


def containers_of(template: Template | None) -> list[dict[str, Any]]:
    spec = (template or {}).get("spec")
    containers = spec.get("containers") if isinstance(spec, dict) else None
    return [c for c in containers if isinstance(c, dict)] if isinstance(containers, list) else []


def user_containers(template: Template | None) -> list[dict[str, Any]]:
    return [c for c in containers_of(template) if USER_CONTAINER.match(str(c.get("name", "")))]


def env_of(container: dict[str, Any]) -> list[Any]:
    env = container.get("env")
    return env if isinstance(env, list) else []


def entry_of(template: Template | None, name: str) -> Any:
    """The first entry with that name in the user containers, or None."""
    for container in user_containers(template):
        for entry in env_of(container):
            if isinstance(entry, dict) and entry.get("name") == name:
                return entry
    return None


def _is(entry: Any, name: str) -> bool:
    return isinstance(entry, dict) and entry.get("name") == name


def merge_env(template: Template, env: dict[str, str]) -> Template:
    """A copy of the template with these variables."""
    merged = copy.deepcopy(template)
    if not user_containers(merged):
        if not isinstance(merged.get("spec"), dict):
            merged["spec"] = {}
        if not isinstance(merged["spec"].get("containers"), list):
            merged["spec"]["containers"] = []
        merged["spec"]["containers"].append({"name": "{{USER_CONTAINER_NAME}}"})
    for container in user_containers(merged):
        waiting = dict(env)
        result = []
        for entry in env_of(container):
            name = entry.get("name") if isinstance(entry, dict) else None
            if name in waiting:
                result.append({"name": name, "value": waiting.pop(name)})
            elif name not in env:
                result.append(entry)
        container["env"] = result + [{"name": name, "value": value} for name, value in waiting.items()]
    return merged


def _take(template: Template, name: str, before: Any) -> None:
    """Removes a variable from the user containers, or restores the entry that it replaced."""
    for container in user_containers(template):
        if any(_is(entry, name) for entry in env_of(container)):
            kept = [entry for entry in env_of(container) if before is not None or not _is(entry, name)]
            container["env"] = [before if _is(entry, name) else entry for entry in kept]


def missing_identity(templates: Templates) -> list[str]:
    """What a pod needs to get a workload identity and no template has."""

    def value(template: Template, *path: str) -> Any:
        found: Any = template
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    labels = [value(one, "metadata", "labels", "azure.workload.identity/use") for one in templates.values()]
    accounts = [value(one, "spec", "serviceAccountName") for one in templates.values()]
    missing = []
    if not any(str(label).lower() == "true" for label in labels):
        missing.append('the label azure.workload.identity/use: "true"')
    if not any(accounts):
        missing.append("a serviceAccountName")
    return missing


def plan_apply(spec: Spec, seen: Seen, before: Callable[[int], Templates | None]) -> Plan:
    """What to write so that the template has the variables.

    Raises:
        Refused: somebody else set one of them to another value, and overwrite_existing is false.
    """
    current = seen.templates.get(spec.template)
    written = (seen.written or {}).get(spec.template)
    record = seen.record
    # If none of the recorded variables is left (a rollback, a manual edit), the record describes an old
    # template.
    if not any(entry_of(current, name) == _last(spec, written, name) is not None for name in record.owns):
        record = Record(outputs=record.outputs)

    notes: list[str] = []
    if current is None:
        start, created = copy.deepcopy(spec.base), "template"
    else:
        start, created = copy.deepcopy(current), record.created
        if not user_containers(current):
            created = "container"
        elif not any(isinstance(c.get("env"), list) for c in user_containers(current)):
            created = "env"

    owns: dict[str, int | None] = {}
    for name in record.owns:
        if name not in spec.env and entry_of(start, name) is not None:
            if entry_of(start, name) == _last(spec, written, name):
                _take(start, name, _previous(record, name, spec.template, before))
            else:
                notes.append(
                    f"{name} in {spec.template} was changed by somebody else since and is left alone"
                )

    refused = []
    for name, value in spec.env.items():
        entry = entry_of(start, name)
        if entry is None:
            owns[name] = None
        elif entry == {"name": name, "value": value}:
            if name in record.owns:
                owns[name] = record.owns[name]
        elif name in record.owns and entry == _last(spec, written, name):
            owns[name] = record.owns[name]
        elif spec.overwrite_existing:
            owns[name] = seen.revision if current is not None else None
        else:
            refused.append(name)

    outputs, has_outputs, deletes = record.outputs, seen.templates.get(OUTPUTS_TEMPLATE), []
    ours = (
        outputs
        and has_outputs is not None
        and has_outputs == (seen.written or {}).get(OUTPUTS_TEMPLATE, has_outputs)
    )
    writes: Templates = {}
    if spec.outputs_template is not None and has_outputs != spec.outputs_template:
        if has_outputs is None or ours or spec.overwrite_existing:
            writes[OUTPUTS_TEMPLATE] = spec.outputs_template
            outputs = True
        else:
            raise Refused(
                EX_CONFIG,
                f"the pod template {OUTPUTS_TEMPLATE} is there already and is not the mirror's. Rename or "
                "delete it, or set overwrite_existing = true; nothing was changed.",
            )
    elif spec.outputs_template is None and ours:
        deletes.append(OUTPUTS_TEMPLATE)
    if refused:
        raise Refused(
            EX_CONFIG,
            f"{', '.join(refused)} in the pod template {spec.template} "
            f"{'is' if len(refused) == 1 else 'are'} set to something else by "
            "somebody else. Take that away there, or set overwrite_existing = true; nothing was changed.",
        )
    writes[spec.template] = merge_env(start, spec.env)
    return Plan(writes, deletes, Record(owns, created, outputs), f"set {', '.join(spec.env)}", notes)


def plan_remove(spec: Spec, seen: Seen, before: Callable[[int], Templates | None]) -> Plan:
    """What to write to remove exactly what the mirror added."""
    current, written, record = (
        seen.templates.get(spec.template),
        (seen.written or {}).get(spec.template),
        seen.record,
    )
    plan = Plan({}, [], Record(), "took its variables away", [])
    has_outputs = seen.templates.get(OUTPUTS_TEMPLATE)
    if record.outputs and has_outputs is not None:
        if has_outputs == (seen.written or {}).get(OUTPUTS_TEMPLATE, spec.outputs_template):
            plan.deletes.append(OUTPUTS_TEMPLATE)
        else:
            plan.notes.append(
                f"the pod template {OUTPUTS_TEMPLATE} was changed by somebody else since and is left alone"
            )
    if current is None:
        return plan

    result = copy.deepcopy(current)
    for name in record.owns:
        entry = entry_of(current, name)
        if entry is not None and entry == _last(spec, written, name):
            _take(result, name, _previous(record, name, spec.template, before))
        elif entry is not None:
            plan.notes.append(
                f"{name} in {spec.template} was changed by somebody else since and is left alone"
            )
    for name, value in spec.env.items():
        if name not in record.owns and entry_of(current, name) == {"name": name, "value": value}:
            plan.notes.append(
                f"{name} in {spec.template} was not added by the mirror (no record in OSMO's history) and "
                "is left alone"
            )

    if record.owns:
        _take_created(result, record.created, spec.base)
        if record.created == "template" and _bare(result) == _bare(spec.base):
            plan.deletes.append(spec.template)
    if result != current:
        plan.writes[spec.template] = result
    return plan


def _take_created(template: Template, created: str, base: Template) -> None:
    """Removes the empty list or container if adding the variables had created it."""
    if created == "nothing":
        return
    for container in user_containers(template):
        if container.get("env") == []:
            del container["env"]
    if created == "container" or (created == "template" and not user_containers(base)):
        # An empty list stays even if there was none before: the osmo program treats a missing key as no
        # change, and OSMO treats both alike.
        template["spec"]["containers"] = [
            c
            for c in template["spec"]["containers"]
            if not (user_containers({"spec": {"containers": [c]}}) and set(c) == {"name"})
        ]


def _last(spec: Spec, written: Template | None, name: str) -> Any:
    """The entry as the mirror last wrote it, or as it would write it if that revision was deleted."""
    if written is not None:
        return entry_of(written, name)
    return {"name": name, "value": spec.env[name]} if name in spec.env else None


def _previous(record: Record, name: str, template: str, before: Callable[[int], Templates | None]) -> Any:
    """The entry that the mirror overwrote. None if there was none or the revision was deleted."""
    revision = record.owns[name]
    return None if revision is None else copy.deepcopy(entry_of((before(revision) or {}).get(template), name))


def _bare(template: Template) -> Template:
    """The template without empty parts, so that an empty list of containers compares equal to none."""
    bare = copy.deepcopy(template)
    if isinstance(bare.get("spec"), dict) and not bare["spec"].get("containers", True):
        del bare["spec"]["containers"]
    return {key: value for key, value in bare.items() if value not in ({}, None)}
