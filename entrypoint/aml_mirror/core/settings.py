"""What a person asked for, and where each answer came from.

A flag wins over the environment, that over a ``.env`` file in the working directory, that over the
default. Empty variables and flags count as unset: workflows declare them with empty defaults, and an empty
value must not shadow one from the pod template.
"""

from __future__ import annotations

import os
import re
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aml_mirror.core.errors import ConfigurationError, UsageError

# A transient failure is retried this long by default: OSMO does not reschedule a task unless an
# administrator raised the retry limit, so the waiting has to happen here.
RETRY_SECONDS = 15 * 60

# A .env file has some dozen lines; parsed, each takes a hundred times its size.
MAX_DOTENV_BYTES = 256 << 10

# Variables that existing training workflows set and that are worth knowing of a run; values only, by
# name: the environment is never mirrored wholesale.
PARAMETER_VARIABLES = (
    "DATA_CONFIG",
    "BASE_MODEL",
    "BATCH_SIZE",
    "MAX_STEPS",
    "SAVE_STEPS",
    "DATALOADER_WORKERS",
    "EMBODIMENT_TAG",
    "ISAAC_GROOT_REF",
)

# What ``az ml workspace show`` calls mlflow_tracking_uri.
_AZUREML_URI = re.compile(
    r"azureml://[^/]+/mlflow/v[\d.]+/subscriptions/(?P<subscription_id>[^/]+)/resourceGroups/(?P<resource_group>[^/]+)"
    r"/providers/Microsoft\.MachineLearningServices/workspaces/(?P<workspace_name>[^/?#]+)/?",
    re.IGNORECASE,
)

_VARIABLES = {
    "model_name": ("AZUREML_MODEL_NAME",),
    "subscription_id": ("AZURE_SUBSCRIPTION_ID",),
    "resource_group": ("AZURE_RESOURCE_GROUP", "AZUREML_RESOURCE_GROUP"),
    "workspace_name": ("AZUREML_WORKSPACE_NAME",),
    "tracking_uri": ("MLFLOW_TRACKING_URI",),
    "run_id": ("REPLAY_RUN_ID", "RUN_ID"),
    "source": ("OUTPUT_DIR",),
    "output_base": ("OUTPUT_BASE",),
    "replay_run_id": ("REPLAY_RUN_ID",),
    "framework_tag": ("TRAINING_FRAMEWORK",),
    "source_tag": ("AML_SOURCE",),
}


@dataclass(slots=True)
class Settings:
    """All settings of one call. ``where`` says of each name whether a flag, a variable or ``.env`` set it."""

    source: str = ""
    run_id: str = ""
    framework: str = ""
    checkpoint: str = "final"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    match: tuple[str, ...] = ()
    exclude_runs: tuple[str, ...] = ()
    since: str = ""
    limit: str = ""
    shard: str = ""
    model_name: str = ""
    experiment: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    subscription_id: str = ""
    resource_group: str = ""
    workspace_name: str = ""
    tracking_uri: str = ""
    retry_seconds: float = RETRY_SECONDS
    wait_seconds: float = 0.0
    allow_failed: bool = False
    task: str = ""
    concurrency: str = ""
    block_size: str = ""
    strict: bool = False
    hash: bool = False
    refuse_pickle: bool = False
    allow: tuple[str, ...] = ()
    probe: bool = False
    sign_key: str = ""
    public_key: str = ""
    reference: str = ""
    json: bool = False
    debug: bool = False
    output_base: str = ""
    replay_run_id: str = ""
    framework_tag: str = ""
    source_tag: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)

    def from_where(self, name: str) -> str:
        """``(--flag)``, ``(VARIABLE)`` or ``(VARIABLE in .env)``; empty for a default."""
        return f" ({self.where[name]})" if name in self.where else ""

    @property
    def azure_coordinates(self) -> tuple[str, str, str]:
        """Subscription, resource group and workspace name; empty where unset."""
        return self.subscription_id, self.resource_group, self.workspace_name

    def require_model_name(self) -> str:
        """Return the model name.

        Raises:
            UsageError: there is none.
        """
        if not self.model_name:
            raise UsageError(
                "no model name: a version must be registered under one",
                "pass --model-name NAME or set AZUREML_MODEL_NAME",
            )
        return self.model_name


def resolve(flags: Namespace, environment: Mapping[str, str], directory: Path) -> Settings:
    """Put flags, environment and ``directory/.env`` together.

    Raises:
        UsageError: a flag's value cannot be read.
        ConfigurationError: ``.env`` cannot be read.
    """
    dotenv = read_dotenv(directory)
    settings = Settings()

    def variable(*names: str) -> tuple[str, str] | None:
        for place, where in ((environment, ""), (dotenv, " in .env")):
            for name in names:
                if place.get(name):
                    return place[name], name + where
        return None

    for name, variables in _VARIABLES.items():
        if found := variable(*variables):
            setattr(settings, name, found[0])
            settings.where[name] = found[1]
    for name, given in vars(flags).items():
        if isinstance(given, list):
            given = tuple(item for item in given if item)
        # An empty flag is an unset one too: a workflow passes --model-name={{model_name}}.
        if given in (None, "", ()) or name in ("command", "tag") or not hasattr(settings, name):
            continue
        setattr(settings, name, given)
        settings.where[name] = "--" + name.replace("_", "-")
    settings.tags = _tags(getattr(flags, "tag", None) or [])
    for name, flag in (("retry_seconds", "retry_for"), ("wait_seconds", "wait_for")):
        if given := getattr(flags, flag, None):
            where = "--" + flag.replace("_", "-")
            setattr(settings, name, seconds(given, where))
            settings.where[name] = where
    _take_azureml_uri(settings)
    settings.parameters = {name: found[0] for name in PARAMETER_VARIABLES if (found := variable(name))}
    _check_run_id(settings)
    if dotenv:
        _refuse_dotenv_of_the_run(settings, directory)
    return settings


def _take_azureml_uri(settings: Settings) -> None:
    """Read the workspace's coordinates out of an ``azureml://`` URI, as Azure ML's jobs have it.

    Raises:
        ConfigurationError: they are not in it.
    """
    if not settings.tracking_uri.lower().startswith("azureml:"):
        return
    where = settings.where["tracking_uri"]
    if where != "--tracking-uri" and any(settings.azure_coordinates):
        return  # which win
    found = _AZUREML_URI.fullmatch(settings.tracking_uri)
    if found is None:
        raise ConfigurationError(
            f"the tracking URI ({where}) begins with azureml: and names no workspace",
            "pass --subscription-id, --resource-group and --workspace-name instead",
        )
    for name, value in found.groupdict().items():
        setattr(settings, name, value)
        settings.where[name] = where
    settings.tracking_uri = ""
    del settings.where["tracking_uri"]


def _refuse_dotenv_of_the_run(settings: Settings, directory: Path) -> None:
    """A run is what somebody's training wrote: it must not say where our tokens and its copy go."""
    try:
        place = Path(locate_source(settings))
        inside = directory.resolve().is_relative_to(place.resolve(strict=True))
    except (UsageError, OSError, ValueError):
        return
    if inside:
        raise ConfigurationError(
            f"{directory / '.env'} lies in the run that is to be mirrored, and would say where to",
            "start from another folder, and keep your .env there",
        )


def read_dotenv(directory: Path) -> dict[str, str]:
    """Read ``.env`` of a directory; no file is an empty one.

    Raises:
        ConfigurationError: it is there but cannot be read.
    """
    path = directory / ".env"
    try:
        if not path.is_file():
            return {}
        if path.stat().st_size > MAX_DOTENV_BYTES:
            raise ConfigurationError(
                f"{path} is larger than {MAX_DOTENV_BYTES >> 10} KiB", "look whether it is what it says"
            )
        from dotenv import dotenv_values

        return {key: value for key, value in dotenv_values(path).items() if value is not None}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", "mend the file or remove it") from error


def _check_run_id(settings: Settings) -> None:
    # A replay sets RUN_ID to "<id>-replay" for its own MLflow run; the run that is mirrored is the
    # source run (REPLAY_RUN_ID), so that a replay and a first mirror of it are one and the same.
    if settings.run_id and not re.fullmatch(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,256}", settings.run_id):
        raise UsageError(
            f"the run id{settings.from_where('run_id')} has over 256 characters, or some that are not text",
            "pass the id that OSMO shows for the run with --run-id",
        )


def _tags(given: list[str]) -> dict[str, str]:
    tags = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"[\w.\-/ ]{1,100}", key):
            raise UsageError(
                f"--tag {pair!r} is not KEY=VALUE with a key of up to 100 letters, digits, '_-./' and spaces",
                "for example: --tag robot=ur5e",
            )
        tags[key] = value
    return tags


def seconds(text: str, flag: str = "--retry-for") -> float:
    """Read a duration: ``90``, ``90s``, ``15m``, ``2h``, ``3d``; returns seconds.

    Raises:
        UsageError: not a duration.
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)\s*([smhd]?)", text.strip())
    if not match:
        raise UsageError(f"{flag} {text!r} is not a duration", f"for example: {flag} 90s, 15m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def locate_source(settings: Settings) -> str:
    """Return where the run lies: ``--source``, ``OUTPUT_DIR``, or ``OUTPUT_BASE``/run id.

    Raises:
        UsageError: none of them is set.
    """
    if settings.source:
        return settings.source
    if settings.output_base and settings.run_id:
        if os.sep in settings.run_id or settings.run_id in (".", ".."):
            raise UsageError(
                f"the run id {settings.run_id!r} cannot be a folder's name",
                "pass the run's folder with --source",
            )
        return os.path.join(settings.output_base, settings.run_id)
    raise UsageError(
        "no run to mirror: neither --source nor OUTPUT_DIR is set, nor OUTPUT_BASE with a run id",
        "pass the folder that the training wrote to: --source DIR",
    )
