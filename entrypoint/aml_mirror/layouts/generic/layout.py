"""Any other run: directories, or files, that hold weights and have a number in their name.

This layout is asked last and must not mistake a dataset for a run, so a number alone is never enough:

- a directory counts where it holds a file of a weight format and one of three names speaks of a model: the
  directory's own (``step_1000``, ``epoch-3``), that of the folder around it (``checkpoints/1000``), or the
  file's (``1000/policy.pt``);
- a file counts (``model_1000.pt``) where its own name or the folder's does;
- names of recordings (``episode_000001``, ``chunk-000``) never count, nor of runs (``version_0``, ``seed_1``,
  a date), nor does anything inside ``data/`` or ``trajectories/``; nor a folder that has a number only and
  is a run itself: a job of a sweep or a seed, with ``.hydra``, event files anywhere in it, folders named for
  the time, files that say they are the end, or several numbered files of its own; nor do folders counted
  from 0 or 1, each with the configuration of a training, where the folder around them has none;
- without a number counts what says that training ended with it: ``policy_last.ckpt``, ``models/final.pt``,
  ``latest.pt``, ``checkpoints/final/``;
- a file ``latest`` that names a folder beside it says that this one is the end (DreamerV3);
- of a training that saves under one name there is only ``model.pt``: it counts beside the training's
  configuration and its log, or beside its event files where the folder has the time of its start for a name.

Which one is final is decided by families (:mod:`.families`): one that says so, unless it is a copy of a
numbered one or the step in it says that a numbered one is newer; else the highest number of the one family,
compared as a number (``100k`` and ``1.5M`` are numbers). Where names do not decide the run is undecided.
A name that says "best" says nothing about when it was saved, so such a checkpoint is never the end. It is
listed as the best one where nothing else was kept, or where it is the one beside the newest.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aml_mirror.layouts.base import Checkpoint, RunDraft
from aml_mirror.layouts.config_files import read_mapping
from aml_mirror.layouts.generic.discover import candidates, root_of
from aml_mirror.layouts.generic.families import Ranked, rank
from aml_mirror.layouts.generic.pointers import follow_pointer, order_pointed
from aml_mirror.layouts.generic.policy_parts import is_part
from aml_mirror.layouts.generic.training_evidence import CONFIGS, with_the_rest
from aml_mirror.layouts.generic.weight_files import (
    Candidate,
    best_beside,
    described,
    with_companions,
    without_number,
)
from aml_mirror.layouts.run_roots import topmost, with_logs
from aml_mirror.layouts.same_weights import is_copy, same_weights
from aml_mirror.layouts.step_folders import word_set
from aml_mirror.layouts.torch_files import values_of, whole_number
from aml_mirror.sources.tree import Tree, parent

# Where training scripts keep a step in what they save.
_STEP_KEYS = word_set("global_step global_steps step steps iteration iter it epoch num_timesteps")
# An end is compared with so many of the newest numbered ones: it may be a copy of an old one.
_COMPARED = 64
# In so many of them the step is looked for under the keys that the end has.
_LOOKED_INTO = 3
_WHY_PART = "only a part of a policy (an encoder, a critic, …) was saved, by its name"


class Generic:
    """See the module."""

    name = "generic"
    # By the words and the other numbers of their names.
    orders_equal_steps = True

    def find(self, tree: Tree) -> list[str]:
        roots = with_the_rest(tree, (root_of(candidate.folder) for candidate in candidates(tree)))
        return with_logs(tree, topmost(roots.values()), in_named=True)

    def read(self, run: Tree) -> RunDraft:
        result = RunDraft([])
        found = candidates(run)
        best = [item for item in found if item.is_best]
        found = [item for item in found if not item.is_best]
        pointed = sorted(
            (item for item in found if item.is_pointed), key=lambda item: (item.end, item.path), reverse=True
        )
        ranked = rank(item for item in found if not item.is_pointed)

        def checkpoint(candidate: Candidate) -> Checkpoint:
            step = ranked.steps.get(candidate.path)
            return replace(described(run, candidate), step=step)

        numbered = [checkpoint(item) for item in ranked.numbered]
        result.checkpoints = numbered if ranked.undecided else [*_compared(numbered)]
        if ranked.undecided:
            result.checkpoints += [checkpoint(item) for item in ranked.ends]
            _leave_undecided(result, ranked)
        else:
            for candidate in reversed(ranked.ends):
                _add_end(run, result, checkpoint(candidate), numbered[:_COMPARED])
            if not ranked.ends and not pointed:
                _ask_about_plain(run, result)
                follow_pointer(run, result)
        result.checkpoints = [*order_pointed(map(checkpoint, pointed), result.warnings), *result.checkpoints]
        if result.checkpoints:
            if not ranked.undecided or pointed:
                told = ranked.is_counted or ranked.ends or pointed
                result.checkpoints[0] = replace(result.checkpoints[0], role="final" if told else "unknown")
            result.warnings.append(
                "no known framework wrote this run: its checkpoints were told by their names"
            )
            result.checkpoints = with_companions(run, result.checkpoints)
            newest = [item for item in found if item.path == result.checkpoints[0].path]
            if not result.undecided and any(is_part(run, item) for item in newest):
                result.undecided = f"{_WHY_PART}: {newest[0].path}"
                result.choices = [newest[0].path]
                result.checkpoints[0] = replace(result.checkpoints[0], role="unknown")
            result.best = best_beside(run, result.checkpoints[0])
        elif best:
            (result.best,) = with_companions(run, [replace(described(run, best[0]), role="best")])
            result.warnings.append(
                f"only the best checkpoint {best[0].path} was kept; --checkpoint best takes it"
            )
        for path in run.files:
            if path.count("/") <= 1 and CONFIGS.fullmatch(path):
                result.params[path.rpartition(".")[0]] = read_mapping(run, path, result.warnings)
        return result


def _leave_undecided(result: RunDraft, ranked: Ranked) -> None:
    result.undecided = f"what training ended with is undecided: {ranked.undecided}"
    result.choices = [item.path for item in ranked.choices]
    result.checkpoints = [
        replace(item, role="unknown") if item.path in result.choices else item for item in result.checkpoints
    ]


def _add_end(run: Tree, result: RunDraft, end: Checkpoint, numbered: list[Checkpoint]) -> None:
    """Place one that says it is the end: first, or where the step inside it belongs; a copy nowhere."""
    if end.step is None and (copied := next((one for one in numbered if same_weights(run, end, one)), None)):
        if copied is not numbered[0]:
            result.warnings.append(
                f"{end.path} is a copy of {copied.path}, and {numbered[0].path} is newer: "
                f"{end.path} is stale and was not used"
            )
        return
    inside = _step_inside(run, end, numbered[:_LOOKED_INTO])
    step = end.step if inside is None else inside
    place = sum(1 for item in result.checkpoints if step is not None and (item.step or 0) > step)
    result.checkpoints.insert(place, replace(end, step=step))
    if place == 0 and numbered:
        result.warnings.append(f"by its name {end.path} is what training ended with, before any number")


def _ask_about_plain(run: Tree, result: RunDraft) -> None:
    """Leave a run undecided with a file that its numbered ones are called like, but for the number.

    ``policy.pt`` beside ``policy_200.pt`` may be the best one, or what the training ended with. A copy is
    neither, and a step in it may tell.
    """
    if not result.checkpoints or result.checkpoints[0].path not in result.checkpoints[0].weights:
        return
    newest = result.checkpoints[0]
    numbered = result.checkpoints[:_COMPARED]
    for path in without_number(run, newest.path):
        name = path.rpartition("/")[2]
        found = described(run, Candidate(parent(path), path, name, None, (name,)))
        if any(is_copy(run, found, item) for item in numbered):
            continue
        step = _step_inside(run, found, numbered[:_LOOKED_INTO])
        if step is not None and step <= (newest.step or 0):
            continue
        result.checkpoints = [replace(found, step=step), *result.checkpoints]
        if step is None:
            result.undecided = (
                f"{found.path} may be what training ended with, or the best one: no name tells: "
                f"{found.path}, {newest.path} (step {newest.step})"
            )
            result.choices = [found.path, newest.path]
        return


def _step_inside(run: Tree, end: Checkpoint, numbered: list[Checkpoint]) -> int | None:
    """Return the step in a file, under a key that gives a numbered one the number of its name."""
    if not end.weights:
        return None
    inside = values_of(run, end.weights[0], _STEP_KEYS)
    for other in numbered:
        known = values_of(run, other.weights[0], _STEP_KEYS) if inside and other.weights else {}
        for key in sorted(inside.keys() & known.keys()):
            if whole_number(known[key]) == other.step is not None:
                return whole_number(inside[key])
    return None


def _compared(checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    """Mark folders that lack weights which every other folder of the run has."""

    def inside(checkpoint: Checkpoint) -> set[str]:
        return {path[len(checkpoint.path) + 1 :] for path in checkpoint.weights}

    whole = [item for item in checkpoints if not item.problem]
    if len(whole) < 3 or any(item.path in item.weights for item in whole):
        return checkpoints
    marked: list[Checkpoint] = []
    for checkpoint in checkpoints:
        others: list[Any] = [inside(item) for item in whole if item is not checkpoint]
        missing = sorted(set.intersection(*others) - inside(checkpoint)) if others else []
        if missing and not checkpoint.problem:
            checkpoint = replace(
                checkpoint, problem=f"{missing[0]}, which the run's other checkpoints have, is missing"
            )
        marked.append(checkpoint)
    return marked
