"""Selects the checkpoint to mirror, the newest complete or the requested one, and lists skipped ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from aml_mirror.core.errors import DataError, Unreadable, UsageError
from aml_mirror.core.run import Checkpoint, Role, Run
from aml_mirror.layouts import as_option, explicit_checkpoint
from aml_mirror.layouts.explicit_path import STEP, WORDS
from aml_mirror.layouts.same_weights import same_weights
from aml_mirror.pipeline import newer_unreadable
from aml_mirror.pipeline.completeness import judge
from aml_mirror.sources.tree import Tree
from aml_mirror.support.suggestions import did_you_mean, hint

# The most candidates in one error.
_MAX_SHOWN = 20


@dataclass(frozen=True, slots=True)
class SelectedCheckpoint:
    """A checkpoint to mirror, and the skipped ones: (path, why)."""

    checkpoint: Checkpoint
    passed_over: tuple[tuple[str, str], ...] = ()
    is_unlisted: bool = False
    """Whether the layout does not list it: the person named it."""


def choose(
    tree: Tree,
    run: Run,
    wanted: str,
    strict: bool = False,
    trusted: Callable[[Checkpoint], bool] = lambda checkpoint: False,
    problem_of: Callable[[Tree, Checkpoint], str] = judge,
) -> Iterator[SelectedCheckpoint]:
    """Yield the checkpoints that ``wanted`` selects: one, or for ``all`` every complete one, oldest first.

    Args:
        tree: the run.
        run: what its layout says.
        wanted: ``final``, ``best``, ``all``, a step, or a path below the run's root: of a checkpoint that the
            layout lists, or of any other weights outside of those.
        strict: an incomplete checkpoint on the way is an error, not a warning.
        trusted: returns whether a checkpoint was found complete before and cannot have changed since.
        problem_of: returns why a checkpoint is not complete. Empty: it is complete.

    Raises:
        DataError: the requested checkpoint does not exist or is not complete, and ``strict`` is set or there
            is no alternative.
        UsageError: no checkpoint has that step, or no weights are at that path; or ``final`` or the step
            matches several.
    """

    def why_not(checkpoint: Checkpoint) -> str:
        return "" if trusted(checkpoint) else problem_of(tree, checkpoint)

    if wanted == "final":
        yield _newest(tree, run, why_not, strict)
    elif wanted == "all":
        yield from _all(run, why_not, strict)
    else:
        checkpoint, is_listed = _named(tree, run, wanted)
        if why := why_not(checkpoint):
            other = "choose another with --checkpoint final, or a step"
            raise DataError(
                f"the checkpoint {checkpoint.path} is not complete: {why}",
                other if is_listed else "copy it again if the copy was interrupted",
            )
        yield SelectedCheckpoint(checkpoint, is_unlisted=not is_listed)


def path_in(wanted: str) -> str:
    """Return ``wanted`` if it is a path. Empty if it is a word or a step."""
    if wanted in WORDS or STEP.fullmatch(wanted):
        return ""
    return wanted.strip("/").removeprefix("./")


def _newest(tree: Tree, run: Run, why_not: Callable[[Checkpoint], str], strict: bool) -> SelectedCheckpoint:
    if run.undecided:
        paths = run.choices or [item.path for item in run.checkpoints]
        told = all(path in run.undecided for path in paths)
        message = run.undecided if told else f"{run.undecided}: {_shown(paths)}"
        cut = {item.path: why for item in run.checkpoints if item.path in paths and (why := why_not(item))}
        if whole := [path for path in paths if path not in cut]:
            # Incomplete checkpoints are named, but not offered as a choice.
            message += "".join(f"; {path} is not complete: {why}" for path, why in cut.items())
        raise UsageError(message, pick(whole or paths))
    passed: list[tuple[str, str]] = []
    for checkpoint in run.checkpoints:
        why = why_not(checkpoint)
        if not why:
            newer_unreadable.require_none(tree, run, checkpoint, [path for path, _ in passed])
            # Whatever its name is, it is now known to be the final checkpoint.
            role: Role = "unknown" if checkpoint.role == "unknown" else "final"
            return SelectedCheckpoint(replace(checkpoint, role=role), tuple(passed))
        passed.append((checkpoint.path, why))
        if strict:
            break
    newer_unreadable.require_none(tree, run, None, [path for path, _ in passed])
    raise _none_complete(passed, strict, run.best if not run.checkpoints else None)


def _all(run: Run, why_not: Callable[[Checkpoint], str], strict: bool) -> Iterator[SelectedCheckpoint]:
    candidates = list(reversed(run.checkpoints))
    if run.best and all(run.best.path != other.path for other in candidates):
        candidates.append(run.best)
    newest = run.checkpoints[:1]
    passed = []
    for item in candidates:
        try:
            why = why_not(item)
        except Unreadable as error:
            # A missing older one does not matter for "all"; the newest one matters most.
            if strict or item in newest:
                raise
            why = error.message
        if why:
            passed.append((item.path, why))
    if not candidates or len(passed) == len(candidates) or (strict and passed):
        raise _none_complete(passed, strict)
    bad = {path for path, _ in passed}
    for item in candidates:
        if item.path not in bad:
            yield SelectedCheckpoint(item, tuple(passed))


def _none_complete(passed: list[tuple[str, str]], strict: bool, only: Checkpoint | None = None) -> DataError:
    if only is not None:
        return DataError(
            f"the run does not contain its final checkpoint, only its best checkpoint {only.path}",
            "to mirror it, pass --checkpoint best",
        )
    if not passed:
        return DataError("the run contains no checkpoint", "check that the training saved one")
    path, why = passed[0]
    if strict:
        return DataError(
            f"the checkpoint {path} is not complete: {why}",
            "omit --strict to mirror the newest complete one",
        )
    others = f", nor any of the {len(passed) - 1} others" if len(passed) > 1 else ""
    return DataError(
        f"the run contains no complete checkpoint: not {path}: {why}{others}",
        "continue the training, or copy the run again if the copy was interrupted",
    )


def _named(tree: Tree, run: Run, wanted: str) -> tuple[Checkpoint, bool]:
    """Return the named checkpoint, and whether the layout lists it."""
    known = [*run.checkpoints, *([run.best] if run.best else [])]
    if wanted == "best":
        if run.best is None:
            raise DataError(
                "the run has no best checkpoint",
                "pass --checkpoint final, or a step: " + _steps(known),
            )
        return run.best, True
    if STEP.fullmatch(wanted):
        return _at_step(tree, known, wanted), True
    path = tree.resolve(_below_root(tree, path_in(wanted)))
    # The folder around it is accepted too: checkpoints/005000 for checkpoints/005000/pretrained_model.
    meant = [item for item in known if item.path == path] or [
        item for item in known if path == "." or item.path.startswith(path + "/")
    ]
    if len({item.path for item in meant}) == 1:
        return meant[0], True
    for item in known:
        if path in {*item.files, *(left for left, _ in item.left_out)} or path.startswith(item.path + "/"):
            raise UsageError(
                f"{wanted} is part of the checkpoint {item.path}",
                f"pass --checkpoint {item.path!r}, and --include for some of its files only",
            )
    if not meant and (found := explicit_checkpoint(tree, path)):
        return replace(found, files=tuple(sorted({*found.files, *_shared(run)}))), False
    shown = ", ".join(item.path for item in (meant or known)[:10])
    near = "" if meant else did_you_mean(wanted, [*WORDS, *(item.path for item in known)])
    raise UsageError(
        f"{'several checkpoints are below' if meant else 'no checkpoint has the path'} {wanted}",
        hint(
            near,
            f"there are: {shown}"
            if shown
            else "the layout lists no checkpoint, and there are no weights there",
        ),
    )


def _shared(run: Run) -> set[str]:
    """Return the files outside its checkpoints that all of them share: inference needs them."""
    outside = [
        {path for path in item.files if path not in item.weights and not path.startswith(item.path + "/")}
        for item in run.checkpoints
        if item.path != "."
    ]
    return set.intersection(*outside) if outside else set()


def _below_root(tree: Tree, path: str) -> str:
    """Return a path below the run's root, even if it was given below the source by a shell's completion."""
    inside = path.removeprefix(tree.root + "/") if tree.root else path
    if inside == path or any(f"{name}/".startswith(f"{path}/") for name in tree.files):
        return path
    return inside


def _at_step(tree: Tree, known: list[Checkpoint], wanted: str) -> Checkpoint:
    """Return the only checkpoint of a step. Copies of each other count as one.

    Raises:
        UsageError: none has that step, or several different ones have it.
    """
    there = [item for item in known if item.step == int(wanted)]
    if not there:
        # It is unknown whether the number in these names is the step, but the user knows.
        named = [item.path for item in known if _says(item.path, wanted)]
        if named:
            raise UsageError(
                f"no checkpoint is known to have the step {wanted}: {_shown(named)}", pick(named)
            )
        raise UsageError(f"no checkpoint has the step {wanted}", "there are: " + _steps(known))
    first = there[0]
    different = [item for item in there if item.path != first.path and not same_weights(tree, first, item)]
    if different:
        paths = [first.path, *(item.path for item in different)]
        raise UsageError(f"several checkpoints have the step {wanted}: {_shown(paths)}", pick(paths))
    return first


def _says(path: str, number: str) -> bool:
    return any(int(digits) == int(number) for digits in re.findall("[0-9]{1,18}", path))


def _shown(paths: Sequence[str]) -> str:
    return ", ".join(paths[:_MAX_SHOWN]) + (
        f" and {len(paths) - _MAX_SHOWN} more" if len(paths) > _MAX_SHOWN else ""
    )


def pick(paths: Sequence[str]) -> str:
    """Return the hint that names the option for each of some checkpoints."""
    return "pass one of: " + ", ".join(map(as_option, paths[:_MAX_SHOWN]))


def _steps(known: list[Checkpoint]) -> str:
    steps = sorted({item.step for item in known if item.step is not None})
    shown = [str(step) for step in steps]
    if len(shown) > 10:
        shown = [*shown[:4], "…", *shown[-5:]]
    return ", ".join(shown) or "no checkpoint has a known step"


def narrow(checkpoint: Checkpoint, include: tuple[str, ...], exclude: tuple[str, ...]) -> Checkpoint:
    """Return the checkpoint with only the files that ``--include`` and ``--exclude`` select.

    A pattern is compared with the path below the run's root, the path below the checkpoint, and the name.

    Raises:
        UsageError: no file with weights is left.
    """
    if not include and not exclude:
        return checkpoint
    base = "" if checkpoint.path == "." else checkpoint.path + "/"

    def matches(path: str, patterns: tuple[str, ...]) -> bool:
        forms = {path, path.rpartition("/")[2], path.removeprefix(base)}
        return any(fnmatchcase(form, pattern) for form in forms for pattern in patterns)

    kept, left = [], list(checkpoint.left_out)
    for path in checkpoint.files:
        if include and not matches(path, include):
            left.append((path, "not named by --include"))
        elif matches(path, exclude):
            left.append((path, "named by --exclude"))
        else:
            kept.append(path)
    weights = tuple(path for path in checkpoint.weights if path in kept)
    if not weights:
        raise UsageError(
            f"--include and --exclude leave no weights of {checkpoint.path}",
            "its weights are: " + ", ".join(checkpoint.weights[:5]),
        )
    return replace(checkpoint, files=tuple(kept), weights=weights, left_out=tuple(sorted(left)))
