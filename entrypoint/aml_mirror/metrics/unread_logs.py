"""Reports logs that no reader supports, so that nobody assumes that a run has no metrics.

Some logs are only recognised by name: those in a format that needs its own library (numpy, pickle, Parquet,
HDF5, SQLite), packed ones, and the folders of a tracker. A name that mentions data does not count.

- ``monitor.csv``, ``0.monitor.csv``: Stable-Baselines3's ``Monitor`` and Gym's, one row per episode, no step
- ``mlruns/``: MLflow's file store; ``mlartifacts/``: its server's; ``mlflow.db``: its database
- ``wandb/``, ``.wandb/``: Weights & Biases, if its own log is not read
- ``.aim/``: Aim; ``.cometml-runs/``: Comet's offline experiments; ``.neptune/``: Neptune's; ``.clearml/``:
  ClearML's; ``.guild/``: Guild AI's runs; ``swanlog/``: SwanLab; ``dvclive/``: DVCLive; ``trackio/``: Trackio
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from aml_mirror.metrics.log_names import (
    DATA_FOLDERS,
    DATA_WORDS,
    HIDDEN_TRACKERS,
    MONITOR,
    TRACKERS,
    words_of,
)
from aml_mirror.sources.skipped_folders import is_skipped
from aml_mirror.sources.tree import Tree

_PACKED = (".gz", ".zst", ".xz", ".bz2")
_TABLES = (".csv", ".jsonl", ".tsv")
_SUFFIXES = (
    *(".npz", ".npy", ".pkl", ".pickle", ".parquet", ".feather", ".h5", ".hdf5", ".mat", ".xlsx", ".json"),
    *(".db", ".sqlite", ".sqlite3", ".txt"),
)
_LOGS = frozenset(
    {
        "log",
        "logs",
        "metric",
        "metrics",
        "progress",
        "loss",
        "losses",
        "history",
        "reward",
        "rewards",
        "returns",
    }
    | {"scores", "curve", "curves", "evaluations", "monitor", "scalars"}
)
# Text files and packed files are recognised by other words.
_TEXT_LOGS = _LOGS - {"log", "logs", "history", "monitor"}
_TABLE_LOGS = _LOGS | {"train", "eval", "test", "results"}
_OTHER = frozenset(
    (
        "cfg",
        "args",
        "params",
        "dir",
        "model",
        "policy",
        "agent",
        "function",
        "fn",
        "weights",
        "state",
        "scale",
    )
)
_DATABASES = frozenset(("mlflow.db", "optuna.db", "trackio.db"))
# This many logs per folder are named; if there are more, only the first.
_MAX_SHOWN = 3


def unread_logs(tree: Tree, known: Collection[str]) -> list[str]:
    """Return the logs of a run that are not read: paths, folders, or one of many files in a folder.

    Args:
        tree: the run.
        known: the paths of the logs that are read, or reported elsewhere.
    """
    found: dict[str, list[str]] = {}
    trackers: dict[str, bool] = {}
    for path in tree.files:
        *folders, name = path.lower().split("/")
        at = next((at for at, folder in enumerate(folders) if folder in TRACKERS), None)
        if at is not None:
            folder = "/".join(path.split("/")[: at + 1])
            trackers[folder] = trackers.get(folder, False) or path in known
        elif path not in known and _is_log(folders, name):
            found.setdefault(path.rpartition("/")[0], []).append(path)
    for path in tree.unseen():
        *folders, _ = path.split("/")
        at = next((at for at, folder in enumerate(folders) if folder.lower() in HIDDEN_TRACKERS), None)
        if at is not None and not any(map(is_skipped, folders[:at], ["", *folders])):
            trackers.setdefault("/".join(folders[: at + 1]), False)
    named = [f"{folder}/" for folder, is_read in sorted(trackers.items()) if not is_read]
    for paths in found.values():
        named += paths if len(paths) <= _MAX_SHOWN else [f"{paths[0]} and {len(paths) - 1} like it"]
    return named


def _is_log(folders: Iterable[str], name: str) -> bool:
    if not DATA_FOLDERS.isdisjoint(folders):
        return False
    if MONITOR.fullmatch(name) or name in _DATABASES:
        return True
    packed = next((end for end in _PACKED if name.endswith(end)), "")
    name = name.removesuffix(packed)
    if packed and name.endswith(_TABLES):
        logs = _TABLE_LOGS
    elif name.endswith(_SUFFIXES):
        logs = _TEXT_LOGS if name.endswith(".txt") else _LOGS
    else:
        return False
    words = words_of(name)
    return bool(words & logs) and not words & (DATA_WORDS | _OTHER)
