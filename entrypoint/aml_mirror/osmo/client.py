"""Asks the pod's own ``osmo`` program about a run. It is logged in as the submitter of the pod's workflow.

Facts about that program (NVIDIA/OSMO, ``src/cli``, 6.2 to 6.4): errors go to stdout, as ``Error message:``
and ``Error code:`` lines or, with ``-t json``, as an object with ``message`` and ``code``. It exits with 1
for a refused submission, 2 for a refusal, 10 for an error of the server or of the connection, 75 for a rate
limit. The message of a server error repeats the headers of the answer, including cookies. It writes a log
into ``OSMO_LOG_FILE_DIR``, and fails if it cannot.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from aml_mirror.core.errors import (
    ConfigurationError,
    DataError,
    MirrorError,
    NotAllowed,
    ServiceUnavailable,
    SourceNotFound,
)
from aml_mirror.osmo.workflow_list import ListQuery
from aml_mirror.support import redaction
from aml_mirror.support.retry import Retry

# OSMO mounts the program here in every pod, and appends the folder to PATH (src/utils/job/common.py).
POD_PROGRAM = "/osmo/usr/bin/osmo"
# The most seconds for one question: the program first unpacks itself, perhaps on a busy node.
CALL_SECONDS = 120.0
# The answer for a workflow with 50 tasks has 60 kB. A spec may contain files of some MB.
MAX_ANSWER_BYTES = 16 << 20
_MAX_MESSAGE = 300
# A workflow's name with its number, or its UUID (src/lib/utils/common.py, WFID_REGEX and UUID_REGEX). It
# becomes an argument and a part of a URL, so nothing else may be passed to the program.
_RUN_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,254}[A-Za-z0-9])?")
# Everything that the program needs from our environment: how to run, how to reach OSMO, and its own login. It
# does not get the credentials of this program.
_INHERITED = re.compile(
    r"PATH|HOME|TMPDIR|TZ|LANG|LC_\w+|LD_LIBRARY_PATH|OSMO_CONFIG_FILE_DIR|XDG_CONFIG_HOME"
    r"|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|SSL_CERT_(?:FILE|DIR)|(?:https?|no|all)_proxy",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """The output and exit code of the program."""

    code: int
    out: str
    err: str

    @property
    def status(self) -> int:
        """The HTTP status of a failure; 0 if there is none."""
        found = re.search(r"^(?:Error code:|\s*\"code\":)\s*(\d{3})\b", self.out, re.M)
        return int(found[1]) if found else 0

    @property
    def message(self) -> str:
        """What went wrong, in one line, without the headers of the server's answer and without secrets."""
        said = self.out
        with suppress(ValueError, TypeError, KeyError):
            said = str(json.loads(said)["message"])
        if found := re.search(r"Error message:(.*?)(?:^Error code:|\Z)", said, re.S | re.M):
            said = found[1]
        if re.match(r"\s*Status Code: \d{3}", said):
            # Only the text below "Body:". The headers are above it.
            said = said.partition("\nBody:")[2]
            with suppress(ValueError, TypeError, KeyError):
                said = str(json.loads(said)["message"])
        said = said.partition("Traceback (most recent call last)")[0]
        if not said.strip():
            # The program itself crashed. Its loader reports the reason on stderr, in its last line.
            said = self.err.strip().rpartition("\n")[2]
        return redaction.text(" ".join(said.split())[: 4 * _MAX_MESSAGE])[:_MAX_MESSAGE]


class OsmoClient:
    """Asks the ``osmo`` program. Each answer is limited in size and time.

    Args:
        program: its path.
        retry_seconds: how long a question may keep failing for temporary reasons.
        notice: called with messages for the user while waiting.
        environment: what the program gets; None: only what it needs from this process.
    """

    # Two requests to OSMO. An entry with 16 long labels has 7 kB, so a page stays below MAX_ANSWER_BYTES.
    page_size = 2000

    def __init__(
        self,
        program: str,
        retry_seconds: float,
        notice: Callable[[str], None],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._program = program
        self._environment = needed(os.environ) if environment is None else dict(environment)
        self._retry = Retry(retry_seconds, _unexpected, notice)

    @staticmethod
    def find() -> str | None:
        """Return the path of the pod's ``osmo`` program; None if there is none."""
        if found := shutil.which("osmo"):
            return found
        return POD_PROGRAM if os.access(POD_PROGRAM, os.X_OK) else None

    def query(self, run_id: str, patient: bool = True) -> str:
        """Return the output of ``osmo workflow query RUN_ID -t json``.

        Args:
            patient: whether to retry for ``retry_seconds``; otherwise the first failure is raised.

        Raises:
            SourceNotFound: OSMO knows no such run.
            NotAllowed: the pod is not logged in, or may not see the run.
            ServiceUnavailable: OSMO does not answer at the moment.
            ConfigurationError: the program cannot be run.
        """
        arguments = ("workflow", "query", checked(run_id), "-t", "json")
        if not patient:
            return self._ask(run_id, arguments)
        return self._retry(lambda: self._ask(run_id, arguments))

    def spec(self, run_id: str) -> str:
        """Return the output of ``osmo workflow spec RUN_ID``: the YAML of the run as it was submitted.

        Raises:
            ConfigurationError: besides the errors of :meth:`query`: OSMO cannot read its stored spec.
        """
        arguments = ("workflow", "spec", checked(run_id))
        text = self._retry(lambda: self._ask(run_id, arguments))
        if not text.strip():
            raise no_spec(run_id, "it is empty")
        return text

    def list_page(self, query: ListQuery, offset: int, count: int) -> str:
        """Return the output of ``osmo workflow list -t json``, the newest submission first.

        Raises:
            MirrorError: see :meth:`query`.
        """
        arguments = ["workflow", "list", "-t", "json", "--order", "desc"]
        arguments += ["--count", str(count), "--offset", str(offset)]
        if query.submitted_since:
            arguments += ["--submitted-after", query.submitted_since.isoformat()]
        arguments += ["--user", *query.users] if query.users else ["--all-users"]
        arguments += ["--pool", *query.pools] if query.pools else []
        return self._retry(lambda: self._ask("", tuple(arguments)))

    def _ask(self, run_id: str, arguments: tuple[str, ...]) -> str:
        answer = self.call(arguments)
        if answer.code == 0:
            return answer.out
        raise _failure(run_id, arguments, answer)

    def call(self, arguments: Sequence[str]) -> Answer:
        """Call the program once, whatever its answer is.

        Raises:
            ConfigurationError: it cannot be run.
            ServiceUnavailable: it did not end within ``CALL_SECONDS``.
            DataError: it printed more than ``MAX_ANSWER_BYTES``.
        """
        command = f"`osmo {' '.join(arguments[:3])}`"
        with tempfile.TemporaryDirectory(prefix="aml-mirror-osmo-") as folder:
            try:
                process = subprocess.Popen(  # noqa: S603 - the path is the pod's own, the id was checked
                    [self._program, *arguments],
                    env={**self._environment, "OSMO_LOG_FILE_DIR": folder},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    # The program unpacks itself and works in a child process: both must be ended.
                    process_group=0,
                )
            except OSError as error:
                raise ConfigurationError(
                    f"the osmo program {self._program} cannot be run: {error.strerror}",
                    "pass the folder that the training wrote to with --source",
                ) from error
            late = threading.Event()

            def stop() -> None:
                late.set()
                _kill(process)

            timer = threading.Timer(CALL_SECONDS, stop)
            timer.daemon = True
            timer.start()
            try:
                assert process.stdout is not None and process.stderr is not None  # noqa: S101 - for mypy
                errors: list[bytes] = []
                drain = threading.Thread(target=_drain, args=(process.stderr, errors), daemon=True)
                drain.start()
                out = process.stdout.read(MAX_ANSWER_BYTES + 1)
                if len(out) > MAX_ANSWER_BYTES:
                    raise DataError(
                        f"{command} printed more than {MAX_ANSWER_BYTES >> 20} MiB",
                        "pass the folder that the training wrote to with --source",
                    )
                code = process.wait()
                drain.join(1.0)
            finally:
                timer.cancel()
                _kill(process)
                process.wait()
                process.stdout.close()  # type: ignore[union-attr]
        if late.is_set():
            raise ServiceUnavailable(
                f"{command} gave no answer in {CALL_SECONDS:.0f} s", "run the same command again"
            )
        return Answer(code, out.decode(errors="replace"), b"".join(errors).decode(errors="replace"))


def needed(environment: Mapping[str, str]) -> dict[str, str]:
    """What the program needs from an environment: how to run, how to reach OSMO, and its login."""
    return {key: value for key, value in environment.items() if _INHERITED.fullmatch(key)}


def _drain(stream: IO[bytes], kept: list[bytes]) -> None:
    # All of it is read, so the program never waits for us. Only the end is kept.
    with suppress(OSError, ValueError), stream:
        while block := stream.read1(64 << 10):  # type: ignore[attr-defined]
            kept[:] = [(b"".join(kept) + block)[-(64 << 10) :]]


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def checked(run_id: str) -> str:
    """Return a run id if it may become an argument and part of a URL; otherwise raise SourceNotFound."""
    if not _RUN_ID.fullmatch(run_id):
        raise SourceNotFound(
            f"{run_id!r} cannot be the id of a run on OSMO: ids consist of letters, digits, '-' and '_'",
            "pass the id that `osmo workflow list` shows, or the run's folder with --source",
        )
    return run_id


def _failure(run_id: str, arguments: tuple[str, ...], answer: Answer) -> MirrorError:
    said, status = answer.message, answer.status
    command = f"`osmo {' '.join(arguments)}`"
    if re.search(r"\bWorkflow\b.*\bis not found\b", said, re.I):
        return SourceNotFound(
            f"OSMO knows no run {run_id}", "pass the id that `osmo workflow list` shows, with its number"
        )
    about = f"run {run_id}" if run_id else "its workflows"
    if "must login" in said.lower() or status == 401:
        return NotAllowed(
            f"the osmo program is not logged in, so it cannot be asked about {about} ({said})",
            "in a pod, OSMO sets OSMO_CONFIG_FILE_DIR: do not overwrite it; elsewhere run `osmo login URL`, "
            "or pass --source",
        )
    if status == 403:
        return NotAllowed(
            f"OSMO does not let the submitter of this workflow see {about} ({said})",
            "submit as a user who may" + (", or pass --source" if run_id else ""),
        )
    if arguments[1] == "spec" and (status == 500 or "Failed to fetch spec" in said):
        return no_spec(run_id, said)
    if answer.code in (10, 75) or status in (408, 429) or status >= 500:
        return ServiceUnavailable(
            f"OSMO does not answer at the moment ({said or command})", "run the same command again later"
        )
    if answer.code < 0:
        return ServiceUnavailable(
            f"{command} was ended by signal {-answer.code}",
            "give the task more memory, or run the command again",
        )
    return ConfigurationError(
        f"{command} failed with exit code {answer.code}: {said or 'it printed nothing'}",
        "pass the folder that the training wrote to with --source" if run_id else "run that command by hand",
    )


def no_spec(run_id: str, said: str) -> ConfigurationError:
    """Return the error for a spec that OSMO does not return. ``said`` is its message."""
    # microsoft/physical-ai-toolchain#491: OSMO 6.2 can read its stored specs only with an account key.
    return ConfigurationError(
        f"OSMO cannot read its stored spec of run {run_id} ({said}); OSMO 6.2 cannot if it accesses the "
        "storage with workload identity",
        "pass the run's output with --source azure://ACCOUNT/CONTAINER/PATH",
    )


def _unexpected(error: Exception) -> MirrorError:
    return ConfigurationError(
        f"the osmo program cannot be used: {error}", "pass the run's folder with --source"
    )
