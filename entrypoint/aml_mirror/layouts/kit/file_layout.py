"""Frameworks that save a checkpoint as one file, or as several files of which the weights are one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from aml_mirror.layouts.base import Checkpoint, Role, RunDraft
from aml_mirror.layouts.kit.companions import matching, with_companions
from aml_mirror.layouts.kit.other_ends import (
    TORCH_SUFFIXES,
    WHY_FOREIGN,
    ask_about_other_ends,
    other_ends,
    plain_names,
)
from aml_mirror.layouts.kit.other_series import ask_about_other_series
from aml_mirror.layouts.kit.roles import leave_undecided, newest_first
from aml_mirror.layouts.kit.temporary import FILE_PROBLEM, name_when_done
from aml_mirror.layouts.run_roots import topmost
from aml_mirror.layouts.step_folders import names_in
from aml_mirror.layouts.torch_files import holds_string, pickle_of, same_contents, values_of, whole_number
from aml_mirror.sources.tree import Tree, join

# A readable file decides; a run whose newest files are all cut has older whole ones among the first few.
_LOOK_INTO = 8
# What the members' names may take more in one of two files with the same contents.
_NAMES_BYTES = 1 << 16

_Found = tuple[Checkpoint, re.Match[str]]


def no_params(run: Tree, warnings: list[str]) -> dict[str, Any]:
    """Read no configuration."""
    return {}


@dataclass(frozen=True)
class FileLayout:
    """A declaration of a framework whose checkpoints are files; an implementation of :class:`Layout`.

    The patterns match a file's whole name. The group ``step`` is the number by which files are ordered. Every
    other named group says which training a file is of: files that differ in one are of different trainings,
    and which of them is meant is then for the person to say. Files without that group belong to any training.
    """

    name: str
    numbered: str
    """The name of a periodic checkpoint; its group ``step`` orders it."""
    folder: str = ""
    """The folder of the files, below the run's root; empty: they are in the root."""
    optional_folder: bool = False
    """Whether the files may be in the root too: people copy the folder alone."""
    final: str = ""
    """The name of what is saved when training ends, or saved over and over; empty: the highest step is it."""
    best: str = ""
    """The name of what is kept for its score."""
    holds: tuple[str, ...] = ()
    """Strings that every file of ``torch.save`` of this framework holds, its keys above all."""
    beside: tuple[str, ...] = ()
    """Patterns of paths below the run's root: one of them has to be there. Empty: nothing has to."""
    accepts: Callable[[Tree], bool] = lambda run: True
    """Looks at what else tells the framework: called with the run's tree."""
    step_key: str = ""
    """The key under which every file holds its step; for files whose name has none."""
    trust_names: bool = False
    """Whether names are enough where none of the files can be read."""
    companions: tuple[str, ...] = ()
    """Patterns of paths below the run's root: what the framework's own player opens beside the checkpoint."""
    left_out: tuple[tuple[str, str], ...] = ()
    """(pattern, reason): paths below the run's root that belong to a checkpoint but only to train on."""
    params: Callable[[Tree, list[str]], dict[str, Any]] = no_params
    """Reads the configuration of the training."""
    logs: tuple[str, ...] = ()
    """Patterns of paths below the run's root: the framework's own scalar logs."""
    refine: Callable[[Tree, RunDraft], RunDraft] = field(default=lambda tree, run: run)
    """Changes what was read, where a rule of the framework's own is needed."""

    def find(self, tree: Tree) -> list[str]:
        return topmost(
            root
            for folder in tree.children
            if (root := root_of(folder, self.folder, self.optional_folder)) is not None
            and self._is_own(tree, folder, root)
        )

    def read(self, run: Tree) -> RunDraft:
        result = RunDraft([])
        numbered: list[_Found] = []
        ends: list[_Found] = []
        best: list[_Found] = []
        base = self.folder if run.has_folder(self.folder) or not self.optional_folder else ""
        for name in sorted(names_in(run, base)):
            for pattern, group, role in self._kinds:
                done = name_when_done(name)
                if match := pattern.fullmatch(name) or (pattern.fullmatch(done) if done else None):
                    problem = "" if pattern.fullmatch(name) else FILE_PROBLEM
                    item = self._checkpoint(run, join(base, name), match, role, problem)
                    {"numbered": numbered, "final": ends, "best": best}[group].append((item, match))
                    break
        foreign = self._other_ends(run, base, [item for item, _ in (*numbered, *ends, *best)])
        ends += foreign
        ordered = self._ordered(run, numbered, ends, result.warnings)
        result.checkpoints = with_companions(run, newest_first(item for item, _ in ordered), self.companions)
        self._tell_apart(result, ordered, {item.path for item, _ in foreign})
        whole = [item for item, _ in best if not item.problem]
        if whole:
            (result.best,) = with_companions(run, whole[:1], self.companions)
        if not result.checkpoints and result.best:
            result.warnings.append(
                f"only the best checkpoint {result.best.path} was kept; --checkpoint best takes it"
            )
        ask_about_other_ends(run, result, lambda path: self._described(run, path))
        if self.holds:
            names = [name for name in names_in(run, base) if self._is_unknown(name)]
            ask_about_other_series(
                run, result, base, names, lambda path: self._holds_all(pickle_of(run, path))
            )
        self._leave_out(run, result)
        result.params = self.params(run, result.warnings)
        result.logs = matching(run, self.logs)
        return self.refine(run, result)

    def _described(self, run: Tree, path: str) -> Checkpoint:
        (found,) = with_companions(
            run, [Checkpoint(path, None, "periodic", (path,), (path,))], self.companions
        )
        return found

    def _other_ends(self, run: Tree, base: str, listed: list[Checkpoint]) -> list[_Found]:
        """Return the ends that only forks of the framework save: model_final.pt beside model_100.pt."""
        names = [item.path.rpartition("/")[2] for item in listed]
        result: list[_Found] = []
        known = {item.path for item in listed}
        known.update(matching(run, [*self.companions, *(pattern for pattern, _ in self.left_out)]))
        beside = sorted(names_in(run, base))
        plain = plain_names(filter(self._is_unknown, beside)) if self.holds and self.step_key else []
        for name in dict.fromkeys((*other_ends(beside, names), *plain)):
            path = join(base, name)
            match = re.fullmatch(re.escape(name), name)
            if match is None or path in known or any(kind.fullmatch(name) for kind, _, _ in self._kinds):
                continue
            data = pickle_of(run, path) if self.holds else b""
            if not self._holds_all(data) and (data or name in plain):
                continue
            item = self._checkpoint(run, path, match, "periodic", "")
            if name not in plain or item.step is not None:
                result.append((item, match))
        return result

    @cached_property
    def _kinds(self) -> list[tuple[re.Pattern[str], str, Role]]:
        kinds: list[tuple[re.Pattern[str], str, Role]] = []
        # A final or best file may look like a numbered one too: model_final_1.pt.
        if self.final:
            kinds.append((re.compile(self.final), "final", "periodic"))
        if self.best:
            kinds.append((re.compile(self.best), "best", "best"))
        kinds.append((re.compile(self.numbered), "numbered", "periodic"))
        return kinds

    def _is_own(self, tree: Tree, folder: str, root: str) -> bool:
        names = [
            (int(match.groupdict().get("step") or 0), name)
            for name in names_in(tree, folder)
            for pattern, _, _ in self._kinds
            if (match := pattern.fullmatch(name))
        ]
        if not names:
            return False
        if self.beside and not matching(tree.below(root), self.beside):
            return False
        if not self.accepts(tree.below(root)):
            return False
        if not self.holds:
            return True
        for _, name in sorted(names, reverse=True)[:_LOOK_INTO]:
            if data := pickle_of(tree, join(folder, name)):
                return self._holds_all(data)
        return self.trust_names

    def _holds_all(self, data: bytes) -> bool:
        return bool(data) and all(holds_string(data, text) for text in self.holds)

    def _is_unknown(self, name: str) -> bool:
        return name.endswith(TORCH_SUFFIXES) and not any(
            pattern.fullmatch(name) or pattern.fullmatch(name_when_done(name))
            for pattern, _, _ in self._kinds
        )

    def _checkpoint(self, run: Tree, path: str, match: re.Match[str], role: Role, problem: str) -> Checkpoint:
        named = match.groupdict().get("step")
        step = int(named) if named else None
        if step is None and self.step_key:
            step = whole_number(values_of(run, path, (self.step_key,)).get(self.step_key))
        return Checkpoint(path, step, role, (path,), (path,), problem=problem)

    def _ordered(
        self, run: Tree, numbered: list[_Found], ends: list[_Found], warnings: list[str]
    ) -> list[_Found]:
        """Return all of them, newest first. An end that is a copy of a numbered one is not listed again."""
        numbered.sort(key=lambda item: (-(item[0].step or 0), bool(item[0].problem), item[0].path))
        placed: list[_Found] = []
        for end, match in ends:
            if any(_is_copy(run, end, other) for other, of in placed if _may_be_of(match, of)):
                continue
            same = [item for item, of in numbered if _may_be_of(match, of)]
            copied = next((item for item in same if _is_copy(run, end, item)), None)
            if copied is None:
                placed.append((end, match))
                continue
            if copied is not same[0]:
                warnings.append(
                    f"{end.path} is a copy of {copied.path}, and {same[0].path} is newer: "
                    f"{end.path} is stale and was not used"
                )
            left = ((end.path, f"a copy of {copied.path}"),)
            numbered = [
                (replace(item, left_out=left) if item is copied else item, of) for item, of in numbered
            ]
        for end, match in placed:
            newest = next((item for item, of in numbered if _may_be_of(match, of)), end)
            if end.step is not None and (newest.step or 0) > end.step:
                warnings.append(
                    f"{end.path} holds step {end.step}, {newest.path} the later step {newest.step}: "
                    "the later one is what training ended with"
                )
        # What says that it is the end, but not at which step, comes before any number.
        return sorted(
            [*placed, *numbered], key=lambda item: -math.inf if item[0].step is None else -item[0].step
        )

    def _tell_apart(self, result: RunDraft, ordered: list[_Found], foreign: set[str]) -> None:
        trainings: dict[tuple[tuple[str, str], ...], Checkpoint] = {}
        for item, match in ordered:
            if training := _training(match):
                trainings.setdefault(tuple(sorted(training.items())), item)
        if len(trainings) > 1:
            shared = [item for item, match in ordered if not _training(match)]
            leave_undecided(
                result,
                [*shared, *trainings.values()],
                f"the run holds files of {len(trainings)} trainings",
            )
            return
        ends = [item for item, _ in ordered if item.step is None]
        if len(ends) > 1:
            leave_undecided(result, ends, f"{len(ends)} files say that training ended with them")
        elif ends and ends[0].path in foreign and len(ordered) > 1:
            leave_undecided(result, [ends[0], ordered[1][0]], WHY_FOREIGN)

    def _leave_out(self, run: Tree, result: RunDraft) -> None:
        left = tuple(
            (path, reason) for pattern, reason in self.left_out for path in matching(run, (pattern,))
        )

        def without(item: Checkpoint) -> Checkpoint:
            return replace(item, left_out=tuple(sorted({*item.left_out, *left})))

        result.checkpoints = [without(item) for item in result.checkpoints]
        result.best = without(result.best) if result.best else None


def _training(match: re.Match[str]) -> dict[str, str]:
    """Return what a name says of its training; empty: nothing."""
    return {name: value for name, value in match.groupdict().items() if name != "step" and value is not None}


def _may_be_of(end: re.Match[str], numbered: re.Match[str]) -> bool:
    """Tell whether nothing in two names says that they are of different trainings."""
    training = _training(numbered)
    return all(training.get(name, value) == value for name, value in _training(end).items())


def _is_copy(run: Tree, end: Checkpoint, numbered: Checkpoint) -> bool:
    # torch.save names the members after the file and pads them: equal files may differ by that.
    sizes = run.size(end.path), run.size(numbered.path)
    if abs(sizes[0] - sizes[1]) > max(_NAMES_BYTES, sizes[0] // 100):
        return False
    return same_contents(run, end.path, numbered.path)


def root_of(folder: str, container: str, optional: bool) -> str | None:
    """Return the run's root around a folder that may hold checkpoints; None: they are kept elsewhere.

    Args:
        folder: where checkpoints may be.
        container: the folder of the checkpoints, below the run's root; empty: they are in the root.
        optional: whether they may be in the root too.
    """
    if container and (folder == container or folder.endswith("/" + container)):
        return folder[: -len(container)].rstrip("/")
    return folder if optional or not container else None
