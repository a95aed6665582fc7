"""The guard: what in a run speaks against the checkpoint that names and small files decided on.

It looks at every run in the same way, whatever its layout:

- The last logged step and the checkpoint's step, where they count the same, differ widely: the checkpoint is
  older than what was trained, or it is of another training.
- A later session of one writer began again: the folder was used by an older training, whose files are there.

Where a restart and the steps together point to another checkpoint, which one is final is undecided. Anything
else is a warning. A newer save that is incomplete is told where it was passed over
(:mod:`aml_mirror.pipeline.select`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from aml_mirror.core.run import Checkpoint, Run
from aml_mirror.metrics.series import Metrics
from aml_mirror.metrics.summaries import Series, Span

# A writer loses its last points when it is killed: TensorBoard's flushes every 120 s. And of a training that
# was stopped, what came after its last save is lost. A tenth of the training is more than both.
_SHARE = 0.1
# A training saves at intervals: what is beyond the newest save is less than one, or two where the next save
# was the one that was interrupted.
_INTERVALS = 2


def _all(series: Series, checkpoint: Checkpoint) -> bool:
    return True


def _iterations(series: Series, checkpoint: Checkpoint) -> bool:
    # rsl_rl/utils/logger.py logs some tags a second time, by the seconds of the training.
    return not series.tag.endswith("/time")


def _of_rl_games(series: Series, checkpoint: Checkpoint) -> bool:
    # rl_games/common/a2c_common.py logs the rewards by frames, by epochs and by time, as the tag says.
    return series.tag.endswith("/step" if "_frame_" in checkpoint.path else "/iter")


def _epochs(series: Series, checkpoint: Checkpoint) -> bool:
    # What a module logs may be by steps of its own; the epoch Lightning logs itself, by the batches.
    return series.tag == "epoch"


# Of each framework, the series whose steps count what the number of its checkpoints counts. Brax logs and
# saves by steps of the environment (Playground's learning/train_jax_ppo.py), ProtoMotions by epochs
# (post_epoch_logging in base_agent/agent.py), RLinf and Diffusion Policy by global_step (embodied_runner.py;
# run in the workspaces). Of those that are not here it is not known, or they do not: ACT logs nothing;
# Tianshou saves by epochs and logs by steps of the environment; RLlib counts its saves.
_SAME_UNIT: dict[str, Callable[[Series, Checkpoint], bool]] = {
    "brax": _all,
    "diffusion_policy": _all,
    "fasttd3": _all,
    "groot": _all,
    "huggingface": _all,
    "lerobot": _all,
    "lightning": _epochs,
    "octo": _all,
    "openpi": _all,
    "prismatic": _all,
    "protomotions": _all,
    "rl_games": _of_rl_games,
    "rlinf": _all,
    "robomimic": _all,
    "rsl_rl": _iterations,
    "skrl": _all,
    "stable_baselines3": _all,
    "tdmpc2": _all,
}


# Lightning's checkpoints count the steps of all optimizers, its loggers the batches that had one: with two
# optimizers a checkpoint is twice as far. Only a log that goes on says something. And last.ckpt is written
# together with one that has a better score only: it may be far behind, so that a log twice as long is told.
_COUNTS_MORE = frozenset({"lightning"})


@dataclass(frozen=True, slots=True)
class Contradictions:
    """What speaks against a checkpoint."""

    warnings: tuple[str, ...] = ()
    undecided: str = ""
    """Why the final checkpoint is not known after all; empty: it is."""
    choices: tuple[str, ...] = ()
    """Where it is not: the paths of those that may be it."""


def contradictions(framework: str, run: Run, checkpoint: Checkpoint, metrics: Metrics) -> Contradictions:
    """Compare a checkpoint that was taken for the final one, or named, with what the run logged."""
    warnings = [
        f"event files of an older training are in the folder: {restart.older.path} has the steps "
        f"{restart.older.first} to {restart.older.last}, {restart.newer.path} began again at step "
        f"{restart.newer.first}"
        for restart in metrics.restarts
    ]
    last = _last_logged(framework, checkpoint, metrics)
    if checkpoint.step is None or last is None:
        return Contradictions(tuple(warnings))
    step = checkpoint.step
    steps = sorted({item.step for item in run.checkpoints if item.step is not None} | {step})
    if step > last.last + _beyond(last, steps, bool(metrics.restarts)):
        if framework in _COUNTS_MORE:
            return Contradictions(tuple(warnings))
        text = f"{checkpoint.path} has step {step}, but the newest log ends at step {last.last} ({last.path})"
        if metrics.restarts and (fitting := _fitting(run, last)):
            return Contradictions(
                (*warnings, f"{text}: it may be of an older training"),
                f"{text}: an older training in the same folder may have left it",
                (*fitting, checkpoint.path),
            )
        # A log that was cut says nothing of where the training ended.
        if not any("ended" in source for source in metrics.sources):
            warnings.append(f"{text}: it may be of another training, or logs are missing")
    elif _is_newest(run, checkpoint) and last.last > step + _behind(framework, last, steps):
        warnings.append(
            f"the newest log goes on to step {last.last} ({last.path}), but {checkpoint.path} has the step "
            f"{step}: newer checkpoints may be missing"
        )
    return Contradictions(tuple(warnings))


def _is_newest(run: Run, checkpoint: Checkpoint) -> bool:
    if checkpoint.role == "final":
        return True
    return checkpoint.role == "unknown" and checkpoint.path == run.checkpoints[0].path


def _last_logged(framework: str, checkpoint: Checkpoint, metrics: Metrics) -> Span | None:
    """Return the steps of the newest session that got furthest, in the unit of the checkpoint's step."""
    counts = _SAME_UNIT.get(framework)
    if counts is None:
        return None
    # One step is no training: an evaluation that was logged beside it.
    spans = [
        series.newest
        for series in metrics.series
        if series.newest and series.newest.before_last is not None and counts(series, checkpoint)
    ]
    return max(spans, key=lambda span: (span.last, span.before_last or 0), default=None)


def _fitting(run: Run, last: Span) -> list[str]:
    """Return the paths of the checkpoints that the training of a log may have ended with."""
    before = [item for item in run.checkpoints if item.step and item.step <= last.last + _gap(last)]
    near = [item for item in before if item.step and item.step >= last.last]
    return [item.path for item in near or before[:1]]


def _gap(span: Span) -> int:
    """Return the distance between the last two steps of a log: the next one would have been as far away."""
    return span.last - (span.before_last if span.before_last is not None else span.last)


def _interval(steps: list[int]) -> int:
    """Return the largest distance between two saves; of one save alone its step."""
    return max((after - before for before, after in pairwise(steps)), default=steps[0])


def _beyond(span: Span, steps: list[int], is_restarted: bool) -> int:
    """Return by how many steps a checkpoint may exceed the log of its training."""
    if is_restarted:
        # With files of two trainings in the folder, only what the log itself allows.
        return _gap(span)
    return max(_interval(steps), _gap(span), int(span.last * _SHARE))


def _behind(framework: str, span: Span, steps: list[int]) -> int:
    """Return by how many steps a log may go on after the last save."""
    if framework in _COUNTS_MORE:
        return steps[-1]
    return max(_INTERVALS * _interval(steps), _gap(span), int(span.last * _SHARE))
