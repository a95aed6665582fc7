"""Runs of LeRobot: ``checkpoints/<step>/pretrained_model``, where the step has six digits or more.

Sources: lerobot 0.4.4 (real runs) and the main branch of August 2026 (``common/train_utils.py``,
``scripts/lerobot_train.py``, ``rl/learner.py``, ``distributed/checkpoint.py``); 0.1 for the old names.

- A step's folder contains ``pretrained_model/`` (policy, processors and ``train_config.json``), which is
  written first, and ``training_state/``. So ``training_step.json`` in the latter proves that the policy is
  complete.
- The link ``checkpoints/last`` is moved to a step after all of it is saved. Its target is the final
  checkpoint, and anything above it was still being saved. Object storage loses the link, and copying tools
  may turn it into a folder. If it is unusable, the highest step with its ``training_step.json`` is final.
- A training saves one checkpoint at a time. If several are above ``last`` and one below the newest of them is
  complete, ``last`` is outdated (an upload that overwrote nothing, a lost link), and the highest complete
  step is final. If ``last`` is a folder, a single one above it is enough, provided it contains every file of
  ``last``'s step: its save had finished, and a copy does not move on. A link that is one step behind is
  trusted: the training stopped before it moved.
- LeRobot writes no ``checkpoints/final``, but forks and people do. It is the end unless it is a copy.
- ``pretrained_model_ema/`` contains averaged weights beside the trained ones. They are another policy. They
  can be selected by path, and are never taken as the end of the training.
- LeRobot keeps no best checkpoint and writes no event files.

What inference loads: all of ``pretrained_model/`` with ``from_pretrained``: weights, ``config.json``,
processors and their states (``scripts/lerobot_eval.py``, ``async_inference/policy_server.py``).
``--rename_map`` maps names of cameras that differ from those of the training. ``train_config.json`` is kept.
``lerobot-train --config_path`` and ``TrainPipelineConfig.from_pretrained`` read it, and it says which data
the policy was trained with.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import replace

from aml_mirror.layouts.base import Checkpoint, RunDraft
from aml_mirror.layouts.config_files import read_json, read_mapping
from aml_mirror.layouts.generic.name_words import end_of
from aml_mirror.layouts.kit.roles import leave_undecided
from aml_mirror.layouts.kit.temporary import FOLDER_PROBLEM
from aml_mirror.layouts.run_roots import topmost
from aml_mirror.layouts.same_weights import same_weights
from aml_mirror.layouts.step_folders import Subfolders, names_in, shard_problem, subfolders
from aml_mirror.sources.tree import Tree, join

_CHECKPOINTS = "checkpoints"
_MODEL = "pretrained_model"
_EMA = "pretrained_model_ema"
_STATE = "training_state"
_STEP_FILE = "training_step.json"
_LAST = "last"
_STEP = re.compile(r"[0-9]{1,18}")
_TEMPORARY = re.compile(
    r"[._]?tmp[-_.]?(?P<step>[0-9]{1,18})|\.?(?P<copied>[0-9]{1,18})[-_.~](?:tmp|partial).*"
)
_WEIGHTS = re.compile(
    r"(?:model|adapter_model)(?:-[0-9]+-of-[0-9]+)?\.(?:safetensors|bin)|pytorch_model\.bin"
)
# Shards of torch.distributed.checkpoint, written instead of or beside model.safetensors.
_SHARDS = "pytorch_model_fsdp_0/"


class LeRobot:
    """See the module's docstring."""

    name = "lerobot"

    def find(self, tree: Tree) -> list[str]:
        below = subfolders(tree)
        roots = []
        for folder, inside in below.items():
            if any(_is_step(below, name, real) for name, real in inside.items()):
                name = folder.rpartition("/")[2]
                roots.append(folder.rpartition("/")[0] if name == _CHECKPOINTS else folder)
            # One step, or one policy, passed by itself.
            elif _MODEL in inside and _is_policy(tree, inside[_MODEL]):
                parts = folder.split("/") if folder else []
                is_copy = parts[-2:] == [_CHECKPOINTS, _LAST]
                if not parts or not _STEP.fullmatch(parts[-1]):
                    roots.append("/".join(parts[:-2]) if is_copy else folder)
            elif folder == "" and _is_policy(tree, ""):
                roots.append(folder)
        return topmost(roots)

    def read(self, run: Tree) -> RunDraft:
        result = RunDraft([])
        below = subfolders(run)
        base = _CHECKPOINTS if _CHECKPOINTS in below.get("", {}) else ""
        steps: dict[str, int] = {}
        half: list[Checkpoint] = []
        for name, real in below.get(base, {}).items():
            if _STEP.fullmatch(name):
                steps[real] = int(name)
            elif match := _TEMPORARY.fullmatch(name):
                step = int(match["step"] or match["copied"])
                checkpoint = _describe(run, real, _MODEL, step)
                half.append(replace(checkpoint, problem=FOLDER_PROBLEM))
        final = self._last(run, below, base, steps, result.warnings)
        if not steps:
            self._add_single(run, result, join(base, _LAST))
        else:
            # Object storage has no links: there it is a folder too.
            is_copy = join(base, _LAST) not in run.directory_links
            self._add_steps(run, result, steps, final, is_copy)
        ends = _ends(run, below, base, steps, result.checkpoints) if steps else []
        result.checkpoints += half + ends
        # A folder that is named as the end, but without a step, comes before any number.
        result.checkpoints.sort(key=lambda item: -math.inf if item.step is None else -item.step)
        if result.checkpoints:
            result.checkpoints[0] = replace(result.checkpoints[0], role="final")
        if len(unknown := [item for item in ends if item.step is None]) > 1:
            leave_undecided(result, unknown, f"{len(unknown)} folders are named as the end of training")
        if steps and base:
            _ask_about_root(run, result)
        self._add_averaged(run, result, steps)
        for checkpoint in result.checkpoints:
            path = join(checkpoint.path, "train_config.json")
            if not checkpoint.problem and run.has(path):
                result.params = read_mapping(run, path, result.warnings)
                break
        return result

    def _last(
        self, run: Tree, below: Subfolders, base: str, steps: dict[str, int], warnings: list[str]
    ) -> int | None:
        """Return the step that ``last`` says was saved completely; None: it does not say."""
        link = join(base, _LAST)
        target = run.directory_links.get(link)
        if target is not None:
            if target in steps:
                return steps[target]
            warnings.append(f"{link} points to {target}, which is not a checkpoint; the link was not used")
            return None
        if link not in below:
            return None
        # A copy of the step that it pointed to. The number is in its training_step.json.
        step = _saved_step(run, link)
        if step is None:
            return None
        if step not in steps.values():
            steps[link] = step
        return step

    def _add_steps(
        self, run: Tree, result: RunDraft, steps: dict[str, int], final: int | None, is_copy: bool
    ) -> None:
        names = {folder: _names(run, folder) for folder in steps}
        siblings = list(names.values())
        written_after = {f"{_STATE}/{_STEP_FILE}", _STATE + ".pth"}
        expected = any(inside & written_after for inside in siblings)
        described: list[Checkpoint] = []
        for folder, step in steps.items():
            checkpoint = _describe(run, folder, _MODEL, step)
            problem = checkpoint.problem
            if not problem and step != final and expected and not names[folder] & written_after:
                problem = f"{_STATE}/{_STEP_FILE}, which is written after the policy, is missing"
            problem = problem or _missing_companion(names[folder], siblings)
            described.append(replace(checkpoint, problem=problem))
        above = [item for item in described if final is not None and (item.step or 0) > final]
        whole = {
            item.step: names[folder]
            for folder, item in zip(steps, described, strict=True)
            if item in above and not item.problem
        }
        reached = next((names[folder] for folder, step in steps.items() if step == final), set())
        newest = max((item.step or 0 for item in above), default=0)
        # A step below another one was saved before the other one began.
        stale = any(step != newest or (is_copy and inside >= reached) for step, inside in whole.items())
        if stale:
            result.warnings.append(
                f"{_LAST} points to step {final}, but there are {len(above)} checkpoints of later steps: it "
                "is outdated and was not used"
            )
        for checkpoint in described:
            if not stale and checkpoint in above:
                problem = f"it was still being saved: {_LAST} points to step {final}"
                checkpoint = replace(checkpoint, problem=problem)
            result.checkpoints.append(checkpoint)

    def _add_single(self, run: Tree, result: RunDraft, copy: str) -> None:
        if run.has_folder(join(copy, _MODEL)):
            result.checkpoints.append(_describe(run, copy, _MODEL, None))
        elif run.has_folder(_MODEL):
            result.checkpoints.append(_describe(run, "", _MODEL, _saved_step(run, "")))
        elif _is_policy(run, ""):
            result.checkpoints.append(_describe(run, "", "", None))

    def _add_averaged(self, run: Tree, result: RunDraft, steps: dict[str, int]) -> None:
        averaged = [
            _describe(run, folder, _EMA, step)
            for folder, step in sorted(steps.items(), key=lambda item: -item[1])
            if run.has_folder(join(folder, _EMA))
        ]
        if averaged:
            result.warnings.append(
                f"the run also keeps averaged (EMA) weights; pass --checkpoint {averaged[0].path} for them"
            )
        # Behind all others, so that they never replace a damaged policy.
        result.checkpoints += averaged


def _is_step(below: Subfolders, name: str, real: str) -> bool:
    return bool(_STEP.fullmatch(name)) and bool({_MODEL, _EMA} & below.get(real, {}).keys())


def _ends(
    run: Tree, below: Subfolders, base: str, steps: Collection[str], numbered: list[Checkpoint]
) -> list[Checkpoint]:
    """Return what forks and people save as ``final``, if it is not a copy of a numbered checkpoint."""
    ends = []
    for name, real in below.get(base, {}).items():
        if end_of(name) < 0 or real in steps or _MODEL not in below.get(real, {}):
            continue
        # A link proves nothing by itself. The contents of a folder with that name may belong to another
        # training.
        if name == _LAST and _saved_step(run, real) is None:
            continue
        end = _describe(run, real, _MODEL, _saved_step(run, real))
        if not any(same_weights(run, end, item) for item in numbered if item.weights and end.weights):
            ends.append(end)
    return ends


def _ask_about_root(run: Tree, result: RunDraft) -> None:
    """Mark a run as undecided if people put another policy into the run's root, beside its checkpoints."""
    if run.has_folder(_MODEL):
        other = _describe(run, "", _MODEL, _saved_step(run, ""))
    elif _is_policy(run, ""):
        other = replace(_root_policy(run), step=_saved_step(run, ""))
    else:
        return
    if result.undecided or any(same_weights(run, other, item) for item in result.checkpoints):
        return
    newest = result.checkpoints[0]
    result.checkpoints.append(other)
    if other.step is None or other.step >= (newest.step or 0):
        leave_undecided(result, [newest, other], "the run's root contains a policy unlike its checkpoints")


def _root_policy(run: Tree) -> Checkpoint:
    """Describe a policy in the root of a run, without anything else below the root."""
    whole = _describe(run, "", "", None)
    return replace(
        whole,
        files=tuple(path for path in whole.files if "/" not in path),
        weights=tuple(path for path in whole.weights if "/" not in path),
        left_out=(),
    )


def _is_policy(tree: Tree, folder: str) -> bool:
    names = names_in(tree, folder)
    return {"config.json", "train_config.json"} <= names and any(_WEIGHTS.fullmatch(name) for name in names)


def _saved_step(run: Tree, folder: str) -> int | None:
    path = join(folder, f"{_STATE}/{_STEP_FILE}")
    values = read_json(run, path, []) if run.has(path) else None
    step = values.get("step") if isinstance(values, dict) else None
    return step if isinstance(step, int) and not isinstance(step, bool) and step >= 0 else None


def _names(run: Tree, folder: str) -> set[str]:
    return {path[len(folder) + 1 :] for path in run.walk(folder)}


def _missing_companion(names: set[str], siblings: list[set[str]]) -> str:
    """Return a file of the policy that every other checkpoint of the run has and this one lacks."""
    others = [other for other in siblings if other is not names]
    if not others:
        return ""
    common = set.intersection(*others)
    for name in sorted(common - names):
        if name.startswith(_MODEL + "/") and not name.endswith(("train_config.json", ".md")):
            return f"{name}, which the run's other checkpoints have, is missing"
    return ""


def _describe(run: Tree, folder: str, part: str, step: int | None) -> Checkpoint:
    base = join(folder, part)
    files, shards = [], []
    left = []
    for path in run.walk(base):
        inside = path[len(base) + 1 :] if base else path
        if inside.startswith(_SHARDS):
            shards.append(path)
        else:
            files.append(path)
    weights = [path for path in files if _WEIGHTS.fullmatch(path.rpartition("/")[2])]
    problem = _policy_problem(run, base, {path[len(base) + 1 :] if base else path for path in files})
    if weights:
        left += [(path, "FSDP shards; model.safetensors contains the same weights") for path in shards]
    elif shards:
        weights, files = shards, files + shards
        if _SHARDS + ".metadata" not in {path[len(base) + 1 :] if base else path for path in shards}:
            problem = problem or f"{_SHARDS}.metadata, which is written last, is missing"
    if not weights:
        problem = problem or shard_problem(run, base) or "it holds no weights"
    if part == _MODEL:
        for path in run.walk(folder):
            inside = path[len(folder) + 1 :] if folder else path
            if inside.startswith((_STATE + "/", _STATE + ".")):
                left.append((path, "state of the training"))
            elif inside.startswith("algorithm/"):
                left.append((path, "networks that only the training uses"))
    return Checkpoint(
        base or ".",
        step,
        "periodic",
        tuple(sorted(files)),
        tuple(sorted(weights)),
        tuple(sorted(left)),
        problem,
    )


def _policy_problem(run: Tree, base: str, names: set[str]) -> str:
    if "config.json" not in names and "adapter_config.json" not in names:
        return "config.json is missing"
    if problem := shard_problem(run, base):
        return problem
    for name in sorted(names):
        if "/" in name or not name.endswith("processor.json"):
            continue
        # A pipeline names the file of each step with a state (lerobot processor/pipeline.py).
        pipeline = read_json(run, join(base, name), [])
        steps = pipeline.get("steps") if isinstance(pipeline, dict) else None
        for step in steps if isinstance(steps, list) else []:
            state = step.get("state_file") if isinstance(step, dict) else None
            if isinstance(state, str) and state not in names:
                return f"{state}, named in {name}, is missing"
    return ""
