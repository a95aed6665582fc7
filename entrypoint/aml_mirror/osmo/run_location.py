"""Finds a run by its id: waits for its end, checks how it ended, and chooses its declared output.

After a task's command has ended, even if it failed, OSMO uploads the contents of ``{{output}}`` to the URLs
that the task declared. So a run is mirrored after it has ended, and a failed one only on request. COMPLETED
does not prove that anything was uploaded.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlsplit

from aml_mirror.core.errors import (
    ConfigurationError,
    DataError,
    ServiceUnavailable,
    SourceNotFound,
    UsageError,
)
from aml_mirror.core.settings import Settings
from aml_mirror.osmo.connection import connect, is_reachable
from aml_mirror.osmo.workflow import (
    Declared,
    Output,
    Task,
    Workflow,
    has_ended,
    has_failed,
    read_query,
    read_spec,
)
from aml_mirror.support import redaction

# Seconds between two questions while waiting for a run: short at first, for a run that is about to end.
FIRST_POLL = 5.0
LONGEST_POLL = 60.0
# Seconds between two messages that the wait continues.
SAY_AGAIN = 600.0
_FORM = "azure://ACCOUNT/CONTAINER/PATH"
_ADVICE = f"declare `outputs: - url: {_FORM}` in the training workflow, so that the next run is found"
_AZURE_OUTPUT = re.compile(r"https://([a-z0-9]+)\.blob\.[^/]+/([^?#]+)")


class OsmoRun:
    """The run that the settings name, as OSMO knows it.

    Args:
        settings: of this call. Their ``run_id`` may be a UUID; :meth:`ended` knows the run's name.
        notice: called with messages for the user while waiting.
        clock, sleep, host: for tests.

    Raises:
        ConfigurationError: there is no ``osmo`` program to ask.
    """

    def __init__(
        self,
        settings: Settings,
        notice: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        host: str | None = None,
    ) -> None:
        self._settings, self._notice, self._clock, self._sleep = settings, notice, clock, sleep
        self._host = socket.gethostname() if host is None else host
        if not is_reachable(settings):
            raise ConfigurationError(
                f"no source configured for run {settings.run_id}: --source and OUTPUT_DIR are not set, and "
                "there is no osmo program on PATH to ask",
                "pass the folder that the training wrote to with --source; in a pod of OSMO, PATH must "
                "contain /osmo/usr/bin",
            )
        self._client = connect(settings, notice)
        self._workflow: Workflow | None = None

    def ended(self) -> Workflow:
        """Wait for the run's end, as long as ``--wait-for`` says, and check once how it ended.

        Raises:
            ServiceUnavailable: it has not ended.
            DataError: it failed, and ``--allow-failed`` is not given.
            UsageError: it has no task with the name in ``--task``.
            MirrorError: see :meth:`OsmoClient.query`.
        """
        if self._workflow is not None:
            return self._workflow
        workflow = self._wait()
        settings = self._settings
        what, status = self._subject(workflow)
        if has_failed(status) and not settings.allow_failed:
            hint = "pass --allow-failed to mirror what it left"
            fine = [task.name for task in workflow.tasks if task.status == "COMPLETED"]
            if not settings.task and fine:
                hint += f"; or mirror a COMPLETED task: --task {' or --task '.join(fine[:5])}"
            raise DataError(f"{what} is {status}", hint)
        self._workflow = workflow
        return workflow

    def output(self) -> str:
        """Return the URL of the declared output of the run, or of the task in ``--task``.

        Raises:
            SourceNotFound: it declared none, or none that can be read.
            UsageError: it declared several.
            MirrorError: see :meth:`ended` and :meth:`OsmoClient.spec`.
        """
        workflow = self.ended()
        declared = read_spec(self._client.spec(workflow.name), workflow, self._settings.task)
        return choose(declared, workflow, self._settings.task)

    def tasks_with_outputs(self) -> list[str]:
        """Return the names of the tasks with a readable declared output, in the order of the spec.

        Raises:
            MirrorError: see :meth:`output`.
        """
        workflow = self.ended()
        declared = read_spec(self._client.spec(workflow.name), workflow)
        return list(dict.fromkeys(item.task for item in declared.outputs if _is_readable(item.url)))

    def nothing_there(self, said: str) -> DataError:
        """Return the error for a declared output that is empty. ``said`` describes that."""
        workflow = self.ended()
        what, status = self._subject(workflow)
        return DataError(
            f"{what} is {status}, but {said}, which is its declared output",
            "the training wrote nothing to {{output}}, or its upload failed: OSMO shows COMPLETED for both; "
            "check the end of `osmo workflow logs`",
        )

    def _wait(self) -> Workflow:
        settings = self._settings
        started = self._clock()
        pause, said = FIRST_POLL, 0.0
        waits = settings.wait_seconds > 0
        while True:
            now = self._clock() - started
            left = settings.wait_seconds - now
            try:
                text = self._client.query(settings.run_id, patient=not waits)
            except ServiceUnavailable as error:
                # OSMO may be upgraded during a wait of several days.
                if left <= 0:
                    raise
                state = error.message
            else:
                workflow = read_query(text, settings.run_id)
                what, status = self._subject(workflow)
                if has_ended(status):
                    return workflow
                state = f"{what} is {status}"
                if left <= 0:
                    hint = "mirror it after it has ended, or pass --wait-for, for example --wait-for 12h"
                    raise ServiceUnavailable(f"{state}: it has not ended", hint)
            if not said or now - said >= SAY_AGAIN:
                self._notice(f"{state}; waiting for its end, at most {_duration(left)} (--wait-for)")
                said = max(now, 1e-9)
            self._sleep(min(pause, left))
            pause = min(pause * 1.5, LONGEST_POLL)

    def _subject(self, workflow: Workflow) -> tuple[str, str]:
        """Return what is waited for and checked: the task of ``--task``, or the run, and its status."""
        if name := self._settings.task:
            task = workflow.task(name)
            if task is None:
                raise UsageError(
                    f"run {workflow.name} has no task {name}",
                    "its tasks are: " + ", ".join(item.name for item in workflow.tasks[:20]),
                )
            return f"task {task.name} of run {workflow.name}", task.status
        others = [task for task in workflow.tasks if task.host != self._host]
        if len(others) == len(workflow.tasks):
            return f"run {workflow.name}", workflow.status
        # This pod is a task of the run itself, so the run cannot end before this pod does.
        return f"run {workflow.name}, apart from this task,", _status(others)


def choose(declared: Declared, workflow: Workflow, task: str = "") -> str:
    """Choose the only location of a run's output.

    Outputs come before checkpoints, which OSMO uploads while the run continues: the last checkpoint is in
    both. A location below another one does not count as a second one.

    Raises:
        SourceNotFound: there is none, or none that can be read.
        UsageError: there are several.
    """
    what = f"task {task} of run {workflow.name}" if task else f"run {workflow.name}"
    outputs = [item for item in declared.outputs if item.kind == "output"] or declared.outputs
    if not outputs:
        raise _none(what, declared, workflow)
    readable = _distinct(item for item in outputs if _is_readable(item.url))
    if not readable:
        named = ", ".join(sorted({redaction.text(item.url) for item in outputs})[:5])
        if "{{" in named:
            raise SourceNotFound(
                f"{what} declared {named}, which OSMO filled in while it ran",
                f"pass the place with --source {_FORM}",
            )
        raise SourceNotFound(
            f"{what} declared {named}, which cannot be read here",
            "only Azure Blob storage can be read: copy the run there, or to a volume, and pass that with "
            "--source",
        )
    if len(readable) > 1:
        listed = "; ".join(f"{redaction.text(item.url)} (task {item.task})" for item in readable[:20])
        raise UsageError(
            f"{what} declared {len(readable)} outputs: {listed}",
            "choose one with --source" + ("" if task else ", or its task with --task"),
        )
    return readable[0].url


def _none(what: str, declared: Declared, workflow: Workflow) -> SourceNotFound:
    if declared.others:
        kinds = " and ".join(sorted(set(declared.others))[:3])
        return SourceNotFound(
            f"{what} declared its output as {kinds}, whose location OSMO does not report",
            f"pass the place with --source; {_ADVICE}",
        )
    hint = f"if it is on a volume or in blob storage, pass that with --source; {_ADVICE}"
    if found := _AZURE_OUTPUT.match(workflow.outputs):
        place = redaction.text(f"azure://{found[1]}/{found[2]}")
        hint = f"its {{{{output}}}} may be stored in {place}: if so, pass that with --source; {_ADVICE}"
    return SourceNotFound(f"{what} declared no output, so OSMO does not know where its files are", hint)


def _is_readable(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "azure" and bool(parts.path.strip("/")) and "{{" not in url


def _distinct(outputs: Iterable[Output]) -> list[Output]:
    kept: dict[str, Output] = {}
    for item in outputs:
        kept.setdefault(item.url.rstrip("/") + "/", item)
    return [
        item
        for place, item in kept.items()
        if not any(place != other and place.startswith(other) for other in kept)
    ]


def _status(tasks: Sequence[Task]) -> str:
    for task in tasks:
        if not has_ended(task.status):
            return task.status
    return next((task.status for task in tasks if has_failed(task.status)), "COMPLETED")


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.0f} h"
