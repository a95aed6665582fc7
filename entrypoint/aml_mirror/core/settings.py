"""The settings of a call, parsed once, and where each value came from.

A flag takes precedence over the environment, that over a ``.env`` file in the working directory, and that
over the default. Empty variables and flags count as unset: workflows declare them with empty defaults, and an
empty value must not hide one from the pod template.
"""

from __future__ import annotations

import os
import re
from argparse import Namespace
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from aml_mirror.core.dotenv import read_dotenv
from aml_mirror.core.errors import ConfigurationError, UsageError
from aml_mirror.core.option_values import Shard
from aml_mirror.core.options import (
    BLOCK_BYTES,
    CONCURRENCY,
    CURVES,
    EVERY_SECONDS,
    LONGEST_RUN_SECONDS,
    OLDER_THAN_SECONDS,
    RETRY_SECONDS,
    Option,
    options_of,
)
from aml_mirror.core.run_folder import refuse_dotenv_of_a_run

# Variables that existing training workflows set and that are useful parameters of a run. Only these names are
# read: the environment is never mirrored as a whole.
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

# The form that ``az ml workspace show`` calls mlflow_tracking_uri.
_AZUREML_URI = re.compile(
    r"azureml://[^/]+/mlflow/v[\d.]+/subscriptions/(?P<subscription_id>[^/]+)/resourceGroups/(?P<resource_group>[^/]+)"
    r"/providers/Microsoft\.MachineLearningServices/workspaces/(?P<workspace_name>[^/?#]+)/?",
    re.IGNORECASE,
)
_COORDINATES = ("subscription_id", "resource_group", "workspace_name")
_NOTHING: Mapping[str, Any] = MappingProxyType({})


def _none() -> Mapping[str, Any]:
    return _NOTHING


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one call, as typed values. ``where`` says what set each of them."""

    source: str = ""
    run_id: str = ""
    framework: str = ""
    checkpoint: str = "final"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    match: tuple[str, ...] = ()
    exclude_runs: tuple[str, ...] = ()
    since: datetime | None = None
    window: datetime | timedelta | None = None
    """The scope of ``watch``: workflows that ended since a moment, or within a time before each pass."""
    limit: int | None = None
    shard: Shard | None = None
    model_name: str = ""
    experiment: str = ""
    tags: Mapping[str, str] = field(default_factory=_none)
    subscription_id: str = ""
    resource_group: str = ""
    workspace_name: str = ""
    tracking_uri: str = ""
    artifacts_on_this_host: bool = False
    retry_seconds: float = RETRY_SECONDS
    wait_seconds: float = 0.0
    allow_failed: bool = False
    task: str = ""
    backfill_id: str = ""
    html: str = ""
    curves: int = CURVES
    from_osmo: bool = False
    labels: Mapping[str, str] = field(default_factory=_none)
    """The labels of the workflows on OSMO that opted in; values may contain ``*``."""
    run_labels: Mapping[str, str] = field(default_factory=_none)
    """The labels of the current run. Not an option: they come from OSMO's list."""
    pools: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    longest_run_seconds: float = LONGEST_RUN_SECONDS
    every_seconds: float = EVERY_SECONDS
    once: bool = False
    osmo_url: str = ""
    osmo_token_file: str = ""
    concurrency: int = CONCURRENCY
    block_size: int = BLOCK_BYTES
    """In bytes."""
    strict: bool = False
    skip_copies: bool = False
    hash: bool = False
    refuse_pickle: bool = False
    no_event_files: bool = False
    allow: tuple[tuple[str, str], ...] = ()
    probe: bool = False
    sign_key: str = ""
    task_name: str = ""
    success_threshold: float | None = None
    public_key: str = ""
    reference: str = ""
    folder: str = ""
    image: str = ""
    replace: bool = False
    reuse: tuple[str, ...] = ()
    result: str = ""
    evaluated_task: str = ""
    to_stage: str = ""
    policy: str = ""
    public_keys: tuple[str, ...] = ()
    reason: str = ""
    explain: bool = False
    dry_run: bool = False
    registry_name: str = ""
    older_than: float = OLDER_THAN_SECONDS
    """In seconds."""
    delete: bool = False
    shell: str = ""
    json: bool = False
    metrics_file: str = ""
    debug: bool = False
    output_base: str = ""
    replay_run_id: str = ""
    framework_tag: str = ""
    source_tag: str = ""
    parameters: Mapping[str, str] = field(default_factory=_none)
    where: Mapping[str, str] = field(default_factory=_none)
    extra: Mapping[str, Any] = field(default_factory=_none)
    """Values of the options that registries and sources of other packages bring."""

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


def resolve(
    flags: Namespace, environment: Mapping[str, str], directory: Path, extra: Iterable[Option] = ()
) -> Settings:
    """Combine flags, environment and ``directory/.env``. Every value is parsed and checked here.

    Args:
        flags: the result of the parser: for each option the texts that were given. Its ``command`` selects
            the rows of the table; none: all.
        environment: variables.
        directory: the working directory.
        extra: further rows of the table, see :func:`aml_mirror.core.options.options_of`.

    Raises:
        UsageError: a value is not valid.
        ConfigurationError: ``.env`` cannot be read, or it belongs to a run.
    """
    dotenv = read_dotenv(directory)
    command = getattr(flags, "command", "") or ""
    found: dict[str, Any] = {}
    where: dict[str, str] = {}
    extra = tuple(extra)
    rows = options_of(command, extra)

    def variable(*names: str) -> tuple[str, str] | None:
        for place, suffix in ((environment, ""), (dotenv, " in .env")):
            for name in names:
                if place.get(name):
                    return place[name], name + suffix
        return None

    for option in rows:
        if option.variables and (given := variable(*option.variables)):
            found[option.setting], where[option.setting] = option.parse(*given), given[1]
    for option in rows:
        value = _of_flag(option, getattr(flags, destination(option), None))
        if value is None:
            continue
        if where.get(option.setting, "").startswith(("-", "the argument")):
            if _is_same_place(str(found[option.setting]), str(value), directory):
                continue
            raise UsageError(
                f"the argument {found[option.setting]} and {option.flag} {value} name two different sources",
                "pass one of them",
            )
        found[option.setting] = value
        where[option.setting] = f"the argument {option.flag}" if option.is_positional else option.flag
    if dotenv:
        places = (found.get("source"), found.get("output_base"))
        more = (environment.get("OUTPUT_DIR"), environment.get("OUTPUT_BASE"))
        refuse_dotenv_of_a_run(directory / ".env", filter(None, (*places, *more)))
    _take_azureml_uri(found, where)
    if "checkpoint" in found and found.get("source"):
        found["checkpoint"] = _below_source(found["checkpoint"], found["source"], directory)
    own = {item.name for item in fields(Settings)}
    return Settings(
        **{name: value for name, value in found.items() if name in own},
        parameters=MappingProxyType(
            {name: given[0] for name in PARAMETER_VARIABLES if (given := variable(name))}
        ),
        where=MappingProxyType(where),
        extra=MappingProxyType({name: value for name, value in found.items() if name not in own}),
    )


def _is_same_place(one: str, other: str, directory: Path) -> bool:
    is_uri = "://" in one or "://" in other
    return one == other or (
        not is_uri and os.path.normpath(directory / one) == os.path.normpath(directory / other)
    )


def destination(option: Option) -> str:
    """Return the attribute of the parsed flags with the values of an option."""
    return option.setting + "_argument" if option.is_positional else option.setting


def _of_flag(option: Option, given: Any) -> Any:
    """Parse the values of an option; None: there are none."""
    if given is None:
        return None
    if option.is_switch:
        return True
    # An empty flag counts as unset: a workflow passes --model-name={{model_name}}.
    texts = [text for text in (given if option.repeatable else [given]) if text or not option.empty_is_unset]
    if not texts:
        return None
    parsed = [option.parse(text, option.flag) for text in texts]
    return option.combine(parsed) if option.repeatable else parsed[0]


def _below_source(checkpoint: str, source: str, directory: Path) -> str:
    """Return a checkpoint's path below the source, even if a shell completed it.

    ``--source runs/ppo --checkpoint runs/ppo/checkpoint-20`` means ``checkpoint-20``, unless
    ``runs/ppo/runs/ppo/checkpoint-20`` exists. A keyword, a step, and a path that leads elsewhere stay
    unchanged.
    """
    if "/" not in checkpoint or "://" in source:
        return checkpoint
    given, root = (os.path.abspath(directory / path) for path in (checkpoint, source))
    if not os.path.lexists(given) or (
        not os.path.isabs(checkpoint) and os.path.lexists(os.path.join(root, checkpoint))
    ):
        return checkpoint
    for place, top in ((given, root), (os.path.realpath(given), os.path.realpath(root))):
        if Path(place).is_relative_to(top):
            return Path(place).relative_to(top).as_posix()
    return checkpoint


def _take_azureml_uri(found: dict[str, Any], where: dict[str, str]) -> None:
    """Read the workspace's coordinates from an ``azureml://`` URI, which Azure ML's jobs have.

    Raises:
        ConfigurationError: it does not contain them.
    """
    uri = found.get("tracking_uri", "")
    if not uri.lower().startswith("azureml:"):
        return
    given = where["tracking_uri"]
    if given != "--tracking-uri" and any(found.get(name) for name in _COORDINATES):
        return  # these take precedence
    match = _AZUREML_URI.fullmatch(uri)
    if match is None:
        raise ConfigurationError(
            f"the tracking URI ({given}) begins with azureml: but names no workspace",
            "pass --subscription-id, --resource-group and --workspace-name instead",
        )
    for name, value in match.groupdict().items():
        found[name], where[name] = value, given
    del found["tracking_uri"], where["tracking_uri"]


def locate_source(settings: Settings) -> str:
    """Return where the run is: ``--source``, ``OUTPUT_DIR``, or ``OUTPUT_BASE``/run id.

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
