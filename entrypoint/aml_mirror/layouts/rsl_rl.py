"""RSL-RL: ``model_<iteration>.pt`` in the run's root, and nothing that is kept for its score.

``OnPolicyRunner`` writes ``model_{it}.pt`` every ``save_interval`` iterations and once more when
``learn`` ends (rsl_rl/runners/on_policy_runner.py, 1.0 to 5.5; runs of 5.5.1 seen), so that the highest
number is what training ended with: N - 1 for N iterations. The file holds ``*_state_dict`` entries,
``iter`` and ``infos``; observation normalizers are inside. ``exported/policy.{pt,onnx}`` is what a play
script makes of a checkpoint, and ``git/*.diff`` notes of the code: neither is one.
"""

from __future__ import annotations

import re

from aml_mirror.formats.pickle_values import pickled_values
from aml_mirror.layouts.base import Checkpoint, NamedStep, Run, numbered
from aml_mirror.layouts.isaac_lab import params_of
from aml_mirror.layouts.run_roots import topmost
from aml_mirror.layouts.torch_files import pickle_of
from aml_mirror.sources.tree import Tree, join

_MODEL = re.compile(r"model_(?P<step>\d{1,18})\.pt")
# A readable file decides; a run whose newest files are all cut has older whole ones among the first few.
_LOOK_INTO = 8


class RslRl:
    """RSL-RL's layout."""

    name = "rsl_rl"

    def find(self, tree: Tree) -> list[str]:
        roots = []
        for folder, names in tree.children.items():
            models = numbered(names, _MODEL)
            if models and _is_rsl_rl(tree, folder, models):
                roots.append(folder)
        return topmost(roots)

    def read(self, run: Tree) -> Run:
        models = numbered(run.children[""], _MODEL)
        found = Run(
            [
                Checkpoint(
                    path=model.name,
                    step=model.step,
                    role="final" if index == 0 else "periodic",
                    files=(model.name,),
                    weights=(model.name,),
                )
                for index, model in enumerate(models)
            ]
        )
        found.params = params_of(run, found.warnings)
        return found


def _is_rsl_rl(tree: Tree, folder: str, models: list[NamedStep]) -> bool:
    """Others number their files so too: what the runner adds to every file tells them apart."""
    for model in models[:_LOOK_INTO]:
        if data := pickle_of(tree, join(folder, model.name)):
            return b"infos" in data and "iter" in pickled_values(data, frozenset({"iter"}))
    return True
