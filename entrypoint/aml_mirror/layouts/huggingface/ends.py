"""Places the model in a run's root, or in a folder like ``final/``, among the numbered checkpoints.

Such a model has no step in its name, and it stays when the training continues. Example: a training ran to 20
steps, saved, was resumed to 100 and was killed after 45. Its root still contains the model of step 20. So the
step of such a model is the step stored with it, or that of a checkpoint with equal contents. The *planned*
steps in the newest checkpoint only say whether the training can have ended after it. ``training_args.bin``
contains plans too, and is a pickle. Its bytes are compared with each checkpoint's, which shows whether both
were saved by one call of the training script.

If files contradict each other, nothing is chosen. A folder may have been used for a second training, and then
the highest number may belong to the first one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, NamedTuple

from aml_mirror.layouts.base import Checkpoint, RunDraft
from aml_mirror.layouts.huggingface.model_roots import FINAL, STATE, name_of
from aml_mirror.layouts.huggingface.other_trainings import look_for_another_training
from aml_mirror.layouts.huggingface.same_model import same_model
from aml_mirror.layouts.huggingface.saved_files import describe
from aml_mirror.layouts.huggingface.trainer_files import (
    TrainerState,
    has_arguments,
    same_arguments,
    state_in,
    step_in_name,
)
from aml_mirror.layouts.kit.roles import leave_undecided, newest_first
from aml_mirror.sources.tree import Tree

# A model is compared with this many checkpoints, the newest first. Nobody keeps more in practice.
_MAX_COMPARED = 64
_WORDS = ("latest", "last", "final")


class _Place(NamedTuple):
    """Whether an end is newer than the newest numbered checkpoint, and what to say about it."""

    where: Literal["newer", "older", "undecided"]
    step: int | None
    said: str = ""


def add_ends(
    run: Tree,
    result: RunDraft,
    paths: Iterable[str],
    newest_state: TrainerState | None,
    numbered: list[Checkpoint],
) -> None:
    """Place the models in the root (``.``) and in folders named as the end among the checkpoints.

    Args:
        run: the run.
        result: what is known about it; its checkpoints, warnings and ``undecided`` are changed.
        paths: where the final models of the training may be.
        newest_state: the state of the newest numbered checkpoint that has a complete one.
        numbered: the numbered checkpoints, newest first, without temporary ones.
    """
    newest = numbered[0] if numbered else None
    newer: list[Checkpoint] = []
    for path in paths:
        end = describe(run, path, None, "periodic")
        if not end.weights or (newest is not None and same_model(run, end, newest)):
            continue
        if newest is None:
            newer.append(replace(end, step=_step_alone(run, path)))
            continue
        place = _place(run, end, numbered, newest_state)
        end = replace(end, step=place.step)
        if place.where == "newer":
            newer.append(end)
            if place.said:
                result.warnings.append(place.said)
            continue
        at = result.checkpoints.index(newest) + 1
        if place.step is not None:
            at = max(at, sum(1 for item in result.checkpoints if (item.step or 0) >= place.step))
        result.checkpoints.insert(at, end)
        if place.where == "undecided":
            leave_undecided(result, [end, newest], place.said)
        elif place.said:
            result.warnings.append(place.said)
    _put_first(run, result, newer)
    if not result.undecided:
        look_for_another_training(run, result, numbered, newest_state)


def _place(
    run: Tree, end: Checkpoint, numbered: list[Checkpoint], newest_state: TrainerState | None
) -> _Place:
    newest = numbered[0]
    stored = state_in(run, end.path, [])
    if stored is None and end.path != "." and not describe(run, ".", None, "periodic").weights:
        # The Trainer saves its state into the root, even if the model is saved into another folder.
        stored = state_in(run, "", [])
    if stored is None or stored.step <= (newest.step or 0):
        for item in numbered[1:_MAX_COMPARED]:
            if item.step is not None and same_model(run, end, item):
                return _place_copy(run, end, item, numbered, newest_state)
    if stored is not None:
        return _place_by_state(run, end, stored, numbered, newest_state)
    return _place_unnumbered(run, end, numbered, newest_state)


def _place_copy(
    run: Tree,
    end: Checkpoint,
    copied: Checkpoint,
    numbered: list[Checkpoint],
    newest_state: TrainerState | None,
) -> _Place:
    newest = numbered[0]
    state = state_in(run, copied.path, [])
    mixed = state is not None and state.ended and _mixed(run, state, numbered)
    if mixed or (newest_state is not None and newest_state.ended):
        return _Place(
            "undecided",
            copied.step,
            f"{_where(end)} holds the model of {copied.path}, and {newest.path} planned another number of "
            "steps: two trainings may have used this folder",
        )
    return _Place(
        "older",
        copied.step,
        f"{_where(end)} holds the model of {copied.path}, which is older than {newest.path}: it was saved "
        "before the training continued, and was not used",
    )


def _place_by_state(
    run: Tree,
    end: Checkpoint,
    stored: TrainerState,
    numbered: list[Checkpoint],
    newest_state: TrainerState | None,
) -> _Place:
    newest = numbered[0]
    step, newest_step = stored.step, newest.step or 0
    same = None if newest_state is None else stored.is_of_same_training(newest_state)
    if (
        same is None
        and newest_state is not None
        and _plans_differ(stored, newest_state)
        and step > newest_step
    ):
        same = None if same_arguments(run, end, newest) else False
    if same is False:
        return _Place(
            "undecided",
            step,
            f"{_where(end)} and {newest.path} belong to different trainings, according to {STATE}",
        )
    if step > newest_step:
        return _Place("newer", step)
    if step == newest_step:
        return _Place("older", step)
    if newest_state is not None and stored.ended and (newest_state.ended or _mixed(run, stored, numbered)):
        return _Place(
            "undecided",
            step,
            f"{_where(end)} says that training ended at step {step}, and {newest.path} planned another "
            "number of steps: two trainings may have used this folder",
        )
    return _Place(
        "older",
        step,
        f"{_where(end)} holds a model of step {step}, which is older than {newest.path}: it was saved before "
        "the training continued, and was not used",
    )


def _plans_differ(one: TrainerState, other: TrainerState) -> bool:
    return None not in (one.planned, other.planned) and one.planned != other.planned


def _mixed(run: Tree, stored: TrainerState, numbered: list[Checkpoint]) -> bool:
    """Tell whether a checkpoint up to the end's step has another plan. A resumed training leaves none."""
    return any(
        state is not None and state.planned is not None and state.planned != stored.planned
        for item in numbered[:_MAX_COMPARED]
        if item.step is not None and item.step <= stored.step
        for state in [state_in(run, item.path, [])]
    )


def _place_unnumbered(
    run: Tree, end: Checkpoint, numbered: list[Checkpoint], newest_state: TrainerState | None
) -> _Place:
    newest = numbered[0]
    of_newest_call = same_arguments(run, end, newest)
    if has_arguments(run, end) and has_arguments(run, newest) and not of_newest_call:
        if any(same_arguments(run, end, item) for item in numbered[1:_MAX_COMPARED]):
            return _Place(
                "older",
                None,
                f"{_where(end)} was saved with the arguments of an older training than {newest.path}, and "
                "was not used",
            )
        return _Place(
            "undecided", None, f"{_where(end)} and {newest.path} were saved with different arguments"
        )
    if _is_named(end):
        return _Place("newer", None)
    # This includes what cannot be compared: an adapter and its merged model, or shards.
    unknown = _Place(
        "undecided",
        None,
        f"{newest.path} has the highest step, but {_where(end)} contains another model, maybe a newer one: "
        "no file says its step",
    )
    if newest_state is None or newest_state.planned is None:
        return _Place("newer", None) if of_newest_call else unknown
    if newest_state.ended:
        return unknown
    planned = newest_state.planned
    if newest_state.may_stop_early:
        if of_newest_call:
            return _Place("newer", None, _no_step(end))
    elif planned - (newest.step or 0) < _interval(newest_state, numbered):
        return _Place("newer", None, _no_step(end))
    return _Place(
        "undecided",
        None,
        f"{newest.path} belongs to a training to step {planned}, and no file says whether {_where(end)} was "
        "saved before or after it",
    )


def _interval(state: TrainerState, numbered: list[Checkpoint]) -> int:
    """Return how many steps there may be between the last numbered checkpoint and the end of a training."""
    steps = sorted(item.step for item in numbered if item.step is not None)
    every = state.values.get("save_steps")
    # If checkpoints are saved at the end of epochs, the state contains a default here.
    if isinstance(every, int) and every > 0 and all(step % every == 0 for step in steps):
        return every
    return max((later - earlier for earlier, later in zip([0, *steps], steps, strict=False)), default=0)


def _no_step(end: Checkpoint) -> str:
    return f"{_where(end)} contains the final model, but no file says at which step it was saved"


def _where(end: Checkpoint) -> str:
    return "the root of the run" if end.path == "." else end.path


def _is_named(end: Checkpoint) -> bool:
    return end.path != "." and FINAL.fullmatch(end.path.rpartition("/")[2]) is not None


def _rank(end: Checkpoint) -> int:
    match = FINAL.fullmatch(end.path.rpartition("/")[2])
    return _WORDS.index(match["word"].lower()) if match else -1


def _step_alone(run: Tree, path: str) -> int | None:
    state = state_in(run, path, []) or state_in(run, "", [])
    if state is not None:
        return state.step
    # A single checkpoint, passed by itself.
    return step_in_name(name_of(run)) if path == "." else None


def _put_first(run: Tree, result: RunDraft, newer: list[Checkpoint]) -> None:
    """Put the ends first, the most certain at the front. Copies of the same model are listed once."""
    newer.sort(key=lambda item: (item.step is None, -(item.step or 0), -_rank(item), item.path))
    ends: list[Checkpoint] = []
    for item in newer:
        if not any(same_model(run, item, other) for other in ends):
            ends.append(item)
    if len(ends) > 1 and (ends[0].step is None or ends[1].step is None) and not result.undecided:
        leave_undecided(result, ends, "the run contains several models that may be the final one")
    result.checkpoints = newest_first([*ends, *result.checkpoints])
