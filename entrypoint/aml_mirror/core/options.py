"""The one table of options. The parser, ``--help``, the settings and the reference page come from it.

To add an option: one row here, one field of :class:`aml_mirror.core.settings.Settings`. A registry or a
source from another package brings rows of its own (see :func:`options_of`); their values are in
``Settings.extra``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from aml_mirror.core import option_values as values

CONCURRENCY = 16
CURVES = 200
BLOCK_BYTES = 8 * values.MIB
# A failure that may pass is retried for this long by default: OSMO does not reschedule a task unless an
# administrator raised the retry limit, so the waiting has to happen here.
RETRY_SECONDS = 15 * 60.0
EVERY_SECONDS = 10 * 60.0
# A workflow may wait and train for weeks before it ends.
LONGEST_RUN_SECONDS = 30 * 86_400.0
# What is younger is never pruned by default: an upload may go on for days.
OLDER_THAN_SECONDS = 14 * 86_400.0

# Each of these takes every option of `mirror`, so that one word changes a command line into a check of it.
_RUN = ("mirror", "plan", "doctor")
_MIRROR = ("mirror", "plan")
_MANY = ("backfill", "watch")
_RUNS = (*_RUN, *_MANY)
_MIRRORS = (*_MIRROR, *_MANY)
# The commands that read settings and talk to a target.
_STAGES = ("promote", "demote", "rollback", "history")
COMMANDS = (
    *("mirror", "plan", "backfill", "watch", "status", "verify", "repair", "pull", "export", "doctor"),
    *("evaluate", *_STAGES, "share", "prune"),
)

RUN, OSMO, CONTENT, TARGET, CHECKS, GATE, PULLED, OUTPUT = (
    "what is read",
    "runs on OSMO, which the pod's osmo program or OSMO's REST API is asked about",
    "what is mirrored",
    "the target",
    "what is checked",
    "evidence, stages, and what is no longer needed",
    "what is pulled",
    "output",
)
GROUPS = (RUN, OSMO, CONTENT, CHECKS, GATE, PULLED, TARGET, OUTPUT)


def _pairs(given: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    return MappingProxyType(dict(given))


@dataclass(frozen=True, slots=True)
class Option:
    """One row: what a person may set, how, and for which commands."""

    setting: str
    """The field of Settings that takes the value."""
    flag: str
    """``--model-name``; of a positional argument its name, as ``SOURCE``; empty: variables only."""
    help: str
    commands: tuple[str, ...]
    """The commands that use the option and list it."""
    group: str
    metavar: str = ""
    """What ``--help`` calls the value. Empty: a switch, or a positional argument."""
    variables: tuple[str, ...] = ()
    """Environment variables that set it, the first that has a value wins."""
    default: str = ""
    """What holds where nobody sets it, in words."""
    parse: Callable[[str, str], Any] = values.text
    repeatable: bool = False
    combine: Callable[[Iterable[Any]], Any] = tuple
    """Of a repeatable option: makes one value of all that were given."""
    empty_is_unset: bool = True
    accepted_by: tuple[str, ...] = ()
    """Further commands that take the option and check its value, but have no use for it."""
    details: str = ""
    """More, for the reference page."""
    completes: str = ""
    """What a shell completes: ``directory``, ``file``, or words separated by blanks."""

    @property
    def is_positional(self) -> bool:
        """Whether it is an argument without a flag."""
        return bool(self.flag) and not self.flag.startswith("-")

    @property
    def is_switch(self) -> bool:
        """Whether it takes no value."""
        return self.flag.startswith("-") and not self.metavar

    @property
    def help_text(self) -> str:
        """The help with variables and default behind it, as ``--help`` prints it."""
        known = ", ".join(filter(None, (*self.variables, self.default)))
        return f"{self.help} [{known}]" if known else self.help

    def takes(self, command: str) -> bool:
        """Tell whether a command takes it; every option belongs to no command in particular (``""``)."""
        return not command or command in self.commands or command in self.accepted_by


_SOURCE = "a folder, or azure://ACCOUNT/CONTAINER/PATH"
_PREFIX = "the folder that holds the folders of the runs, or azure://ACCOUNT/CONTAINER/PATH"
_DECLARED = "OUTPUT_BASE/run id, or what the run declared on OSMO"

TABLE: tuple[Option, ...] = (
    # --- the run or the runs ---
    Option("source", "SOURCE", "the same as --source", (*_RUN, "status"), RUN, completes="directory"),
    Option(
        "source", "--source", _SOURCE, _RUN, RUN, "DIR", ("OUTPUT_DIR",), _DECLARED,
        completes="directory",
        details="You may pass a parent folder if it contains exactly one run.",
    ),
    Option(
        "source", "--source", _SOURCE + "; of several runs, each is listed", ("status",), RUN, "DIR",
        ("OUTPUT_DIR",), "OUTPUT_BASE", completes="directory",
    ),
    Option(
        "source", "--source", _SOURCE, ("repair",), RUN, "DIR", (), "where the version was mirrored from",
        completes="directory",
    ),
    Option("source", "PREFIX", "the same as --source", ("backfill",), RUN, completes="directory"),
    Option(
        "source", "--source", _PREFIX, ("backfill",), RUN, "PREFIX", (), "OUTPUT_BASE", completes="directory"
    ),
    Option(
        "run_id", "--run-id", "the run's id", (*_RUN, "status"), RUN, "ID", ("REPLAY_RUN_ID", "RUN_ID"),
        "the folder's name", values.run_id,
    ),
    Option(
        "framework", "--framework", "the layout of the run, one of: {frameworks}",
        (*_RUNS, "status", "repair"), RUN,
        "NAME", (), "detected", completes="{frameworks}",
    ),
    Option(
        "match", "--match", "only runs whose path below PREFIX, or a folder above, matches (repeatable)",
        ("backfill", "status"), RUN, "GLOB", repeatable=True,
        details="`*` matches `/` too. With `--from-osmo` the workflow's id has to match, as `train-*`.",
    ),
    Option(
        "match", "--match", "only workflows whose id matches, as 'train-*' (repeatable)", ("watch",), RUN,
        "GLOB", repeatable=True,
    ),
    Option(
        "exclude_runs", "--exclude-run", "not the runs whose path, or a folder above, matches (repeatable)",
        ("backfill", "status"), RUN, "GLOB", repeatable=True, details="With `--from-osmo`: whose id matches.",
    ),
    Option(
        "exclude_runs", "--exclude-run", "not the workflows whose id matches (repeatable)", ("watch",), RUN,
        "GLOB", repeatable=True,
    ),
    Option(
        "since", "--since", "only runs with a file written since: 2026-11-01 (UTC), 36h, 7d, 2w",
        ("backfill", "status"), RUN, "WHEN", parse=values.moment,
        details="With a time zone: `2026-11-01T08:00+01:00`. With `--from-osmo`: only workflows that ended "
        "since.",
    ),
    Option(
        "window", "--since", "only workflows that ended since: 2026-11-01 (UTC), 36h, 7d, 2w", ("watch",),
        RUN, "WHEN", parse=values.window, details="A time span is counted back from each pass.",
    ),
    Option(
        "limit", "--limit", "mirror no more than N runs; those mirrored already do not count", ("backfill",),
        RUN, "N", parse=values.run_count,
    ),
    Option(
        "dry_run", "--dry-run", "show which runs would be mirrored, without writing anything", ("backfill",),
        RUN, details="Nothing is hashed, so a checkpoint that is registered already may be listed.",
    ),
    Option(
        "shard", "--shard", "only the I-th of N parts, from 0/N to N-1/N; together they are all runs",
        _MANY, RUN, "I/N", parse=values.shard,
        details="A run's part depends on a hash of its id alone, so new runs do not move others.",
    ),
    Option(
        "backfill_id", "--backfill-id", "the id under which the receipts of many runs are kept",
        ("backfill",), OUTPUT, "ID", (), "made up", values.store_id,
        details="All shards of one backfill have the same. See `status --backfill`.",
    ),
    Option(
        "backfill_id", "--backfill", "print the receipts that a backfill of 100 runs or more kept",
        ("status",), CHECKS, "ID", parse=values.store_id,
    ),
    Option(
        "html", "--html", "write the status of each run into this file: one page that loads nothing else",
        ("status",), OUTPUT, "FILE", completes="file",
    ),
    Option(
        "curves", "--curves", "small curves on the page, of the N runs that were written last; 0: none",
        ("status",), OUTPUT, "N", (), str(CURVES), values.curve_count,
        details="The logs of each are read, up to 64 MiB.",
    ),
    # --- OSMO ---
    Option(
        "task", "--task", "only this task of the run: its status, its outputs", _RUN, OSMO, "NAME",
        default="all tasks",
    ),
    Option(
        "wait_seconds", "--wait-for", "wait this long for the run to end: 30m, 12h, 3d", _MIRROR, OSMO,
        "TIME", (), "0", values.seconds, accepted_by=("doctor",),
    ),
    Option("allow_failed", "--allow-failed", "also mirror what a failed run left", _RUN, OSMO),
    Option(
        "from_osmo", "--from-osmo", "mirror the completed workflows that OSMO lists, instead of a folder",
        ("backfill",), OSMO,
    ),
    Option(
        "labels", "--label", "only workflows with this label (repeatable): mirror=on, 'team=arms-*'", _MANY,
        OSMO, "KEY=VALUE", parse=values.label, repeatable=True, combine=_pairs,
        details="OSMO has labels since 6.4. `*` in the value stands for any text.",
    ),
    Option(
        "pools", "--pool", "only workflows of this pool (repeatable)", _MANY, OSMO, "NAME", (), "all pools",
        values.plain_name, repeatable=True,
    ),
    Option(
        "users", "--user", "only workflows of this user (repeatable)", _MANY, OSMO, "NAME", (), "all users",
        values.plain_name, repeatable=True,
    ),
    Option(
        "longest_run_seconds", "--longest-run", "how long before --since a workflow may have been submitted",
        _MANY, OSMO, "TIME", (), "30d", values.seconds,
        details="OSMO's list can be narrowed by the day of submission only. A workflow that waited and ran "
        "longer than this, and ended after `--since`, is not seen.",
    ),
    Option(
        "every_seconds", "--every", "time between the beginnings of two passes: 5m, 1h", ("watch",), OSMO,
        "TIME", (), "10m", values.seconds,
    ),
    Option("once", "--once", "make one pass and exit", ("watch",), OSMO),
    Option(
        "osmo_url", "--osmo-url", "ask OSMO's REST API at this address, where there is no osmo program",
        _RUNS, OSMO, "URL", ("OSMO_URL",),
    ),
    Option(
        "osmo_token_file", "--osmo-token-file", "the file with the access token for --osmo-url", _RUNS, OSMO,
        "FILE", ("OSMO_TOKEN_FILE",), completes="file",
    ),
    # --- what is mirrored ---
    Option(
        "checkpoint", "--checkpoint", "final, best, all, a step, or a path below the run's root", _RUNS,
        CONTENT, "WHICH", (), "final", completes="final best all",
        details="`all` makes one version of each. A path takes any weights, also those that no layout lists: "
        "`exported/policy.onnx`, a shard for its whole set, `.` for all of a folder that no layout knows.",
    ),
    Option(
        "include", "--include", "take only files that match (repeatable)", _MIRROR, CONTENT, "GLOB",
        repeatable=True, accepted_by=("doctor",),
    ),
    Option(
        "include", "--include-file", "take only files that match (repeatable)", _MANY, CONTENT,
        "GLOB", repeatable=True,
    ),
    Option(
        "exclude", "--exclude", "leave out files that match (repeatable)", _RUN, CONTENT, "GLOB",
        repeatable=True,
    ),
    Option(
        "exclude", "--exclude-file", "leave out files that match (repeatable)", _MANY, CONTENT,
        "GLOB", repeatable=True,
    ),
    Option(
        "strict", "--strict", "exit with 65 if a newer checkpoint is incomplete", _MIRRORS, CONTENT,
        accepted_by=("doctor",),
    ),
    Option(
        "skip_copies", "--skip-copies",
        "leave out runs whose files are those of another run; new checkpoints are read once more",
        ("backfill",), RUN,
    ),
    Option(
        "hash", "--hash", "also read and hash files that the storage service copies", _MIRRORS, CONTENT,
        accepted_by=("doctor",),
    ),
    Option(
        "refuse_pickle", "--refuse-pickle",
        "exit with 65 if loading the checkpoint may run code, or if that is unknown", (*_MIRRORS, "pull"),
        CONTENT,
        accepted_by=("doctor",),
    ),
    Option(
        "allow", "--allow", "accept files that --refuse-pickle refuses, and keep the reason (repeatable)",
        _MIRRORS, CONTENT, "PATTERN=REASON", parse=values.accepted_file, repeatable=True,
        accepted_by=("doctor",),
    ),
    Option(
        "no_event_files", "--no-event-files",
        "leave out the TensorBoard files, whose texts may hold anything; their points are still mirrored",
        _MIRRORS, CONTENT, accepted_by=("doctor",),
    ),
    Option(
        "sign_key", "--sign-key", "sign the version's statement with this private key (PEM)", _MIRRORS,
        CONTENT, "FILE", accepted_by=("doctor",), completes="file",
    ),
    Option(
        "task_name", "--task-name", "the tag `task`: what the policy does", _MIRROR, CONTENT, "NAME",
        default="from the run's configuration", accepted_by=("doctor",),
        details="Isaac Lab's task, LeRobot's environment or else its data set.",
    ),
    Option(
        "success_threshold", "--success-threshold",
        "the property success_threshold: the least success rate of an evaluation, above 0 and up to 1",
        _MIRRORS, CONTENT, "X", parse=values.share, accepted_by=("doctor",),
    ),
    # --- what is checked ---
    Option(
        "reference", "MODEL:VERSION", "for example act-pick:3 or models:/act-pick/3", ("repair",), CHECKS,
    ),
    Option(
        "reference", "MODEL:VERSION", "for example act-pick:3 or models:/act-pick/3; or a folder that was "
        "pulled, which needs no network", ("verify",), CHECKS, completes="directory",
    ),
    Option(
        "public_key", "--public-key", "also require a signature by the key that belongs to this one (PEM)",
        ("verify", "pull", "export"), CHECKS, "FILE", completes="file",
    ),
    Option(
        "probe", "--probe",
        "also try what only writing can tell, and remove it again: on Azure ML a run and a model version, "
        "both named aml-mirror-probe; on MLflow a run, a file and a model",
        ("doctor",), CHECKS,
    ),
    # --- what is pulled ---
    Option(
        "reference", "VERSION", "NAME:VERSION, NAME@STAGE, or a models:/ URI", ("pull", "export"), PULLED,
        details="A stage is the tag `mirror.stage` of a version on Azure ML, on MLflow an alias.",
    ),
    Option(
        "image", "IMAGE", "REGISTRY/REPOSITORY:TAG; the version's files are in /model", ("export",), PULLED,
        details="The login is that of `docker login`; for Azure also that of this program.",
    ),
    Option(
        "folder", "DIR", "the folder to make; the version's files are in DIR/model", ("pull",), PULLED,
        completes="directory",
    ),
    Option(
        "run_id", "--run-id", "instead of VERSION: the version that was mirrored from this run", ("pull",),
        PULLED, "ID", parse=values.run_id,
    ),
    Option(
        "replace", "--replace", "put the version in the place of the one that is in DIR", ("pull",), PULLED,
    ),
    Option(
        "reuse", "--reuse", "take what is equal from a folder that was pulled before (repeatable)", ("pull",),
        PULLED, "DIR", repeatable=True, completes="directory",
        details="What DIR holds is always used.",
    ),
    # --- what it may drive ---
    Option(
        "reference", "MODEL:VERSION", "for example act-pick:3 or models:/act-pick/3",
        ("evaluate", "promote", "share"), GATE,
    ),
    Option(
        "reference", "MODEL@STAGE", "for example act-pick@production", ("demote", "rollback"), GATE,
    ),
    Option(
        "reference", "MODEL", "for example act-pick, or act-pick@production for one stage", ("history",),
        GATE,
    ),
    Option(
        "result", "--result", "the result of an evaluation; - for standard input", ("evaluate",), GATE,
        "FILE", completes="file",
        details="[robot.md](robot.md#results-of-evaluations) lists the formats.",
    ),
    Option(
        "evaluated_task", "--task-name", "the task of episodes for which the result names none",
        ("evaluate",), GATE, "NAME",
    ),
    Option(
        "sign_key", "--sign-key", "sign the statement with this private key (PEM)", ("evaluate",), GATE,
        "FILE", completes="file",
    ),
    Option(
        "to_stage", "--to", "the stage that the version is to get", ("promote",), GATE, "STAGE", (), "",
        completes="staging production",
    ),
    Option(
        "policy", "--policy", "what the version and its evidence must show (gate.yaml)", ("promote",), GATE,
        "FILE", completes="file",
        default="one episode, and not shown to be worse than the incumbent",
        details="[robot.md](robot.md#the-policy) describes every key.",
    ),
    Option(
        "public_keys", "--public-key",
        "a key of those who may sign versions and evaluations (PEM, repeatable)",
        ("promote", "rollback"), GATE, "FILE", repeatable=True, completes="file",
    ),
    Option("reason", "--reason", "why, for the history", ("promote", "demote", "rollback"), GATE, "TEXT"),
    Option("explain", "--explain", "print the arithmetic as a table", ("promote",), GATE),
    Option(
        "dry_run", "--dry-run", "decide, and write nothing", ("promote", "demote", "rollback"), GATE,
    ),
    Option(
        "registry_name", "--registry", "the Azure ML registry that is to get the version", ("share",), GATE,
        "NAME",
    ),
    Option(
        "older_than", "--older-than", "only what was written longer ago: 36h, 14d", ("prune",), GATE, "TIME",
        (), "14d", values.seconds,
    ),
    Option("delete", "--delete", "remove it; without this flag it is only listed", ("prune",), GATE),
    # --- the target ---
    Option(
        "model_name", "--model-name", "the registered model", (*_RUN, "status", "pull"), TARGET, "NAME",
        ("AZUREML_MODEL_NAME",),
    ),
    Option(
        "model_name", "--model-name", "the registered model; may contain {run_id}, {name}, {parent}, "
        "{framework}", ("backfill",), TARGET, "TEMPLATE", ("AZUREML_MODEL_NAME",),
        details="`{name}` is the name of the run's folder, `{parent}` that of the folder around it. With "
        "`--from-osmo`: as `watch`.",
    ),
    Option(
        "model_name", "--model-name", "the registered model; may contain {workflow}, {task}, {framework}, "
        "{label.NAME}, {run_id}", ("watch",), TARGET, "TEMPLATE", ("AZUREML_MODEL_NAME",),
        details="`{workflow}` is the workflow's name, `{run_id}` its id: the name with a number. With "
        "`{task}` each task that declared an output becomes a version of its own.",
    ),
    Option(
        "experiment", "--experiment", "the experiment", (*_RUNS, "status"), TARGET, "NAME",
        default="named like the model",
    ),
    Option(
        "tags", "--tag", "add a tag (repeatable)", _MIRRORS, TARGET, "KEY=VALUE", parse=values.tag,
        repeatable=True, combine=_pairs, empty_is_unset=False, accepted_by=("doctor",),
    ),
    Option(
        "tracking_uri", "--tracking-uri", "an MLflow server, or sqlite:///FILE", COMMANDS, TARGET, "URI",
        ("MLFLOW_TRACKING_URI",),
        details="`sqlite:///mlflow.db` needs full MLflow. The `azureml://…` URI of a workspace stands for "
        "its three coordinates.",
    ),
    Option(
        "artifacts_on_this_host", "--artifacts-on-this-host",
        "MLflow: the server runs on this host, so a path as artifact root may be used", COMMANDS, TARGET,
        details="Without it, a server that keeps its artifacts in a path on its own disk is refused: the "
        "files would be written to the same path on the machine that runs this program.",
    ),
    Option(
        "subscription_id", "--subscription-id", "Azure ML: the subscription", COMMANDS, TARGET, "ID",
        ("AZURE_SUBSCRIPTION_ID",),
    ),
    Option(
        "resource_group", "--resource-group", "Azure ML: the resource group", COMMANDS, TARGET, "NAME",
        ("AZURE_RESOURCE_GROUP", "AZUREML_RESOURCE_GROUP"),
    ),
    Option(
        "workspace_name", "--workspace-name", "Azure ML: the workspace", COMMANDS, TARGET, "NAME",
        ("AZUREML_WORKSPACE_NAME",),
    ),
    Option(
        "concurrency", "--concurrency", "Azure ML: blocks sent or read at the same time",
        ("mirror", *_MANY, "pull"), TARGET, "N", (), str(CONCURRENCY), values.concurrency,
        accepted_by=("plan", "doctor"),
    ),
    Option(
        "block_size", "--block-size", "Azure ML: size of a block, from 1MiB to 100MiB",
        ("mirror", *_MANY), TARGET, "SIZE", (), f"{BLOCK_BYTES // values.MIB}MiB", values.block_size,
        accepted_by=("plan", "doctor"),
    ),
    Option(
        "retry_seconds", "--retry-for", "retry a failing service this long: 90s, 15m, 2h",
        (*_MIRRORS, "status", "verify", "repair", "pull", "export", "evaluate", *_STAGES, "share", "prune"),
        TARGET, "TIME", (),
        "15m", values.seconds,
        accepted_by=("doctor",),
    ),
    # --- output ---
    Option("shell", "SHELL", "bash, zsh or fish", ("completion",), OUTPUT, completes="bash zsh fish"),
    Option("json", "--json", "print JSON on stdout, also on a terminal", COMMANDS, OUTPUT),
    Option(
        "metrics_file", "--metrics-file", "write what this call did to a text file of Prometheus",
        COMMANDS, OUTPUT, "FILE", ("AML_MIRROR_METRICS_FILE",), completes="file",
        details="For the textfile collector of Prometheus' node exporter, which reads names that end in "
        "`.prom`. OpenTelemetry is set up by its own variables: see [telemetry](telemetry.md).",
    ),
    Option("debug", "--debug", "show tracebacks", COMMANDS, OUTPUT),
    # --- variables that have no flag ---
    Option(
        "output_base", "", "the folder that holds the folders of the runs, each named by its run id",
        (*_RUNS, "status"), RUN, variables=("OUTPUT_BASE",),
    ),
    Option(
        "replay_run_id", "", "the id of the finished run that an OSMO workflow mirrors later (a replay)",
        _RUN, RUN, variables=("REPLAY_RUN_ID",),
    ),
    Option("framework_tag", "", "the tag `framework`", _RUN, TARGET, variables=("TRAINING_FRAMEWORK",)),
    Option("source_tag", "", "the tag `source`", _RUNS, TARGET, variables=("AML_SOURCE",)),
)  # fmt: skip


def options_of(command: str, extra: Iterable[Option] = ()) -> list[Option]:
    """Return the rows that a command takes, listed or not.

    Args:
        command: its name; empty: every command.
        extra: rows that registries and sources of other packages bring.
    """
    return [option for option in (*TABLE, *extra) if option.takes(command)]
