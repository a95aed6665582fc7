"""Find and check the values of a replay before OSMO sees them.

OSMO reports many wrong values only later, in a pod, or with an HTTP 500. Checking them here costs nothing.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aml_mirror.core.errors import ConfigurationError, ServiceUnavailable, UsageError
from aml_mirror.core.run_folder import refuse_dotenv_of_a_run

COORDINATES = {
    "--subscription-id": ("AZURE_SUBSCRIPTION_ID",),
    "--resource-group": ("AZURE_RESOURCE_GROUP", "AZUREML_RESOURCE_GROUP"),
    "--workspace-name": ("AZUREML_WORKSPACE_NAME",),
}
# Seconds that `terraform output` may take. It may fetch a remote state.
TERRAFORM_SECONDS = 120

_RUN_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,254}[A-Za-z0-9])?")
_IMAGE = re.compile(
    r"(?:[A-Za-z0-9.-]+(?::\d+)?/)?[a-z0-9._-]+(?:/[a-z0-9._-]+)*"
    r"(?P<tag>:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(?P<digest>@sha256:[0-9a-f]{64})?"
)
_AZURE = re.compile(r"azure://[a-z0-9][a-z0-9.]{2,}/[a-z0-9$][a-z0-9-]{1,62}(/.*)?", re.S)
_BLOB = re.compile(r"https://([a-z0-9]{3,24})\.blob\.[a-z0-9.]+/([^/?#]+)(/[^?#]*)?", re.S)
_ABFS = re.compile(r"abfss?://([a-z0-9$-]+)@([a-z0-9]+)\.[^/]*(/[^?]*)?")
# Kubernetes' rules for labels: a name of up to 63 characters, optionally after a DNS name and a slash.
MAX_LABELS = 16
_LABEL_VALUE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_DNS_PART = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_LABEL_KEY = re.compile(rf"(?:(?=[^/]{{1,253}}/){_DNS_PART}(?:\.{_DNS_PART})*/)?{_LABEL_VALUE.pattern}")
# The three kinds of line in a .env file. A quoted value may span several lines.
_REST_OF_LINE = r"[^\S\n]*(?:#[^\n]*)?(?:\n|\Z)"
_BLANK = re.compile(_REST_OF_LINE)
_NAME = re.compile(r"[^\S\n]*(?:export[^\S\n]+)?[A-Za-z_][\w.-]*" + _REST_OF_LINE)
_PAIR = re.compile(
    r"[^\S\n]*(?:export[^\S\n]+)?(?P<name>[A-Za-z_][\w.-]*)[^\S\n]*=[^\S\n]*"
    r"(?:'(?P<single>[^']*)'|\"(?P<double>[^\"]*)\"|(?P<plain>(?!['\"])(?:[^\n#]|(?<!\s)#)*))" + _REST_OF_LINE
)
_FORM = "azure://ACCOUNT/CONTAINER/PATH"


@dataclass(slots=True)
class Values:
    """Values that replace the workflow's defaults, and where each came from."""

    given: dict[str, str] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)

    def set(self, key: str, value: str | None, where: str) -> None:
        """Set a value. An empty one is ignored.

        Raises:
            UsageError: OSMO's templates would change it.
        """
        if not value:
            return
        check_text(where, value)
        self.given[key], self.where[key] = value, where


def check_text(what: str, value: str) -> None:
    """Check that a value passes through OSMO's templates unchanged. OSMO renders it twice.

    Raises:
        UsageError: they would change it.
    """
    if re.search(r"\{\{|\{%|\{#|[%}]\}|#\}", value):
        raise UsageError(
            f"{what} has braces that OSMO's templates give a meaning: {value!r}", "take them out"
        )
    if not value.isprintable():
        raise UsageError(f"{what} has a newline or another control character", "take it out")


def check_run_id(run_id: str) -> None:
    """Check the shape of a run's id.

    Raises:
        UsageError: it cannot be a run's id.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise UsageError(
            f"{run_id!r} cannot be the id of a run: those have letters, digits, '-', '_' and '.'",
            "pass the id that `osmo workflow list` shows, for example groot-train-17",
        )


def check_labels(labels: list[str]) -> None:
    """Check labels as OSMO does (``src/lib/utils/workflow_labels.py``, 6.4).

    Raises:
        UsageError: one is not a label, or there are too many.
    """
    if len(labels) > MAX_LABELS:
        raise UsageError(f"{len(labels)} labels are more than OSMO takes", f"pass at most {MAX_LABELS}")
    for label in labels:
        key, equals, value = label.partition("=")
        if not equals or not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise UsageError(
                f"--label {label!r} is not a Kubernetes label of the form KEY=VALUE",
                "for example --label team=arms: letters, digits, '-', '_', '.', at most 63 of them",
            )


def check_source(source: str) -> str:
    """Return a source in a form that the pod can read.

    Raises:
        UsageError: the pod cannot read it, or it contains a signature (which the error does not repeat).
    """
    scheme, mark, _ = source.partition("://")
    if not mark:
        if not source.startswith("/"):
            raise UsageError(
                f"--source {source} is a relative path, which means nothing in a pod",
                f"pass {_FORM}, or the absolute path on a volume that is mounted in the pod",
            )
        return source
    if re.search(r"[?&](sig|se|sv|sp)=", source):
        raise UsageError(
            "--source has a SAS in it, which OSMO would keep and show",
            f"pass {_FORM}: the pod reads it as its workload identity",
        )
    if scheme == "azure":
        if not _AZURE.fullmatch(source):
            raise UsageError(f"--source {source} names no account and container", f"its form is {_FORM}")
        return source
    for pattern, order in ((_BLOB, (1, 2, 3)), (_ABFS, (2, 1, 3))):
        if match := pattern.fullmatch(source):
            account, container, path = (match[place] or "" for place in order)
            return f"azure://{account}/{container}{path}"
    raise UsageError(
        f"--source {source} is a {scheme}:// URI, which cannot be read", f"pass {_FORM}, or a path in the pod"
    )


def check_image(image: str, where: str) -> None:
    """Check an image's name.

    Raises:
        ConfigurationError: it is the workflow's placeholder from before the first release.
        UsageError: it is not the name of an image.
    """
    match = _IMAGE.fullmatch(image)
    if not match:
        raise UsageError(
            f"the image {image!r} ({where}) is not the name of an image", "the form is REGISTRY/NAME@sha256:…"
        )
    if (match["digest"] or "").endswith("0" * 64):
        raise ConfigurationError(
            f"the image ({where}) is the placeholder that is there before a release",
            "pass the one that `make push` printed with --image, or set AML_MIRROR_IMAGE",
        )


def check_flags(flags: list[str]) -> str:
    """Return further flags of the program as one value, which the workflow splits at spaces.

    Raises:
        UsageError: a flag contains a space.
    """
    for flag in flags:
        check_text(f"the flag {flag!r}", flag)
        if re.search(r"\s", flag):
            raise UsageError(
                f"the flag {flag!r} has a blank in it, where the workflow splits flags", "pass it without one"
            )
    return " ".join(flag for flag in flags if flag)


def default_image(workflow: Path) -> str:
    """The default image in a workflow file, or an empty string.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    try:
        text = workflow.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"the workflow {workflow} cannot be read: {error}", "run this from a checkout of the repository"
        ) from error
    found = re.search(r"^  image: (\S+)$", text, re.M)
    return found[1] if found else ""


def read_dotenv(path: Path) -> dict[str, str]:
    """Read a ``.env`` file: ``NAME=value`` lines, ``export``, quotes, comments. Empty without a file.

    Raises:
        ConfigurationError: it cannot be read, a line is not ``NAME=value``, or it belongs to a run. Files
            that a training wrote must not choose the target or the image.
    """
    try:
        text = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", "fix the file or remove it") from error
    values: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _BLANK.match(text, position) or _NAME.match(text, position) or _PAIR.match(text, position)
        if match is None:
            line = text.count("\n", 0, position) + 1
            raise ConfigurationError(
                f"{path}, line {line}: not NAME=value",
                "fix the line, or put # before it to make it a comment",
            )
        position = match.end()
        if match.re is _PAIR:
            quoted = match["single"] if match["single"] is not None else match["double"]
            values[match["name"]] = match["plain"].strip() if quoted is None else quoted
    if values:
        refuse_dotenv_of_a_run(path)
    return values


def read_terraform(folder: Path) -> dict[str, str]:
    """The workspace's coordinates from ``terraform output -json azureml_env`` in a folder.

    Raises:
        ConfigurationError: terraform or the output is missing, or the mirror is off.
        ServiceUnavailable: it takes too long.
    """
    if not folder.is_dir():
        raise ConfigurationError(
            f"--terraform {folder} is not a folder", "pass the folder in which you run terraform"
        )
    command = ["terraform", f"-chdir={folder}", "output", "-json", "azureml_env"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TERRAFORM_SECONDS
        )
    except FileNotFoundError as error:
        raise ConfigurationError("there is no terraform program on PATH", "install it") from error
    except subprocess.TimeoutExpired as error:
        raise ServiceUnavailable(
            f"`terraform output` gave no answer in {TERRAFORM_SECONDS} s", "run it by hand"
        ) from error
    try:
        found = json.loads(done.stdout) if done.returncode == 0 else None
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        said = re.sub(r"\x1b\[[0-9;]*m|[│╵╷]", "", done.stderr)
        raise ConfigurationError(
            f"terraform in {folder} has no output azureml_env: {' '.join(said.split())[:200]}",
            'add `output "azureml_env" { value = module.NAME.azureml_env }` there and apply',
        )
    if not found:
        raise ConfigurationError(
            f"the mirror is off in {folder}: its output azureml_env is empty",
            "see its output mirror_reason, or set the three variables by hand",
        )
    return found


def coordinates(places: list[tuple[str, Mapping[str, str]]]) -> tuple[list[str], str]:
    """The workspace as flags, from the first place that names all of it; and the name of that place.

    If no place names it, there are no flags, and the pod template must name it.

    Raises:
        UsageError: a value has spaces or braces.
    """
    for where, place in places:
        flags = []
        for flag, names in COORDINATES.items():
            if value := next((place[name] for name in names if place.get(name)), ""):
                flags.append(f"{flag}={value}")
        if len(flags) == len(COORDINATES):
            check_flags(flags)
            return flags, where
    return [], ""
