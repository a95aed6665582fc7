"""Runs of Isaac GR00T (N1.5, N1.6, N1.7): the Hugging Face layout with two more folders.

Sources: NVIDIA/Isaac-GR00T, ``gr00t/experiment/runner.py`` (N1.5), ``gr00t/experiment/experiment.py`` and
``gr00t/model/gr00t_n1d6/processing_gr00t_n1d6.py`` (N1.6 and later); its callbacks as its forks keep them.

- The root contains ``experiment_cfg/`` (N1.5: ``metadata.json`` with the normalisation statistics; later:
  ``config.yaml``, ``conf.yaml``, ``conf.json``) and, since N1.6, ``processor/``. Inference needs both. After
  the Trainer has saved a ``checkpoint-<step>``, a callback copies the first folder and the *contents* of the
  second into it. Older checkpoints lack both (Isaac-GR00T issue 353), and the best one lacks the second.
  Missing files are added from the root.
- ``checkpoint-<step>-best-<metric>_<value>/`` is the best one by ``save_best_eval_metric_name``: the model
  and ``experiment_cfg/``, without a trainer's state.

What inference loads: the checkpoint's folder, with ``experiment_cfg/metadata.json`` (N1.5,
``gr00t/model/policy.py``) or the processor's files (N1.6 and later, ``gr00t/policy/gr00t_policy.py``). A flag
selects the embodiment.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from aml_mirror.layouts.base import Checkpoint, RunDraft
from aml_mirror.layouts.config_files import read_json, read_mapping
from aml_mirror.layouts.huggingface.layout import HuggingFace
from aml_mirror.layouts.huggingface.saved_files import describe
from aml_mirror.layouts.run_roots import topmost
from aml_mirror.layouts.step_folders import subfolders
from aml_mirror.sources.tree import Tree, join, parent

_EXPERIMENT = "experiment_cfg"
_PROCESSOR = "processor"
_EXPERIMENT_FILES = ("metadata.json", "config.yaml", "conf.yaml", "conf.json")
_BEST = re.compile(
    r"checkpoint-(?P<step>[0-9]{1,18})-best-(?P<metric>.+)_(?P<value>-?[0-9.]+(?:e[+-]?[0-9]+)?)"
)


class Groot:
    """See the module's docstring."""

    name = "groot"

    def find(self, tree: Tree) -> list[str]:
        roots = HuggingFace().find(tree)
        # A run may have only its best checkpoint left. The run is the folder around it.
        roots = topmost(parent(root) if _BEST.fullmatch(root.rpartition("/")[2]) else root for root in roots)
        roots = roots or topmost(
            folder
            for folder, below in subfolders(tree).items()
            if any(_BEST.fullmatch(name) for name in below)
        )
        return [root for root in roots if _is_groot(tree.below(root))]

    def read(self, run: Tree) -> RunDraft:
        result = HuggingFace().read(run)
        config = _config(run, result.warnings)
        best = _best(run, config)
        if best is not None:
            result.best = best
        # The best checkpoint, passed by itself.
        if _BEST.fullmatch((run.root or run.source.name).rpartition("/")[2]):
            result.checkpoints = [replace(item, role="unknown") for item in result.checkpoints]
            result.warnings.append("the name says that this checkpoint was kept for its score")
        result.checkpoints = [_with_companions(run, item) for item in result.checkpoints]
        if result.best is not None:
            result.best = _with_companions(run, result.best)
        if config:
            result.params["experiment_cfg"] = config
        if not result.checkpoints and result.best:
            result.warnings.append("only the best checkpoint was kept; --checkpoint best takes it")
        return result


def _is_groot(run: Tree) -> bool:
    below = subfolders(run)
    folders = ["", *(real for name, real in below.get("", {}).items() if name.startswith("checkpoint-"))]
    if any(
        run.has(join(join(folder, _EXPERIMENT), name)) for folder in folders for name in _EXPERIMENT_FILES
    ):
        return True
    for folder in reversed(folders):
        path = join(folder, "config.json")
        if run.has(path) and run.size(path) < 1 << 20:
            config = read_json(run, path, [])
            if isinstance(config, dict):
                named = [config.get("model_type"), *_list(config.get("architectures"))]
                return any(str(name).lower().startswith("gr00t") for name in named)
    return False


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _config(run: Tree, warnings: list[str]) -> dict[str, Any]:
    # conf.json first: it is config.yaml as plain data. N1.5's metadata.json contains statistics, no settings.
    for name in ("conf.json", "conf.yaml", "config.yaml"):
        path = f"{_EXPERIMENT}/{name}"
        if run.has(path) and (values := read_mapping(run, path, warnings)):
            return values
    return {}


def _best(run: Tree, config: dict[str, Any]) -> Checkpoint | None:
    found = []
    for name, real in subfolders(run).get("", {}).items():
        if match := _BEST.fullmatch(name):
            try:
                value = float(match["value"])
            except ValueError:
                continue
            found.append((value, int(match["step"]), real))
    if not found:
        return None
    training = config.get("training")
    greater = training.get("save_best_eval_metric_greater_is_better") if isinstance(training, dict) else None
    if isinstance(greater, bool):
        found.sort(key=lambda item: (item[0] if greater else -item[0], item[1]))
    else:
        # Each one replaces a worse one, so the latest of several is the best.
        found.sort(key=lambda item: item[1])
    _, step, path = found[-1]
    return describe(run, path, step, "best")


def _with_companions(run: Tree, checkpoint: Checkpoint) -> Checkpoint:
    """Add what inference needs from the root's two folders, if the checkpoint's own folder lacks it."""
    have = set(checkpoint.files)
    added = []
    for path in run.walk(_EXPERIMENT):
        if join(checkpoint.path, path) not in have:
            added.append(path)
    for path in run.walk(_PROCESSOR):
        inside = path[len(_PROCESSOR) + 1 :]
        if join(checkpoint.path, inside) not in have and join(checkpoint.path, path) not in have:
            added.append(path)
    return replace(checkpoint, files=tuple(sorted(have | set(added))))
