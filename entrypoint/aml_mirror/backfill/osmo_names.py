"""The names of the models of OSMO's workflows: ``--model-name`` with placeholders.

``{label.NAME}``, ``{workflow}`` and ``{run_id}`` are known from OSMO's list alone. ``{framework}`` and
``{task}`` are not. Then a pattern describes which models a workflow may have become.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import Formatter

from aml_mirror.core.errors import UsageError

LABEL = "label."
PLACEHOLDERS = {
    "workflow": "the workflow's name, without its number",
    "run_id": "the workflow's id",
    "task": "the task that declared the output",
    "framework": "the run's layout",
    "label.NAME": "a label of the workflow",
}
_LATER = ("task", "framework")
_NUMBER = re.compile(r"-\d+$")


class WorkflowModelNames:
    """``--model-name`` for runs in OSMO's list.

    Raises:
        UsageError: a placeholder is unknown.
    """

    def __init__(self, template: str) -> None:
        self._template = template
        hint = "the placeholders for workflows of OSMO are: " + ", ".join(
            f"{{{name}}}, {what}" for name, what in PLACEHOLDERS.items()
        )
        try:
            self._parts = [
                (text, name)
                for text, name, spec, conversion in Formatter().parse(template)
                if _is_plain(spec, conversion, template, hint)
            ]
        except ValueError as error:
            raise UsageError(f"--model-name {template!r} cannot be read: {error}", hint) from error
        for _, name in self._parts:
            is_label = name is not None and name.startswith(LABEL) and name != LABEL
            if name is not None and not is_label and name not in PLACEHOLDERS:
                raise UsageError(f"--model-name {template!r} has an unknown placeholder {{{name}}}", hint)
        self.needs_task = any(name == "task" for _, name in self._parts)
        self.needs_framework = any(name == "framework" for _, name in self._parts)

    @property
    def labels(self) -> list[str]:
        """The names of the required labels."""
        return [name.removeprefix(LABEL) for _, name in self._parts if name and name.startswith(LABEL)]

    def of(self, run_id: str, labels: Mapping[str, str] | None, task: str = "", framework: str = "") -> str:
        """Return the model of a workflow, or of one of its tasks.

        Raises:
            UsageError: the workflow lacks a label that the template needs.
        """
        known = {"task": task, "framework": framework}
        return "".join(text + self._value(name, run_id, labels, known) for text, name in self._parts)

    def pattern(self, run_id: str, labels: Mapping[str, str] | None) -> re.Pattern[str]:
        """Return a regular expression for every model of a workflow. Raises the errors of :meth:`of`."""
        return re.compile(
            "".join(
                re.escape(text)
                + (".+" if name in _LATER else re.escape(self._value(name, run_id, labels, {})))
                for text, name in self._parts
            ),
            re.S,
        )

    def _value(
        self, name: str | None, run_id: str, labels: Mapping[str, str] | None, known: Mapping[str, str]
    ) -> str:
        if name is None:
            return ""
        if name == "workflow":
            return _NUMBER.sub("", run_id)
        if name == "run_id":
            return run_id
        if name in _LATER:
            return known[name]
        label = name.removeprefix(LABEL)
        if not (labels or {}).get(label):
            raise UsageError(
                f"workflow {run_id} has no label {label}, which --model-name {self._template!r} needs",
                f"submit such workflows with --label {label}=VALUE, or select by it: --label '{label}=*'",
            )
        return (labels or {})[label]


def _is_plain(spec: str | None, conversion: str | None, template: str, hint: str) -> bool:
    if spec or conversion:
        raise UsageError(f"--model-name {template!r} has a placeholder with a format", hint)
    return True
