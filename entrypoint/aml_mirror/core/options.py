"""The single table of options. The parser, ``--help``, the settings and the reference page are made from it.

To add an option, add a row here and a field of :class:`aml_mirror.core.settings.Settings`. A registry or a
source from another package has its own rows (see :func:`options_of`); their values are in ``Settings.extra``.
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
# A temporary failure is retried for this long by default. OSMO does not reschedule a task unless an
# administrator raised the retry limit, so the waiting must happen here.
RETRY_SECONDS = 15 * 60.0
EVERY_SECONDS = 10 * 60.0
# A workflow may wait and train for weeks before it ends.
LONGEST_RUN_SECONDS = 30 * 86_400.0
# By default, newer things are never pruned: an upload may take days.
OLDER_THAN_SECONDS = 14 * 86_400.0

# Each of these accepts every option of `mirror`, so replacing one word checks a command line.
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
    "runs",
    "runs on OSMO",
    "what to mirror",
    "target",
    "checks",
    "evaluations, stages and cleanup",
    "pull and export",
    "output",
)
GROUPS = (RUN, OSMO, CONTENT, CHECKS, GATE, PULLED, TARGET, OUTPUT)


def _pairs(given: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    return MappingProxyType(dict(given))


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table: an option, how it is set, and which commands take it."""

    setting: str
    """The field of Settings that takes the value."""
    flag: str
    """For example ``--model-name``, or ``SOURCE`` for a positional argument. Empty: variables only."""
    help: str
    commands: tuple[str, ...]
    """The commands that use the option and list it."""
    group: str
    metavar: str = ""
    """The placeholder for the value in ``--help``. Empty for a switch or a positional argument."""
    variables: tuple[str, ...] = ()
    """Environment variables that set it. The first with a value wins."""
    default: str = ""
    """The default, in words."""
    parse: Callable[[str, str], Any] = values.text
    repeatable: bool = False
    combine: Callable[[Iterable[Any]], Any] = tuple
    """For a repeatable option: turns all given values into one."""
    empty_is_unset: bool = True
    accepted_by: tuple[str, ...] = ()
    """Further commands that accept the option and check its value, but neither list nor use it."""
    details: str = ""
    """Further text for the reference page."""
    completes: str = ""
    """What a shell completes: ``directory``, ``file``, or words separated by spaces."""

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
        """The help, followed by variables and default, as ``--help`` prints it."""
        known = ", ".join(filter(None, (*self.variables, self.default)))
        return f"{self.help} [{known}]" if known else self.help

    def takes(self, command: str) -> bool:
        """Return whether a command takes the option. ``""`` stands for any command."""
        return not command or command in self.commands or command in self.accepted_by


_SOURCE = "a folder, or azure://ACCOUNT/CONTAINER/PATH"
_PREFIX = "a folder with one subfolder per run, or azure://ACCOUNT/CONTAINER/PATH"
_DECLARED = "OUTPUT_BASE/RUN_ID, or the output that the run declared on OSMO"

TABLE: tuple[Option, ...] = (
    # --- the run or the runs ---
    Option("source", "SOURCE", "same as --source", (*_RUN, "status"), RUN, completes="directory"),
    Option(
        "source", "--source", _SOURCE, _RUN, RUN, "DIR", ("OUTPUT_DIR",), _DECLARED,
        completes="directory",
        details="You may pass a parent folder if it contains exactly one run.",
    ),
    Option(
        "source", "--source", _SOURCE + "; several runs are listed one by one", ("status",), RUN, "DIR",
        ("OUTPUT_DIR",), "OUTPUT_BASE", completes="directory",
    ),
    Option(
        "source", "--source", _SOURCE, ("repair",), RUN, "DIR", (), "where the version was mirrored from",
        completes="directory",
    ),
    Option("source", "PREFIX", "same as --source", ("backfill",), RUN, completes="directory"),
    Option(
        "source", "--source", _PREFIX, ("backfill",), RUN, "PREFIX", (), "OUTPUT_BASE", completes="directory"
    ),
    Option(
        "run_id", "--run-id", "the id of the run", (*_RUN, "status"), RUN, "ID", ("REPLAY_RUN_ID", "RUN_ID"),
        "the name of the folder", values.run_id,
    ),
    Option(
        "framework", "--framework", "the framework that wrote the run, one of: {frameworks}",
        (*_RUNS, "status", "repair"), RUN,
        "NAME", (), "detected", completes="{frameworks}",
    ),
    Option(
        "match", "--match",
        "only runs whose path below the source, or a parent folder of it, matches (repeatable)",
        ("backfill", "status"), RUN, "GLOB", repeatable=True,
        details="`*` also matches `/`. With `--from-osmo`, the id of the workflow is matched, for example "
        "`train-*`.",
    ),
    Option(
        "match", "--match", "only workflows whose id matches, for example 'train-*' (repeatable)", ("watch",),
        RUN,
        "GLOB", repeatable=True,
    ),
    Option(
        "exclude_runs", "--exclude-run",
        "skip runs whose path, or a parent folder of it, matches (repeatable)",
        ("backfill", "status"), RUN, "GLOB", repeatable=True,
        details="With `--from-osmo`, the id of the workflow is matched.",
    ),
    Option(
        "exclude_runs", "--exclude-run", "skip workflows whose id matches (repeatable)", ("watch",), RUN,
        "GLOB", repeatable=True,
    ),
    Option(
        "since", "--since",
        "only runs with a file that was written since WHEN: 2026-11-01 (UTC), 36h, 7d, 2w",
        ("backfill", "status"), RUN, "WHEN", parse=values.moment,
        details="With a time zone: `2026-11-01T08:00+01:00`. With `--from-osmo`: only workflows that ended "
        "since then.",
    ),
    Option(
        "window", "--since", "only workflows that ended since WHEN: 2026-11-01 (UTC), 36h, 7d, 2w",
        ("watch",),
        RUN, "WHEN", parse=values.window, details="A time span is counted back from the start of each pass.",
    ),
    Option(
        "limit", "--limit", "mirror at most N runs; runs that are already mirrored do not count",
        ("backfill",),
        RUN, "N", parse=values.run_count,
    ),
    Option(
        "dry_run", "--dry-run", "show which runs would be mirrored, without writing anything", ("backfill",),
        RUN, details="Nothing is hashed, so the list may contain checkpoints that are already registered.",
    ),
    Option(
        "shard", "--shard", "only part I of N disjoint parts, from 0/N to N-1/N",
        _MANY, RUN, "I/N", parse=values.shard,
        details="The part of a run depends only on a hash of its id, so new runs do not move other runs.",
    ),
    Option(
        "backfill_id", "--backfill-id", "an id for this backfill, under which its receipts are kept",
        ("backfill",), OUTPUT, "ID", (), "generated", values.store_id,
        details="Receipts are kept if there are 100 runs or more. Give all shards of a backfill the same id.",
    ),
    Option(
        "backfill_id", "--backfill-id", "print the receipts that the backfill with this id kept",
        ("status",), OUTPUT, "ID", parse=values.store_id,
    ),
    # The name of --backfill-id before it meant the same in both commands. To be removed after one release.
    Option(
        "backfill_id", "--backfill", "the former name of --backfill-id", (), OUTPUT, "ID",
        parse=values.store_id, accepted_by=("status",),
    ),
    Option(
        "html", "--html", "write the status of all runs to a self-contained web page",
        ("status",), OUTPUT, "FILE", completes="file",
    ),
    Option(
        "curves", "--curves", "show curves for the N newest runs on the page; 0: none",
        ("status",), OUTPUT, "N", (), str(CURVES), values.curve_count,
        details="Up to 64 MiB of logs are read per run.",
    ),
    # --- OSMO ---
    Option(
        "task", "--task", "consider only this task of the workflow, its status and its outputs", _RUN, OSMO,
        "NAME",
        default="all tasks",
    ),
    Option(
        "wait_seconds", "--wait-for", "wait up to this long for the run to end: 30m, 12h, 3d", _MIRROR, OSMO,
        "TIME", (), "0", values.seconds, accepted_by=("doctor",),
    ),
    Option("allow_failed", "--allow-failed", "mirror the run even if it failed", _RUN, OSMO),
    Option(
        "from_osmo", "--from-osmo",
        "mirror the completed workflows that OSMO lists, instead of a folder of runs",
        ("backfill",), OSMO,
    ),
    Option(
        "labels", "--label",
        "only workflows with this label, for example mirror=on or 'team=arms-*' (repeatable)", _MANY,
        OSMO, "KEY=VALUE", parse=values.label, repeatable=True, combine=_pairs,
        details="Needs OSMO 6.4 or newer. `*` in the value matches any text.",
    ),
    Option(
        "pools", "--pool", "only workflows in this pool (repeatable)", _MANY, OSMO, "NAME", (), "all pools",
        values.plain_name, repeatable=True,
    ),
    Option(
        "users", "--user", "only workflows of this user (repeatable)", _MANY, OSMO, "NAME", (), "all users",
        values.plain_name, repeatable=True,
    ),
    Option(
        "longest_run_seconds", "--longest-run",
        "also consider workflows that were submitted up to this long before --since",
        _MANY, OSMO, "TIME", (), "30d", values.seconds,
        details="OSMO can filter its list by the day of submission only. A workflow that waited and ran "
        "longer than this is missed, even if it ended after `--since`.",
    ),
    Option(
        "every_seconds", "--every", "start a pass this often: 5m, 1h", ("watch",), OSMO,
        "TIME", (), "10m", values.seconds,
    ),
    Option("once", "--once", "make one pass and exit", ("watch",), OSMO),
    Option(
        "osmo_url", "--osmo-url", "the address of OSMO's REST API, for machines without the osmo program",
        _RUNS, OSMO, "URL", ("OSMO_URL",),
    ),
    Option(
        "osmo_token_file", "--osmo-token-file", "a file that contains the access token for --osmo-url", _RUNS,
        OSMO,
        "FILE", ("OSMO_TOKEN_FILE",), completes="file",
    ),
    # --- what is mirrored ---
    Option(
        "checkpoint", "--checkpoint", "final, best, all, a step, or a path inside the run", _RUNS,
        CONTENT, "WHICH", (), "final", completes="final best all",
        details="`all` makes one version per checkpoint. A path can name any weights, even those that no "
        "layout lists: `exported/policy.onnx`, one shard for its whole set, `.` for a whole folder of an "
        "unknown layout.",
    ),
    Option(
        "include", "--include", "mirror only files that match (repeatable)", _MIRROR, CONTENT, "GLOB",
        repeatable=True, accepted_by=("doctor",),
    ),
    Option(
        "include", "--include-file", "mirror only files that match (repeatable)", _MANY, CONTENT,
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
        "skip runs that are copies of other runs; reads each new checkpoint once more",
        ("backfill",), RUN,
    ),
    Option(
        "hash", "--hash", "read and hash every file, even those that the storage service copies itself",
        _MIRRORS, CONTENT,
        accepted_by=("doctor",),
    ),
    Option(
        "refuse_pickle", "--refuse-pickle",
        "exit with 65 if loading the checkpoint may run code, or if that is unknown", _MIRRORS, CONTENT,
        accepted_by=("doctor",),
    ),
    Option(
        "refuse_pickle", "--refuse-pickle",
        "exit with 65 if loading the checkpoint may run code, or if that is unknown", ("pull",), PULLED,
    ),
    Option(
        "allow", "--allow",
        "accept matching files despite --refuse-pickle, and record the reason (repeatable)",
        _MIRRORS, CONTENT, "PATTERN=REASON", parse=values.accepted_file, repeatable=True,
        accepted_by=("doctor",),
    ),
    Option(
        "no_event_files", "--no-event-files",
        "do not upload TensorBoard files, whose texts may contain secrets; their metrics are still mirrored",
        _MIRRORS, CONTENT, accepted_by=("doctor",),
    ),
    Option(
        "sign_key", "--sign-key", "sign the provenance statement of the version with this private key (PEM)",
        _MIRRORS,
        CONTENT, "FILE", accepted_by=("doctor",), completes="file",
    ),
    Option(
        "task_name", "--task-name", "what the policy does, for the tag `task`", _MIRROR, CONTENT, "NAME",
        default="from the run's configuration", accepted_by=("doctor",),
        details="By default Isaac Lab's task, or LeRobot's environment or data set.",
    ),
    Option(
        "success_threshold", "--success-threshold",
        "the lowest success rate that an evaluation may have, above 0 and up to 1; kept as a property",
        _MIRRORS, CONTENT, "X", parse=values.share, accepted_by=("doctor",),
    ),
    # --- what is checked ---
    Option(
        "reference", "MODEL:VERSION", "a version, for example act-pick:3 or models:/act-pick/3", ("repair",),
        CHECKS,
    ),
    Option(
        "reference", "MODEL:VERSION",
        "a version, for example act-pick:3, or a folder that was pulled, which needs no network",
        ("verify",), CHECKS, completes="directory",
    ),
    Option(
        "public_key", "--public-key", "require a signature that this public key verifies (PEM)",
        ("verify", "pull", "export"), CHECKS, "FILE", completes="file",
    ),
    Option(
        "probe", "--probe",
        "also test writing, and remove what it wrote: on Azure ML a run and a model version, both named "
        "aml-mirror-probe; on MLflow a run, a file and a model",
        ("doctor",), CHECKS,
    ),
    # --- what is pulled ---
    Option(
        "reference", "VERSION", "NAME:VERSION, NAME@STAGE, or a models:/ URI", ("pull", "export"), PULLED,
        details="On Azure ML a stage is the tag `mirror.stage` of a version. On MLflow it is an alias.",
    ),
    Option(
        "image", "IMAGE", "REGISTRY/REPOSITORY:TAG; the image has the files of the version in /model",
        ("export",), PULLED,
        details="The login of `docker login` is used; for Azure Container Registry also the Azure login of "
        "this program.",
    ),
    Option(
        "folder", "DIR", "the folder to create; the files of the version are stored in DIR/model", ("pull",),
        PULLED,
        completes="directory",
    ),
    Option(
        "run_id", "--run-id", "pull the version that was mirrored from this run, instead of VERSION",
        ("pull",),
        PULLED, "ID", parse=values.run_id,
    ),
    Option(
        "replace", "--replace", "replace the version that is in DIR", ("pull",), PULLED,
    ),
    Option(
        "reuse", "--reuse", "copy equal files from a folder that was pulled earlier (repeatable)", ("pull",),
        PULLED, "DIR", repeatable=True, completes="directory",
        details="Files in DIR itself are always reused.",
    ),
    # --- evaluations, stages and cleanup ---
    Option(
        "reference", "MODEL:VERSION", "a version, for example act-pick:3 or models:/act-pick/3",
        ("evaluate", "promote", "share"), GATE,
    ),
    Option(
        "reference", "MODEL@STAGE", "a stage of a model, for example act-pick@production",
        ("demote", "rollback"), GATE,
    ),
    Option(
        "reference", "MODEL", "a model such as act-pick, or one stage of it such as act-pick@production",
        ("history",),
        GATE,
    ),
    Option(
        "result", "--result", "the file with the result of the evaluation; - reads standard input",
        ("evaluate",), GATE,
        "FILE", completes="file",
        details="[robot.md](robot.md#results-of-evaluations) lists the formats.",
    ),
    Option(
        "evaluated_task", "--task-name", "the task of all episodes for which the result names none",
        ("evaluate",), GATE, "NAME",
    ),
    Option(
        "sign_key", "--sign-key", "sign the evaluation with this private key (PEM)", ("evaluate",), GATE,
        "FILE", completes="file",
    ),
    Option(
        "to_stage", "--to", "the stage to give, for example staging or production", ("promote",), GATE,
        "STAGE", (), "",
        completes="staging production",
    ),
    Option(
        "policy", "--policy", "the policy that the version and its evaluations must pass, for example "
        "gate.yaml", ("promote",), GATE,
        "FILE", completes="file",
        default="at least one episode, and not significantly worse than the incumbent",
        details="[robot.md](robot.md#the-policy) describes every key.",
    ),
    Option(
        "public_keys", "--public-key",
        "a public key that may sign versions and evaluations (PEM, repeatable)",
        ("promote", "rollback"), GATE, "FILE", repeatable=True, completes="file",
    ),
    Option("reason", "--reason", "the reason, which history shows", ("promote", "demote", "rollback"), GATE,
        "TEXT"),
    Option("explain", "--explain", "print every rule with its numbers, as a table", ("promote",), GATE),
    Option(
        "dry_run", "--dry-run", "print the decision without writing anything",
        ("promote", "demote", "rollback"), GATE,
    ),
    Option(
        "registry_name", "--registry", "the Azure ML registry to copy the version to", ("share",), GATE,
        "NAME",
    ),
    Option(
        "older_than", "--older-than", "only leftovers that are older than this: 36h, 14d", ("prune",), GATE,
        "TIME",
        (), "14d", values.seconds,
    ),
    Option("delete", "--delete", "delete the leftovers; without this flag they are only listed", ("prune",),
        GATE),
    # --- the target ---
    Option(
        "model_name", "--model-name", "the name of the registered model", (*_RUN, "status", "pull"), TARGET,
        "NAME",
        ("AZUREML_MODEL_NAME",),
    ),
    Option(
        "model_name", "--model-name",
        "the name of the registered model; may contain {run_id}, {name}, {parent}, "
        "{framework}", ("backfill",), TARGET, "TEMPLATE", ("AZUREML_MODEL_NAME",),
        details="`{name}` is the name of the run's folder, `{parent}` the name of its parent folder. With "
        "`--from-osmo`, the placeholders are those of `watch`.",
    ),
    Option(
        "model_name", "--model-name",
        "the name of the registered model; may contain {workflow}, {task}, {framework}, "
        "{label.NAME}, {run_id}", ("watch",), TARGET, "TEMPLATE", ("AZUREML_MODEL_NAME",),
        details="`{workflow}` is the name of the workflow, `{run_id}` its id, which is the name with a "
        "number. With `{task}`, each task that declared an output becomes a version of its own.",
    ),
    Option(
        "experiment", "--experiment", "the experiment of the run", (*_RUNS, "status"), TARGET, "NAME",
        default="the model name",
    ),
    Option(
        "tags", "--tag", "add a tag to the version (repeatable)", _MIRRORS, TARGET, "KEY=VALUE",
        parse=values.tag,
        repeatable=True, combine=_pairs, empty_is_unset=False, accepted_by=("doctor",),
    ),
    Option(
        "tracking_uri", "--tracking-uri", "an MLflow server, or sqlite:///FILE", COMMANDS, TARGET, "URI",
        ("MLFLOW_TRACKING_URI",),
        details="`sqlite:///mlflow.db` needs the extra `[local]`. The `azureml://…` URI of a workspace can "
        "be passed instead of the three options that name it.",
    ),
    Option(
        "artifacts_on_this_host", "--artifacts-on-this-host",
        "MLflow: allow an artifact root that is a local path, because the server runs on this host", COMMANDS,
        TARGET,
        details="Without it, a server whose artifact root is a path on its own disk is refused. The files "
        "would be written to that path on the machine that runs this program.",
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
        "concurrency", "--concurrency", "Azure ML: number of blocks to transfer at the same time",
        ("mirror", *_MANY, "pull"), TARGET, "N", (), str(CONCURRENCY), values.concurrency,
        accepted_by=("plan", "doctor"),
    ),
    Option(
        "block_size", "--block-size", "Azure ML: size of a block, 1MiB to 100MiB",
        ("mirror", *_MANY), TARGET, "SIZE", (), f"{BLOCK_BYTES // values.MIB}MiB", values.block_size,
        accepted_by=("plan", "doctor"),
    ),
    Option(
        "retry_seconds", "--retry-for", "keep retrying a failing service for this long: 90s, 15m, 2h",
        (*_MIRRORS, "status", "verify", "repair", "pull", "export", "evaluate", *_STAGES, "share", "prune"),
        TARGET, "TIME", (),
        "15m", values.seconds,
        accepted_by=("doctor",),
    ),
    # --- output ---
    Option("shell", "SHELL", "bash, zsh or fish", ("completion",), OUTPUT, completes="bash zsh fish"),
    Option("json", "--json", "print JSON to stdout, even on a terminal", COMMANDS, OUTPUT),
    Option(
        "metrics_file", "--metrics-file",
        "write metrics of this call to a file, in the Prometheus text format",
        COMMANDS, OUTPUT, "FILE", ("AML_MIRROR_METRICS_FILE",), completes="file",
        details="For the textfile collector of Prometheus' node exporter, which reads files named `*.prom`. "
        "OpenTelemetry is configured by its own variables: see [telemetry](telemetry.md).",
    ),
    Option("debug", "--debug", "show tracebacks", COMMANDS, OUTPUT),
    # --- variables that have no flag ---
    Option(
        "output_base", "", "a folder with one subfolder per run, named by the run id",
        (*_RUNS, "status"), RUN, variables=("OUTPUT_BASE",),
    ),
    Option(
        "replay_run_id", "", "the id of the finished run that a replay workflow mirrors",
        _RUN, RUN, variables=("REPLAY_RUN_ID",),
    ),
    Option("framework_tag", "", "the value of the tag `framework`", _RUN, TARGET,
        variables=("TRAINING_FRAMEWORK",)),
    Option("source_tag", "", "the value of the tag `source`", _RUNS, TARGET, variables=("AML_SOURCE",)),
)  # fmt: skip


def options_of(command: str, extra: Iterable[Option] = ()) -> list[Option]:
    """Return the options that a command takes, whether it lists them or not.

    Args:
        command: the name of the command. Empty: every command.
        extra: options of registries and sources from other packages.
    """
    return [option for option in (*TABLE, *extra) if option.takes(command)]
