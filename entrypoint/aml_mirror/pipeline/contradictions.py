"""Finds evidence in a run against the checkpoint that names and small files selected.

It examines every run in the same way, whatever its layout:

- The last logged step and the checkpoint's step have the same unit, but differ widely. The checkpoint is
  older than the end of the training, or belongs to another training.
- A later session of one writer began again. The folder was used by an older training, whose files are still
  there.

If a restart and the steps together suggest another checkpoint, it is undecided which one is final. Everything
else is a warning. :mod:`aml_mirror.pipeline.select` reports a newer save that is incomplete, when it skips
it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from aml_mirror.core.run import Checkpoint, Run
from aml_mirror.metrics.series import Metrics
from aml_mirror.metrics.summaries import Series, Span

# A writer loses its last points when it is killed: TensorBoard's flushes every 120 s. A training that was
# stopped loses everything after its last save. A tenth of the training is more than both.
_SHARE = 0.1
# A training saves at intervals. The log after the newest save is shorter than one interval, or two if the
# next save was interrupted.
_INTERVALS = 2


def _all(series: Series, checkpoint: Checkpoint) -> bool:
    return True


def _iterations(series: Series, checkpoint: Checkpoint) -> bool:
    # rsl_rl/utils/logger.py logs some tags a second time, by the seconds of the training.
    return not series.tag.endswith("/time")


def _of_rl_games(series: Series, checkpoint: Checkpoint) -> bool:
    # rl_games/common/a2c_common.py logs the rewards by frames, by epochs and by time. The tag says which.
    return series.tag.endswith("/step" if "_frame_" in checkpoint.path else "/iter")


def _epochs(series: Series, checkpoint: Checkpoint) -> bool:
    # A module may log by its own steps. Lightning itself logs the epoch by batches.
    return series.tag == "epoch"


# For each framework, the series whose steps have the unit of its checkpoints' numbers. Brax logs and saves by
# steps of the environment (Playground's learning/train_jax_ppo.py), ProtoMotions by epochs
# (post_epoch_logging in base_agent/agent.py), RLinf and Diffusion Policy by global_step (embodied_runner.py;
# run in the workspaces). For frameworks that are missing here, it is unknown or not so: ACT logs nothing;
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


# Lightning's checkpoints count the steps of all optimizers, its loggers the batches that had one. With two
# optimizers, a checkpoint's step is twice as high. So only a log that continues proves something. And
# last.ckpt may only be written together with a checkpoint with a better score. It may be far behind, so only
# a log that is twice as long is reported.
_COUNTS_MORE = frozenset({"lightning"})


@dataclass(frozen=True, slots=True)
class Contradictions:
    """The evidence against a checkpoint."""

    warnings: tuple[str, ...] = ()
    undecided: str = ""
    """Why the final checkpoint is undecided; empty: it is decided."""
    choices: tuple[str, ...] = ()
    """If it is undecided: the paths of the candidates."""


def contradictions(framework: str, run: Run, checkpoint: Checkpoint, metrics: Metrics) -> Contradictions:
    """Compare a selected checkpoint with what the run logged."""
    warnings = [
        f"the folder contains event files of an older training: {restart.older.path} has the steps "
        f"{restart.older.first} to {restart.older.last}, and {restart.newer.path} began again at step "
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
        # A truncated log does not show where the training ended.
        if not any("ended" in source for source in metrics.sources):
            warnings.append(f"{text}: it may be of another training, or logs are missing")
    elif _is_newest(run, checkpoint) and last.last > step + _behind(framework, last, steps):
        warnings.append(
            f"the newest log continues to step {last.last} ({last.path}), but {checkpoint.path} has the step "
            f"{step}: newer checkpoints may be missing"
        )
    return Contradictions(tuple(warnings))


def _is_newest(run: Run, checkpoint: Checkpoint) -> bool:
    if checkpoint.role == "final":
        return True
    return checkpoint.role == "unknown" and checkpoint.path == run.checkpoints[0].path


def _last_logged(framework: str, checkpoint: Checkpoint, metrics: Metrics) -> Span | None:
    """Return the steps of the newest session with the highest step, in the unit of the checkpoint's step."""
    counts = _SAME_UNIT.get(framework)
    if counts is None:
        return None
    # A single step is not a training: it is an evaluation that was logged beside it.
    spans = [
        series.newest
        for series in metrics.series
        if series.newest and series.newest.before_last is not None and counts(series, checkpoint)
    ]
    return max(spans, key=lambda span: (span.last, span.before_last or 0), default=None)


def _fitting(run: Run, last: Span) -> list[str]:
    """Return the paths of the checkpoints with which the training of a log may have ended."""
    before = [item for item in run.checkpoints if item.step and item.step <= last.last + _gap(last)]
    near = [item for item in before if item.step and item.step >= last.last]
    return [item.path for item in near or before[:1]]


def _gap(span: Span) -> int:
    """Return the distance between the last two steps of a log, which the next step would have too."""
    return span.last - (span.before_last if span.before_last is not None else span.last)


def _interval(steps: list[int]) -> int:
    """Return the largest distance between two saves. For a single save, return its step."""
    return max((after - before for before, after in pairwise(steps)), default=steps[0])


def _beyond(span: Span, steps: list[int], is_restarted: bool) -> int:
    """Return by how many steps a checkpoint may exceed the log of its training."""
    if is_restarted:
        # If the folder contains files of two trainings: only what the log itself allows.
        return _gap(span)
    return max(_interval(steps), _gap(span), int(span.last * _SHARE))


def _behind(framework: str, span: Span, steps: list[int]) -> int:
    """Return by how many steps a log may continue after the last save."""
    if framework in _COUNTS_MORE:
        return steps[-1]
    return max(_INTERVALS * _interval(steps), _gap(span), int(span.last * _SHARE))
