"""Reads and writes OSMO's pod templates through the operator's own `osmo` program and its login.

Facts about that program (seen with 6.3.1): it prints its errors on stdout, as `Error message:` and `Error
code:` lines or as `{"message", "code"}` under `-t json`; exits 2 for a refusal, 10 for a server or
connection error, 75 for a rate limit; `--file` takes JSON only; without `--description` it opens an editor;
a key that is merely missing from the file counts as no change ("No changes were made to the config.", exit
0); a failed update leaves its file in /tmp.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Template = dict[str, Any]
Templates = dict[str, Template]

EX_DATAERR, EX_TEMPFAIL, EX_NOPERM, EX_CONFIG = 65, 75, 77, 78  # sysexits.h

# Seconds one call may take. A write makes every backend check its pods again, which is slow on large
# clusters.
CALL_TIMEOUT = 180
# Pauses in seconds before a call that failed temporarily is repeated.
RETRY_PAUSES = (1, 3)
# Rows of the history per request (the server's limit is 1000), and the number of pages searched for our own
# last write.
PAGE, PAGES = 200, 10

CONFIGMAP_REFUSAL = "managed by ConfigMap"
# What argparse prints for a command that no longer exists: 6.4 removes `config update` (NVIDIA/OSMO#1338).
RETIRED = "invalid choice"
LEFT_BEHIND = re.compile(r"Attempted changes saved to (/tmp/POD_TEMPLATE[^\s/]*\.json)")


class MirrorError(Exception):
    """A failure with its exit code. Its text is one line that says what is wrong, where, and what to do."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(" ".join(text.split()))
        self.code = code


class InUse(MirrorError):
    """OSMO refused to delete a template because a pool lists it."""


@dataclass(frozen=True)
class Revision:
    """One row of the history. OSMO numbers revisions for a whole config type, not for one template."""

    number: int
    description: str
    username: str


@dataclass(frozen=True)
class Answer:
    exit_code: int
    text: str

    @property
    def message(self) -> str:
        """The program's error message, without the lines around it."""
        found = re.search(
            r"Error message:\s*(.*?)\s*(?:Error code:|Attempted changes saved|$)",
            self.text,
            re.DOTALL,
        )
        if found:
            return " ".join(found[1].split())
        try:
            value = json.loads(self.text)
        except ValueError:
            lines = [line for line in self.text.splitlines() if line.strip()]
            return lines[-1].strip()[-300:] if lines else ""
        return str(value.get("message", value)) if isinstance(value, dict) else str(value)

    @property
    def status(self) -> int:
        """The HTTP status that the program reports, 0 where it reports none."""
        found = re.search(r"(?:Error code:\s*|\"code\":\s*)(\d{3})\b", self.text)
        return int(found[1]) if found else 0


class OsmoCli:
    """The operator's `osmo`. Every method raises a MirrorError that says what to do."""

    def __init__(self, program: str = "osmo", pauses: Sequence[float] = RETRY_PAUSES) -> None:
        self.program = program
        self.pauses = pauses

    def templates(self, revision: int | None = None) -> Templates:
        """All pod templates, as they are now or as they were at a revision."""
        at = "" if revision is None else f":{revision}"
        value = self._json("config", "show", f"POD_TEMPLATE{at}")
        if not all(isinstance(template, dict) for template in value.values()):
            raise MirrorError(
                EX_DATAERR,
                f"`osmo config show POD_TEMPLATE{at}` printed no map of templates. Update the osmo client.",
            )
        return value

    def history(self, offset: int = 0) -> list[Revision]:
        """Revisions of the pod templates, newest first."""
        value = self._json(
            "config",
            "history",
            "POD_TEMPLATE",
            "--order",
            "desc",
            "--count",
            str(PAGE),
            "--offset",
            str(offset),
            "-t",
            "json",
        )
        try:
            rows = [
                Revision(
                    int(row["revision"]),
                    str(row.get("description") or ""),
                    str(row.get("username") or "somebody"),
                )
                for row in value["configs"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise MirrorError(
                EX_DATAERR,
                f"`osmo config history` printed no list of revisions ({error!r}). Update the osmo client.",
            ) from error
        return sorted(rows, key=lambda row: -row.number)

    def update(self, templates: Templates, description: str) -> None:
        """Writes these templates as one revision. Creates those that do not exist; keeps all others.

        Even a single template is written with an update of the whole type, because an update by name requires
        that the name exists.
        """
        with tempfile.TemporaryDirectory(prefix="azureml-mirror-") as folder:
            file = Path(folder) / "pod-templates.json"
            file.write_text(json.dumps(templates), encoding="utf-8")
            self._call(
                "config",
                "update",
                "POD_TEMPLATE",
                "--file",
                str(file),
                "--description",
                description,
            )

    def delete(self, name: str, description: str) -> None:
        """Deletes a template. Raises InUse where a pool lists it. OSMO lets only osmo-admin delete."""
        self._call("config", "delete", "POD_TEMPLATE", name, "--description", description)

    def _json(self, *arguments: str) -> dict[str, Any]:
        text = self._call(*arguments).text
        # The client may print a notice (a newer version) before the answer.
        start = re.search(r"^\{", text, re.MULTILINE)
        try:
            value = json.loads(text[start.start() :] if start else text)
        except ValueError as error:
            raise MirrorError(
                EX_DATAERR,
                f"`osmo {' '.join(arguments[:3])}` printed no JSON. Run it by hand; update the osmo client.",
            ) from error
        if not isinstance(value, dict):
            raise MirrorError(
                EX_DATAERR,
                f"`osmo {' '.join(arguments[:3])}` printed no JSON object. Update the osmo client.",
            )
        return value

    def _call(self, *arguments: str) -> Answer:
        for pause in (*self.pauses, None):
            answer = self._once(arguments)
            if answer.exit_code == 0:
                return answer
            for_now = answer.exit_code in (10, 75) or answer.status == 429 or answer.status >= 500
            if not for_now or pause is None:
                break
            time.sleep(pause)
        raise self._error(arguments, answer)

    def _once(self, arguments: tuple[str, ...]) -> Answer:
        try:
            done = subprocess.run(
                [self.program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                errors="replace", timeout=CALL_TIMEOUT, check=False,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise MirrorError(
                EX_CONFIG,
                f"the osmo program {self.program!r} is not there. Install the OSMO client, or set osmo_cli "
                "to its path.",
            ) from error
        except PermissionError as error:
            raise MirrorError(
                EX_CONFIG,
                f"the osmo program {self.program!r} may not be run. Make it executable, or set osmo_cli to "
                "another.",
            ) from error
        except OSError as error:
            raise MirrorError(
                EX_CONFIG,
                f"the osmo program {self.program!r} cannot be run ({error.strerror}). Set osmo_cli to one "
                "that can.",
            ) from error
        except subprocess.TimeoutExpired as error:
            raise MirrorError(
                EX_TEMPFAIL,
                f"`osmo {' '.join(arguments[:3])}` gave no answer in {CALL_TIMEOUT} s. Check that OSMO is "
                "reachable and run this again.",
            ) from error
        text = done.stdout if done.stdout.strip() else done.stderr
        for path in LEFT_BEHIND.findall(text):
            Path(path).unlink(missing_ok=True)
        return Answer(done.returncode, text)

    @staticmethod
    def _error(arguments: tuple[str, ...], answer: Answer) -> MirrorError:
        said = answer.message[:300] or f"exit code {answer.exit_code}"
        if (
            CONFIGMAP_REFUSAL in answer.text
            or answer.status == 409
            or (arguments[1] != "show" and RETIRED in answer.text)
        ):
            return MirrorError(
                EX_CONFIG,
                f"this OSMO takes no writes of its configuration ({said}): it is in configmap mode, or 6.4 "
                'or later; api mode is for 6.2 and 6.3. Set osmo_config_mode = "configmap" and give '
                "helm_values_file or helm_release; nothing was changed.",
            )
        if "Must login" in said or answer.status == 401:
            return MirrorError(
                EX_NOPERM,
                f"osmo is not logged in ({said}). Run `osmo login URL` and then this again.",
            )
        if answer.status == 403:
            return MirrorError(
                EX_NOPERM,
                f"OSMO does not allow `osmo {' '.join(arguments[:3])}` ({said}). Log in as somebody with "
                "the role osmo-admin.",
            )
        if arguments[1] == "delete" and answer.status == 400:
            return InUse(
                EX_CONFIG,
                f"OSMO does not delete the pod template {arguments[3]} ({said}). Take it out of the pools "
                "that list it "
                "(`osmo config update POOL`) and run this again.",
            )
        if answer.exit_code in (10, 75) or answer.status == 429 or answer.status >= 500:
            return MirrorError(
                EX_TEMPFAIL,
                f"OSMO does not answer for now ({said}). Check `osmo config list` and run this again.",
            )
        return MirrorError(
            EX_CONFIG,
            f"`osmo {' '.join(arguments[:3])}` was refused: {said}. Correct that and run this again.",
        )
