"""Frameworks that save a checkpoint as one file, or as several files of which one holds the weights."""

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

# One readable file decides. If the newest files are truncated, the first few include older complete ones.
_LOOK_INTO = 8
# By how much the members' names may enlarge one of two files with the same contents.
_NAMES_BYTES = 1 << 16

_Found = tuple[Checkpoint, re.Match[str]]


def no_params(run: Tree, warnings: list[str]) -> dict[str, Any]:
    """Read no configuration."""
    return {}


@dataclass(frozen=True)
class FileLayout:
    """Declares a framework whose checkpoints are files. Implements :class:`Layout`.

    The patterns match a file's whole name. The group ``step`` is the number that orders the files. Every
    other named group identifies the training. Files that differ in such a group belong to different
    trainings, and the person has to say which one is meant. Files without that group belong to any training.
    """

    name: str
    numbered: str
    """The name of a periodic checkpoint; its group ``step`` orders it."""
    folder: str = ""
    """The folder of the files, below the run's root; empty: the root itself."""
    optional_folder: bool = False
    """Whether the files may be in the root too: people copy only the folder."""
    final: str = ""
    """The name of the final or regularly overwritten file; empty: the highest step is the end."""
    best: str = ""
    """The name of the file that is kept for its score."""
    holds: tuple[str, ...] = ()
    """Strings that every ``torch.save`` file of this framework contains, mainly its keys."""
    beside: tuple[str, ...] = ()
    """Patterns of paths below the run's root. One of them must exist. Empty: none is required."""
    accepts: Callable[[Tree], bool] = lambda run: True
    """Checks for other signs of the framework. Called with the run's tree."""
    step_key: str = ""
    """The key of the step in every file, for files whose names have no step."""
    trust_names: bool = False
    """Whether names are enough if none of the files can be read."""
    companions: tuple[str, ...] = ()
    """Patterns of paths below the run's root: what inference loads beside the checkpoint."""
    left_out: tuple[tuple[str, str], ...] = ()
    """(pattern, reason): paths below the run's root that a checkpoint needs only for further training."""
    params: Callable[[Tree, list[str]], dict[str, Any]] = no_params
    """Reads the configuration of the training."""
    logs: tuple[str, ...] = ()
    """Patterns of paths below the run's root: the framework's own scalar logs."""
    refine: Callable[[Tree, RunDraft], RunDraft] = field(default=lambda tree, run: run)
    """Changes the result, if the framework needs a rule of its own."""

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
        # The name of a final or best file may also match a numbered one: model_final_1.pt.
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
        """Return all of them, newest first. An end that is a copy of a numbered one is not listed twice."""
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
                    f"{end.path} contains step {end.step}, but {newest.path} the later step {newest.step}: "
                    "the later one is taken as the final checkpoint"
                )
        # A file that is named as the end, but without a step, comes before any number.
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
                f"the run contains files of {len(trainings)} trainings",
            )
            return
        ends = [item for item, _ in ordered if item.step is None]
        if len(ends) > 1:
            leave_undecided(result, ends, f"{len(ends)} files are named as the end of training")
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
    """Return the training that a name states; empty: none."""
    return {name: value for name, value in match.groupdict().items() if name != "step" and value is not None}


def _may_be_of(end: re.Match[str], numbered: re.Match[str]) -> bool:
    """Tell whether two names may belong to the same training."""
    training = _training(numbered)
    return all(training.get(name, value) == value for name, value in _training(end).items())


def _is_copy(run: Tree, end: Checkpoint, numbered: Checkpoint) -> bool:
    # torch.save names the members after the file and pads them, so equal files may differ in that.
    sizes = run.size(end.path), run.size(numbered.path)
    if abs(sizes[0] - sizes[1]) > max(_NAMES_BYTES, sizes[0] // 100):
        return False
    return same_contents(run, end.path, numbered.path)


def root_of(folder: str, container: str, optional: bool) -> str | None:
    """Return the run's root around a folder that may contain checkpoints; None: they are stored elsewhere.

    Args:
        folder: where checkpoints may be.
        container: the folder of the checkpoints, below the run's root; empty: the root itself.
        optional: whether they may be in the root too.
    """
    if container and (folder == container or folder.endswith("/" + container)):
        return folder[: -len(container)].rstrip("/")
    return folder if optional or not container else None
