"""Submit a workflow to OSMO: its labels, the warnings in OSMO's answer, and what a refusal means."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from aml_mirror.core.errors import (
    ConfigurationError,
    MirrorError,
    NotAllowed,
    ServiceUnavailable,
    UsageError,
)
from aml_mirror.osmo.client import Answer, OsmoClient

# What OSMO prints if its labels_config requires a label, or another value for it
# (src/service/core/workflow/objects.py, 6.4).
_MISSING_LABEL = re.compile(r"is missing (?:required )?label '([^']+)'")
_WRONG_LABEL = re.compile(r"Workflow label '([^']+)' has a value that is not allowed")


def knows_labels(client: OsmoClient) -> bool:
    """Whether this ``osmo`` program takes ``--label``, which OSMO 6.4 added."""
    return "--label" in client.call(("workflow", "submit", "--help")).out


def submit(client: OsmoClient, command: list[str], say: Callable[[str], None]) -> str:
    """Submit a workflow, print OSMO's warnings, and return the workflow's name.

    Raises:
        MirrorError: OSMO refused it, or printed no name.
    """
    answer = client.call(command)
    if answer.code != 0:
        raise refusal(("workflow", "submit"), answer)
    try:
        printed = json.loads(answer.out[answer.out.find("{") :])
        name = printed["name"]
    except (ValueError, KeyError, TypeError):
        printed, name = {}, None
    if not isinstance(name, str):
        raise ConfigurationError(
            "`osmo workflow submit` printed no workflow's name",
            "look at `osmo workflow list`: it may be there; and update the osmo client",
        )
    warnings = printed.get("warnings")
    for warning in warnings if isinstance(warnings, list) else []:
        hint = _label_hint(str(warning))
        say(f"OSMO warns: {warning}" + (f" ({hint})" if hint else ""))
    return name


def _label_hint(said: str) -> str:
    if found := _MISSING_LABEL.search(said):
        return f"add --label {found[1]}=VALUE"
    if found := _WRONG_LABEL.search(said):
        return f"give another value: --label {found[1]}=VALUE"
    return ""


def refusal(command: tuple[str, ...], answer: Answer) -> MirrorError:
    """What a failed call of the ``osmo`` program means. Queries have their own function."""
    said = answer.message or f"exit code {answer.code}"
    called = f"`osmo {' '.join(command)}`"
    if "must login" in said.lower() or answer.status == 401:
        return NotAllowed(f"osmo is not logged in ({said})", "run `osmo login URL`, and then this again")
    if answer.status == 403:
        return NotAllowed(f"OSMO does not allow {called} ({said})", "log in as a user who may")
    if answer.status == 500:
        return ConfigurationError(f"OSMO failed in {called} ({said})", "check the values and OSMO's own log")
    if answer.code in (10, 75) or answer.status in (408, 429) or answer.status >= 500:
        return ServiceUnavailable(f"OSMO does not answer at the moment ({said})", "run this again later")
    if command[1] == "submit" and (hint := _label_hint(said)):
        return UsageError(f"OSMO refused the workflow: {said}", hint)
    if command[1] == "submit" and answer.code == 1:
        return ConfigurationError(f"OSMO refused the workflow: {said}", "correct that and run this again")
    return UsageError(f"{called} was refused: {said}", "correct that and run this again")
