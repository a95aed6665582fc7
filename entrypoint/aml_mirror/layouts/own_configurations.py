"""Finds checkpoints of different trainings by the configurations stored with them: another seed or task.

Some trainings store their configuration with every checkpoint (LeRobot's ``train_config.json``, GR00T's
``experiment_cfg/conf.yaml``, and many scripts). Counters may differ, and so may values that change when a
training is resumed. The seed, the task and the like may not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aml_mirror.layouts.base import Checkpoint, RunDraft
from aml_mirror.layouts.config_files import read_mapping
from aml_mirror.layouts.generic.training_evidence import training_configs
from aml_mirror.layouts.kit.roles import leave_undecided
from aml_mirror.layouts.step_folders import word_set
from aml_mirror.sources.tree import Tree, join

_TELLING = word_set(
    "seed task task_name env env_name env_id robot dataset dataset_path dataset_repo_id algo algorithm "
    "policy_type exp_name experiment_name dataset.repo_id policy.type env.type env.task"
)
_EXPERIMENT = ("experiment_cfg/conf.json", "experiment_cfg/conf.yaml")
# How many of the newest checkpoints are compared.
_COMPARED = 8


def ask_about_configurations(run: Tree, result: RunDraft) -> None:
    """Leave a run undecided if its checkpoints are folders whose configurations contradict each other."""
    if result.undecided or len(result.checkpoints) < 2:
        return
    newest: list[tuple[dict[str, str], Checkpoint]] = []
    for item in result.checkpoints[:_COMPARED]:
        if item.path not in item.weights and (own := dict(_told(run, item.path))):
            newest.append((own, item))
    if not newest:
        return
    first = newest[0][0]
    for own, item in newest[1:]:
        if differs := sorted(key for key in first.keys() & own.keys() if first[key] != own[key]):
            leave_undecided(
                result,
                [newest[0][1], item],
                f"their configurations differ in {', '.join(differs)}, so they belong to two trainings",
            )
            return


def _told(run: Tree, folder: str) -> Iterator[tuple[str, str]]:
    whole = [path for name in _EXPERIMENT if run.has(path := join(folder, name))]
    for path in (*training_configs(run, folder), *whole[:1]):
        values = read_mapping(run, path, [])
        for key, value in values.items():
            nested = value.items() if isinstance(value, dict) else ()
            for name, plain in ((str(key), value), *((f"{key}.{inner}", told) for inner, told in nested)):
                own = name.lower()
                if (own in _TELLING or own.rpartition(".")[2] == "seed") and _is_plain(plain):
                    yield own, str(plain)


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)
