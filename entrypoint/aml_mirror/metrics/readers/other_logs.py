"""Logs of no known framework: tables with a step a row, and JSON objects with a step a line.

Their formats are simple enough to be read wherever they come from, if a column or key says what the step is.
Known to be written so: ``eval.csv`` of TD-MPC2 (common/logger.py, ``step``), ``metrics.jsonl`` of DreamerV3
(elements, ``step``), ``metrics.json`` of Detectron2 (utils/events.py, ``iteration``), ``progress.csv`` and
``result.json`` of RLlib (ray/tune/logger: the step of its own TensorBoard files is ``timesteps_total``, else
``training_iteration``). Any other file of such a name is named as not read.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from aml_mirror.metrics.readers.log_formats import MAX_LINE, READERS, Log, Points, json_lines, table
from aml_mirror.sources.tree import Tree

# What counts the steps of a training, the most telling first.
_STEPS = (
    "global_step",
    "step",
    "_step",
    "Step",
    "steps",
    "total_steps",
    "env_step",
    "env_steps",
    "total_timesteps",
    "time/total_timesteps",
    "timesteps_total",
    "timesteps",
    "num_timesteps",
    "timestep",
    "frame",
    "iteration",
    "iter",
    "training_iteration",
    "epoch",
)
_RLLIB = ("timesteps_total", "training_iteration")
_WORDS = (
    r"(?:.*[-_.])?(?:metrics?|logs?|train|training|eval|evals|evaluations?|val|validation|test|progress|results?"
    r"|scores?|loss|losses|history|scalars)(?:[-_.].*)?"
)
_NAMES = re.compile(rf"{_WORDS}\.(?:csv|jsonl)|result\.json|metrics\.json", re.IGNORECASE)
# What is in these is data, or a copy.
_NO_LOGS = frozenset(
    ("data", "dataset", "datasets", "meta", "demos", "trajectories", "episodes", "rollouts", "videos")
) | {"wandb", "mlruns", ".cache", ".git", "node_modules", "site-packages"}
# A run has so few logs; a folder with more of them holds data.
MAX_LOGS = 64

NONE_FOUND = (
    "no metric was found; read would have been: TensorBoard event files, the framework's own log "
    "(trainer_state.json, metrics.csv, progress.csv, evaluations.npz, logs.json.txt), W&B's offline log, "
    "or a log with a step a row (eval.csv, metrics.jsonl, …)"
)

_json = json_lines(_STEPS)
_csv = table(_STEPS)


def reader_of(path: str) -> Callable[[Log], Points] | None:
    """Return what reads a log, by its name; None: nothing does."""
    name = path.rpartition("/")[2]
    if name == "result.json":
        return json_lines(_RLLIB)
    if name == "progress.csv":
        return _progress
    if name == "metrics.csv":
        return _metrics
    if name in READERS:
        return READERS[name]
    if name.endswith((".jsonl", "metrics.json")):
        return _json
    return _csv if name.lower().endswith(".csv") else None


def _header(log: Log) -> list[str]:
    with log.open() as stream:
        return stream.readline(MAX_LINE).decode("utf-8-sig", "replace").strip().split(",")


def _metrics(log: Log) -> Points:
    """Lightning's has the column ``step``, and counts the epochs among the metrics."""
    columns = set(_header(log))
    others = "step" not in columns and columns.intersection(_STEPS)
    return _csv(log) if others else READERS["metrics.csv"](log)


def _progress(log: Log) -> Points:
    """SB3's if it has the column that only SB3 writes, else RLlib's or a plain table."""
    header = _header(log)
    if "time/total_timesteps" in header:
        return READERS["progress.csv"](log)
    return table(_RLLIB)(log) if "training_iteration" in header else _csv(log)


def other_logs(tree: Tree) -> list[str]:
    """Return the paths of the files of a run that by their names are logs, sorted."""
    found = [
        path
        for path in tree.files
        if _NAMES.fullmatch(path.rpartition("/")[2])
        and not _NO_LOGS.intersection(part.lower() for part in path.split("/")[:-1])
    ]
    return found if len(found) <= MAX_LOGS else []
