"""Recognises the folder of a training run by the names in it. It only needs the standard library.

A run was written by somebody's training, so nothing in it may say where tokens and copies are sent. So a
``.env`` in a run's folder, or anywhere below it, is refused. Layouts (:mod:`aml_mirror.layouts`) answer a
different question: which run is in a folder. Here a folder counts as a run if it only looks like one.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from aml_mirror.core.errors import ConfigurationError

# The most entries that are examined in one folder. A run's own folder has some dozens.
MAX_ENTRIES = 20_000
# The most parent folders that are examined. Runs are not nested more deeply.
MAX_LEVELS = 16

# Files that only a training writes: weights, the state of a training, logs of metrics.
_WRITTEN = re.compile(
    r"""(?ix)
    .*\.(?: safetensors | (?: ckpt | pt | pth ) (?: \.tar )? | pt2 | pte | ptl | onnx | msgpack | distcp | d3
        | keras | h5 | hdf5 | tflite | gguf | engine | nemo | wandb | cleanrl_model | ocdbt )
    | .*\.safetensors\.index\.json | .*tfevents.*
    | .*(?: model | state | policy | agent | checkpoint | weights | normalize | algorithm | training_args
        | best | final | last | _steps ).*\.(?: bin | pkl | pickle | zip | npz | p )
    | (?: trainer_state | train_config | training_state | training_step | rllib_checkpoint
        | _?checkpoint_metadata | _METADATA ) (?: \.json )?
    """
)
# A folder for one step of a training: recognised by its name, or by its contents.
_STEP = re.compile(r"(?i)(?:checkpoint|ckpt|global_?step)[-_=]?\d+.*")
_NUMBER = re.compile(r"(?i)(?:step|iter|iteration|epoch|checkpoint)?s?[-_=]?\d+|checkpoint[-_][\w=.-]+")
# A folder for the checkpoints or logs of one training. Folders for many trainings (outputs, runs, wandb,
# lightning_logs) do not count: a project has them beside its own .env.
_CHECKPOINTS = re.compile(
    r"(?i)(?:(?:my|best|last|saved|final|model|policy|train|training)[-_]?)?"
    r"(?:checkpoint|ckpt|snapshot|weight)s?(?:[-_](?:dir|final|best|last))?"
    r"|nn|models?|polic(?:y|ies)|saved?|last|best|final|periodic|exported"
    r"|params|train_state|pretrained_model|training_state|tb|tensorboard|summaries|events"
)
_HYDRA = ".hydra"


def refuse_dotenv_of_a_run(file: Path, places: Iterable[str] = ()) -> None:
    """Refuse a ``.env`` that belongs to a run.

    Args:
        file: the ``.env``; if it is a link, its target counts too.
        places: the paths of the current runs; those that are not local folders are skipped.

    Raises:
        ConfigurationError: it is in a run's folder or below one.
    """
    folders = dict.fromkeys((Path(os.path.abspath(file)).parent, Path(os.path.realpath(file)).parent))
    for folder in folders:
        why = ""
        for place in filter(None, places):
            root = os.path.realpath(place)
            if os.path.isdir(root) and Path(os.path.realpath(folder)).is_relative_to(root):
                why = f"{root} is the source"
        if not why:
            run, sign = run_around(folder)
            why = f"{run} contains {sign}" if run else ""
        if why:
            raise ConfigurationError(
                f"{file} is in the run to be mirrored, or in another one ({why}): a run must not say where "
                "to mirror to",
                "run the command in another folder and keep your .env there, or export its variables",
            )


def run_around(folder: Path) -> tuple[str, str]:
    """Return the nearest folder, from this one upwards, that looks like a run, and the sign of it.

    The home folder, folders that everybody may write to (``/tmp``) and ``/`` are examined only if they are
    ``folder`` itself: their contents say nothing about the folders below.

    Returns:
        two empty strings if there is none.
    """
    for level, place in enumerate(islice((folder, *folder.parents), MAX_LEVELS)):
        if level and _is_shared(place):
            continue
        if sign := sign_of_a_run(place):
            return str(place), sign
    return "", ""


def sign_of_a_run(folder: Path) -> str:
    """Return the path, below a folder, of something that only a training writes there; empty: none."""
    inside: list[str] = []
    for name, is_folder in _entries(folder):
        if is_folder:
            inside.append(name)
        elif _WRITTEN.fullmatch(name):
            return name
    for name in inside:
        if name == _HYDRA or _STEP.fullmatch(name):
            return f"{name}/"
        if _NUMBER.fullmatch(name) or _CHECKPOINTS.fullmatch(name):
            for below, is_folder in _entries(folder / name):
                if _is_sign_below(folder / name / below, below, is_folder):
                    return f"{name}/{below}"
    return ""


def _is_sign_below(path: Path, name: str, is_folder: bool) -> bool:
    if not is_folder:
        return bool(_WRITTEN.fullmatch(name))
    if _STEP.fullmatch(name):
        return True
    # checkpoints/100000/pretrained_model, 99/params, checkpoints/last
    if _NUMBER.fullmatch(name) or _CHECKPOINTS.fullmatch(name):
        return any(
            _CHECKPOINTS.fullmatch(below) if deeper else _WRITTEN.fullmatch(below)
            for below, deeper in _entries(path)
        )
    return False


def _entries(folder: Path) -> Iterator[tuple[str, bool]]:
    try:
        with os.scandir(folder) as items:
            for item in islice(items, MAX_ENTRIES):
                try:
                    yield item.name, item.is_dir()
                except OSError:
                    yield item.name, False
    except OSError:
        return


def _is_shared(folder: Path) -> bool:
    if folder == folder.parent or str(folder) == os.path.realpath(os.path.expanduser("~")):
        return True
    try:
        mode = folder.stat().st_mode
    except OSError:
        return False
    return bool(mode & stat.S_ISVTX and mode & stat.S_IWOTH)
