"""Frameworks that save a checkpoint as a folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from aml_mirror.layouts.base import Checkpoint, Role, RunDraft
from aml_mirror.layouts.generic.weight_files import Candidate, described
from aml_mirror.layouts.kit.companions import matching, missing_companion, with_companions
from aml_mirror.layouts.kit.file_layout import no_params, root_of
from aml_mirror.layouts.kit.other_ends import ask_about_other_ends
from aml_mirror.layouts.kit.roles import newest_first
from aml_mirror.layouts.kit.temporary import FOLDER_PROBLEM, name_when_done
from aml_mirror.layouts.run_roots import topmost
from aml_mirror.layouts.step_folders import subfolders
from aml_mirror.sources.tree import Tree, join, parent


@dataclass(frozen=True)
class FolderLayout:
    """Declares a framework whose checkpoints are folders. Implements :class:`Layout`."""

    name: str
    numbered: str
    """The name of a periodic checkpoint's folder; its group ``step`` orders it."""
    inside: tuple[str, ...]
    """Patterns of paths below a checkpoint. One of them must exist. They identify the framework."""
    folder: str = ""
    """The folder of the checkpoints, below the run's root; empty: the root itself."""
    optional_folder: bool = False
    """Whether the checkpoints may be in the root too: people copy only the folder."""
    final: str = ""
    """The name of a folder that is saved when training ends; empty: the highest step is the end."""
    best: str = ""
    """The name of a folder that is kept for its score."""
    beside: tuple[str, ...] = ()
    """Patterns of paths below the run's root. One of them must exist. Empty: none is required."""
    companions: tuple[str, ...] = ()
    """Patterns of paths below the run's root: what inference loads beside the checkpoint."""
    left_out: tuple[tuple[str, str], ...] = ()
    """(pattern, reason): paths below a checkpoint needed only for further training; ``*`` crosses ``/``."""
    weights: tuple[str, ...] = ()
    """Patterns of paths below a checkpoint: all of its weights. Empty: recognised by names and formats."""
    written_last: str = ""
    """A path below a checkpoint that is written last: a checkpoint without it is incomplete."""
    params: Callable[[Tree, list[str]], dict[str, Any]] = no_params
    """Reads the configuration of the training."""
    logs: tuple[str, ...] = ()
    """Patterns of paths below the run's root: the framework's own scalar logs."""
    refine: Callable[[Tree, RunDraft], RunDraft] = field(default=lambda tree, run: run)
    """Changes the result, if the framework needs a rule of its own."""

    def find(self, tree: Tree) -> list[str]:
        return topmost(
            root
            for folder, below in subfolders(tree).items()
            if (root := root_of(folder, self.folder, self.optional_folder)) is not None
            and self._is_own(tree, root, below)
        )

    def read(self, run: Tree) -> RunDraft:
        result = RunDraft([])
        found: list[tuple[str, Checkpoint]] = []
        base = self.folder if run.has_folder(self.folder) or not self.optional_folder else ""
        for name, real in subfolders(run).get(base, {}).items():
            done = name_when_done(name)
            for pattern, kind in self._kinds:
                if match := pattern.fullmatch(name) or (pattern.fullmatch(done) if done else None):
                    step = match.groupdict().get("step")
                    item = self._checkpoint(run, real, int(step) if step else None)
                    if not pattern.fullmatch(name):
                        item = replace(item, problem=FOLDER_PROBLEM)
                    found.append((kind, item))
                    break
        found = self._compared(found)
        ends = [item for kind, item in found if kind == "final"]
        numbered = [item for kind, item in found if kind == "periodic"]
        numbered.sort(key=lambda item: (-(item.step or 0), bool(item.problem), item.path))
        result.checkpoints = with_companions(run, newest_first([*ends, *numbered]), self.companions)
        best = [replace(item, role="best") for kind, item in found if kind == "best"]
        if best:
            (result.best,) = with_companions(run, best[:1], self.companions)
        if not result.checkpoints and result.best:
            result.warnings.append(
                f"only the best checkpoint {result.best.path} was kept; --checkpoint best takes it"
            )
        result.params = self.params(run, result.warnings)
        result.logs = matching(run, self.logs)
        result = self.refine(run, result)
        ask_about_other_ends(run, result, lambda path: self._described(run, path))
        return result

    def _described(self, run: Tree, path: str) -> Checkpoint:
        """Describe an end that only forks save, in the same way as a numbered checkpoint."""
        alone = RunDraft(with_companions(run, [self._checkpoint(run, path, None)], self.companions))
        return self.refine(run, alone).checkpoints[0]

    @cached_property
    def _kinds(self) -> list[tuple[re.Pattern[str], Role]]:
        named: list[tuple[str, Role]] = [
            (self.final, "final"),
            (self.best, "best"),
            (self.numbered, "periodic"),
        ]
        return [(re.compile(pattern), kind) for pattern, kind in named if pattern]

    def _is_own(self, tree: Tree, root: str, below: dict[str, str]) -> bool:
        if self.beside and not matching(tree.below(root), self.beside):
            return False
        return any(
            any(fnmatchcase(path[len(real) + 1 :], pattern) for pattern in self.inside)
            for name, real in below.items()
            if any(pattern.fullmatch(name) for pattern, _ in self._kinds)
            for path in tree.walk(real)
        )

    def _checkpoint(self, run: Tree, path: str, step: int | None) -> Checkpoint:
        name = path.rpartition("/")[2]
        checkpoint = replace(described(run, Candidate(parent(path), path, name, step)), step=step)
        left = dict(checkpoint.left_out)
        for file in checkpoint.files:
            for pattern, reason in self.left_out:
                if fnmatchcase(file[len(path) + 1 :], pattern):
                    left[file] = reason
        files = tuple(file for file in checkpoint.files if file not in left)
        weights = tuple(file for file in checkpoint.weights if file not in left)
        if self.weights:
            weights = tuple(
                file
                for file in files
                if any(fnmatchcase(file[len(path) + 1 :], pattern) for pattern in self.weights)
            )
        problem = checkpoint.problem
        if self.written_last and not run.has(join(path, self.written_last)):
            problem = problem or f"{self.written_last}, which is written last, is missing"
        problem = problem or _orbax_problem(files, path)
        if not weights:
            problem = problem or "it holds no weights"
        elif self.weights and problem == "it holds no weights":
            problem = ""
        return replace(
            checkpoint, files=files, weights=weights, left_out=tuple(sorted(left.items())), problem=problem
        )

    def _compared(self, found: list[tuple[str, Checkpoint]]) -> list[tuple[str, Checkpoint]]:
        """Mark checkpoints that lack weights which every other one of the run has."""
        inside = {
            item.path: {path[len(item.path) + 1 :] for path in item.weights}
            for kind, item in found
            if kind == "periodic" and not item.problem
        }
        if len(inside) < 3:
            return found
        compared = []
        for kind, item in found:
            missing = (
                missing_companion(inside[item.path], list(inside.values())) if item.path in inside else ""
            )
            if missing:
                problem = f"{missing}, which the run's other checkpoints have, is missing"
                item = replace(item, problem=problem)
            compared.append((kind, item))
        return compared


def _orbax_problem(files: tuple[str, ...], path: str) -> str:
    """Say which Orbax store lacks its own manifest. It is made at the end, from those of the processes."""
    for file in files:
        store, separator, _ = file.partition("/ocdbt.process_")
        if separator and f"{store}/manifest.ocdbt" not in files:
            return f"{store}/manifest.ocdbt"[len(path) + 1 :] + ", which is written last, is missing"
    return ""
