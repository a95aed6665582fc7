"""Follow a workflow on OSMO to its end: its status, the receipt in its log, the mirror's own exit code."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable

from replay_submit import refusal

from aml_mirror.core.errors import ConfigurationError, DataError, MirrorError, ServiceUnavailable
from aml_mirror.osmo.client import OsmoClient
from aml_mirror.osmo.workflow import Task, Workflow, has_ended, has_failed, read_query
from aml_mirror.support import redaction

# Seconds between two requests.
FIRST_POLL = 5.0
LONGEST_POLL = 30.0
# How long OSMO may be unreachable while a workflow is followed, in seconds.
PATIENCE = 15 * 60
TASK = "mirror"

# A line of the log is a line of the program's output after a date and the task's name.
_RECEIPT = re.compile(r"\[" + TASK + r"(?: retry-\d+)?\] (\{\"schema\":\"aml-mirror/receipt/v1\".*)")
OWN_CODES = (0, 64, 65, 66, 70, 75, 77, 78, 130, 143)
# Statuses that a task gets without its program's fault. The next attempt may succeed.
_FOR_NOW = (
    "FAILED_EVICTED",
    "FAILED_PREEMPTED",
    "FAILED_BACKEND_ERROR",
    "FAILED_SERVER_ERROR",
    "FAILED_START_ERROR",
    "FAILED_START_TIMEOUT",
    "FAILED_QUEUE_TIMEOUT",
    "FAILED_EXEC_TIMEOUT",
    "FAILED_CANCELED",
)


def until_ended(
    client: OsmoClient, name: str, say: Callable[[str], None], patience: float = PATIENCE
) -> Workflow:
    """Wait until a workflow ends, and print each change of its status.

    Raises:
        ServiceUnavailable: OSMO did not answer for ``patience`` seconds.
        MirrorError: see :meth:`OsmoClient.query`.
    """
    pause, shown, away = FIRST_POLL, "", 0.0
    while True:
        try:
            workflow = read_query(client.query(name, patient=False), name)
        except ServiceUnavailable as error:
            away += pause
            if away > patience:
                raise
            state = error.message
        else:
            away = 0.0
            state = f"{workflow.name} is {workflow.status}"
            if has_ended(workflow.status):
                if state != shown:
                    say(state)
                return workflow
        if state != shown:
            say(state)
            shown = state
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_POLL)


def receipts(client: OsmoClient, name: str) -> list[str]:
    """The receipts in a workflow's log, one per version, as lines of JSON.

    Raises:
        MirrorError: the log cannot be read.
    """
    answer = client.call(("workflow", "logs", name, "-t", TASK))
    if answer.code != 0:
        raise refusal(("workflow", "logs"), answer)
    found = []
    for line in answer.out.splitlines():
        if match := _RECEIPT.search(line):
            try:
                receipt = json.loads(match[1])
            except ValueError:
                continue
            found.append(redaction.text(json.dumps(receipt, separators=(",", ":"))))
    return found


def exit_code(workflow: Workflow) -> int:
    """The mirror's own exit code, or the code that best describes how its task ended.

    Raises:
        MirrorError: the task never ran, or was ended from outside.
    """
    task = workflow.task(TASK) or Task(TASK, workflow.status)
    if task.exit_code in OWN_CODES and (task.exit_code or not has_failed(task.status)):
        return task.exit_code or 0
    what = f"the task {TASK} of {workflow.name} is {task.status}"
    if task.status == "FAILED_IMAGE_PULL":
        raise ConfigurationError(
            f"{what}: its image could not be pulled", "check the image's name, and its registry's credential"
        )
    if task.exit_code == 2:
        raise ConfigurationError(
            f"{what} with exit code 2: its image has no program aml-mirror", "check the image's name"
        )
    if task.status in _FOR_NOW or task.exit_code in (137, 255):
        raise ServiceUnavailable(
            f"{what}" + (f" with exit code {task.exit_code}" if task.exit_code is not None else ""),
            "run this again: it continues where that one stopped; `osmo workflow events` says more",
        )
    if not has_failed(task.status):
        return 0
    raise MirrorError(
        f"{what} with exit code {task.exit_code}, which is none of the mirror's",
        f"see `osmo workflow logs {workflow.name}`",
    )


def judge(workflow: Workflow, allow_failed: bool) -> None:
    """Check that a run ended well.

    Raises:
        DataError: the run failed, and failed runs are not to be mirrored.
    """
    if has_failed(workflow.status) and not allow_failed:
        raise DataError(
            f"run {workflow.name} is {workflow.status}", "to mirror what it left, end with: -- --allow-failed"
        )
