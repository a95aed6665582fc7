"""Logs of no known framework: tables with one step per row, and JSON objects with one step per line.

These formats are simple enough to be read whatever program wrote them, if a column or key contains the step.
Known examples: ``eval.csv`` of TD-MPC2 (common/logger.py, ``step``), ``metrics.jsonl`` of DreamerV3
(elements, ``step``), ``metrics.json`` of Detectron2 (utils/events.py, ``iteration``), ``progress.csv`` and
``result.json`` of RLlib (ray/tune/logger: the step of its own TensorBoard files is ``timesteps_total``, else
``training_iteration``), ``progress.txt`` of Spinning Up (utils/logx.py, with tabs, ``TotalEnvInteracts``),
``<run>.jsonl`` of Prismatic, OpenVLA and CogACT (training/metrics.py, ``VLA Train/Step``),
``trainer_log.jsonl`` of LLaMA-Factory (``current_steps``). Any other file with such a name is reported as not
read.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from aml_mirror.metrics.log_names import DATA_FOLDERS, DATA_WORDS, MONITOR, TRACKERS, words_of
from aml_mirror.metrics.readers.log_formats import MAX_LINE, READERS, Log, Points, json_lines, table
from aml_mirror.sources.tree import Tree

# Keys that count the steps of a training, the most reliable first.
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
    "current_steps",
    "TotalEnvInteracts",
    "TotalEnvSteps",
    "VLA Train/Step",
    "Finetune/Step",
    "Align/Step",
    "Iteration",
    "Itr",
    "itr",
    "episode",
    "epoch",
    "Epoch",
)
_RLLIB = ("timesteps_total", "training_iteration")
_WORDS = (
    r"(?:.*[-_.])?(?:metrics?|logs?|train|training|eval|evals|evaluations?|val|validation|test|progress|results?"
    r"|scores?|loss|losses|history|scalars|rewards?|returns?|curves?)(?:[-_.].*)?"
)
_NAMES = re.compile(
    rf"{_WORDS}\.(?:csv|jsonl|tsv)|result\.json|metrics\.json|progress\.txt|evaluations\.npz|logs\.json\.txt",
    re.IGNORECASE,
)
# Any other file with lines is a log too, unless its name says that it is something else.
_LINES = re.compile(r".+\.jsonl", re.IGNORECASE)
# The settings of a run, in Prismatic's folder.
_SETTINGS = frozenset({"run-metrics.jsonl"})
# A run has at most this many logs. A folder with more of them contains data.
MAX_LOGS = 64

NONE_FOUND = (
    "no metrics were found; these are read: TensorBoard event files, the framework's own log "
    "(trainer_state.json, metrics.csv, progress.csv, evaluations.npz, logs.json.txt), W&B's offline log, "
    "or a log with one step per row (eval.csv, metrics.jsonl, …)"
)

_json = json_lines(_STEPS)
_csv = table(_STEPS)
_tsv = table(_STEPS, delimiter="\t")


def reader_of(path: str) -> Callable[[Log], Points] | None:
    """Return the reader for a log, by its name; None: there is none."""
    name = path.rpartition("/")[2]
    if name == "result.json":
        return json_lines(_RLLIB)
    if name == "progress.csv":
        return _progress
    if name == "metrics.csv":
        return _metrics
    if name in READERS:
        return READERS[name]
    if name.lower().endswith((".jsonl", "metrics.json")):
        return _json
    if name.lower().endswith((".tsv", "progress.txt")):
        return _tsv
    return _csv if name.lower().endswith(".csv") else None


def _header(log: Log) -> list[str]:
    with log.open() as stream:
        return stream.readline(MAX_LINE).decode("utf-8-sig", "replace").strip().split(",")


def _metrics(log: Log) -> Points:
    """Lightning's metrics.csv has the column ``step``, and contains the epochs among the metrics."""
    columns = set(_header(log))
    others = "step" not in columns and columns.intersection(_STEPS)
    return _csv(log) if others else READERS["metrics.csv"](log)


def _progress(log: Log) -> Points:
    """SB3's progress.csv if it has the column that only SB3 writes, else RLlib's or a plain table."""
    header = _header(log)
    if "time/total_timesteps" in header:
        return READERS["progress.csv"](log)
    return table(_RLLIB)(log) if "training_iteration" in header else _csv(log)


def other_logs(tree: Tree) -> list[str]:
    """Return the sorted paths of a run's files whose names are those of logs."""
    return [
        path
        for path in tree.files
        if _is_log(path.rpartition("/")[2])
        and not (DATA_FOLDERS | TRACKERS).intersection(part.lower() for part in path.split("/")[:-1])
    ]


def _is_log(name: str) -> bool:
    if name in _SETTINGS or MONITOR.fullmatch(name):
        return False
    if _NAMES.fullmatch(name):
        return True
    return bool(_LINES.fullmatch(name)) and not words_of(name) & DATA_WORDS
