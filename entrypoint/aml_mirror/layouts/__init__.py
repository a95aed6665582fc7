"""The layouts, in the order in which they are asked, and the search for the one run below a source."""

from __future__ import annotations

import re
from dataclasses import dataclass

from aml_mirror.core.errors import DataError, UsageError
from aml_mirror.formats.registry import weight_suffixes
from aml_mirror.layouts.base import Checkpoint, Layout, Run
from aml_mirror.layouts.diffusion_policy import DiffusionPolicy
from aml_mirror.layouts.explicit_path import explicit_checkpoint, to_name
from aml_mirror.layouts.generic.layout import Generic
from aml_mirror.layouts.generic.name_words import step_of
from aml_mirror.layouts.generic.weight_files import is_weights
from aml_mirror.layouts.groot import Groot
from aml_mirror.layouts.huggingface.layout import HuggingFace
from aml_mirror.layouts.lerobot import LeRobot
from aml_mirror.layouts.lightning import Lightning
from aml_mirror.layouts.openpi import OpenPi
from aml_mirror.layouts.rl_games import RlGames
from aml_mirror.layouts.robomimic import Robomimic
from aml_mirror.layouts.rsl_rl import RslRl
from aml_mirror.layouts.run_evidence import why_no_run
from aml_mirror.layouts.run_roots import folders_around
from aml_mirror.layouts.skrl import Skrl
from aml_mirror.layouts.stable_baselines3.layout import StableBaselines3
from aml_mirror.sources.skipped_folders import around as skipped_around
from aml_mirror.sources.tree import Tree, join, parent
from aml_mirror.sources.wandb_copies import without_copies

__all__ = [
    "LAYOUTS",
    "NAMES",
    "Checkpoint",
    "DetectedRun",
    "Layout",
    "Run",
    "explicit_checkpoint",
    "find_every_run",
    "find_run",
    "find_runs",
    "unknown_beside",
    "why_no_run",
]

# The more special comes first: every GR00T run is a Hugging Face run too. Generic is asked last, and only
# where no other layout found anything.
LAYOUTS: tuple[Layout, ...] = (
    LeRobot(),
    Groot(),
    OpenPi(),
    HuggingFace(),
    RslRl(),
    Skrl(),
    RlGames(),
    Robomimic(),
    DiffusionPolicy(),
    Lightning(),
    StableBaselines3(),
    Generic(),
)
NAMES = tuple(layout.name for layout in LAYOUTS)


@dataclass(frozen=True, slots=True)
class DetectedRun:
    """A run in a source: its root relative to the source (``""``: the source itself) and its layout."""

    root: str
    layout: Layout
    # Whether it was found without W&B's copies, and is to be read so.
    without_copies: bool = False
    # The roots, relative to the source, of other runs inside this one. Nothing in them belongs to it.
    nested: tuple[str, ...] = ()

    def tree(self, whole: Tree) -> Tree:
        """Return the run's own files; ``whole`` is the tree in which it was found."""
        start = len(self.root) + 1 if self.root else 0
        return whole.below(self.root).without(root[start:] for root in self.nested)

    def read(self, tree: Tree) -> Run:
        """Describe the run; ``tree`` is the one in which it was found."""
        seen = without_copies(tree) if self.without_copies else tree
        return self.layout.read(self.tree(seen))


def find_runs(tree: Tree, framework: str = "") -> list[DetectedRun]:
    """Find every run in a tree, sorted by root.

    Each layout is asked in turn. A directory belongs to the first that claims it. What is inside a claimed
    run is part of that run, but for runs of their own: what no checkpoint of the outer run has, and a layout
    claims. What W&B copied is a run only where nothing else is.
    """
    own = without_copies(tree)
    if own is not tree and (detected := _detected(own, framework, True)):
        return detected
    return _detected(tree, framework, False)


def find_every_run(tree: Tree, framework: str = "") -> list[DetectedRun]:
    """As :func:`find_runs`, with the runs of no known framework beside those of a known one.

    A person is asked which of several runs is meant; who asks for all wants them all.
    """
    runs = find_runs(tree, framework)
    known = [run.root for run in runs]
    if framework or not runs or "" in known or any(run.layout.name == Generic.name for run in runs):
        return runs
    rest = (without_copies(tree) if runs[0].without_copies else tree).without(known)
    if not any(map(is_weights, rest.files)):
        return runs
    for root in Generic().find(rest):
        if not root.startswith(".") and "/." not in root:
            inner = tuple(name for name in known if not root or name.startswith(root + "/"))
            runs.append(DetectedRun(root, Generic(), runs[0].without_copies, inner))
    return sorted(runs, key=lambda run: run.root)


def _detected(tree: Tree, framework: str, is_without_copies: bool) -> list[DetectedRun]:
    detected = []
    pending = list(_found(tree, framework).items())
    while pending:
        root, layout = pending.pop()
        inner = _inside(tree, root, layout, framework)
        detected.append(DetectedRun(root, layout, is_without_copies, tuple(sorted(inner))))
        pending += inner.items()
    return sorted(detected, key=lambda run: run.root)


def _inside(tree: Tree, root: str, layout: Layout, framework: str) -> dict[str, Layout]:
    """Find the runs inside another one."""
    if layout.name == Generic.name:
        return {}
    run = tree.below(root)
    # Most runs keep all weights in folders of one kind, and need no second look.
    if (
        len({re.sub("[0-9]+", "0", parent(path)) for path in run.files if path.endswith(weight_suffixes())})
        < 2
    ):
        return {}
    described = layout.read(run)
    claimed: set[str] = set()
    folders: set[str] = set()
    for checkpoint in [*described.checkpoints, *([described.best] if described.best else [])]:
        own = {*checkpoint.files, *(path for path, _ in checkpoint.left_out)}
        claimed |= own
        if checkpoint.path not in own and checkpoint.path not in ("", "."):
            folders.add(checkpoint.path)
            # checkpoints/005000 of checkpoints/005000/pretrained_model.
            folders |= {around for around in folders_around(checkpoint.path) if step_of(around) is not None}
    around = {above for path in claimed for above in folders_around(path)}
    rest = run.without(folders - {""})
    if not any(
        path.endswith(weight_suffixes()) and "/" in path and path not in claimed for path in rest.files
    ):
        return {}
    runs = {
        inner: kind
        for inner, kind in _found(rest.without((), claimed), framework).items()
        if inner and inner not in around and kind.name != Generic.name
    }
    return {
        join(root, inner): kind for inner, kind in runs.items() if not why_no_run(rest.below(inner), kind)
    }


def unknown_beside(tree: Tree, found: DetectedRun) -> list[str]:
    """Return the roots, sorted, of what no known framework wrote and what lies beside the one run of a tree.

    Nobody else would say a word of them: the run of a known framework is taken for all that there is.
    """
    if not found.root or found.layout.name == "generic":
        return []
    seen = without_copies(tree) if found.without_copies else tree
    around = (found.root, *(found.root[:at] for at, char in enumerate(found.root) if char == "/"))
    return [
        root
        for root in Generic().find(seen)
        if root and root not in around and not root.startswith(found.root + "/")
    ]


def _found(tree: Tree, framework: str) -> dict[str, Layout]:
    found: dict[str, Layout] = {}
    for layout in LAYOUTS:
        if framework and layout.name != framework:
            continue
        if layout.name == "generic" and found and not framework:
            break
        for root in layout.find(tree):
            # What is being saved under a hidden name belongs to the run around it.
            if root.startswith(".") or "/." in root:
                continue
            inside = any(root == other or not other or root.startswith(other + "/") for other in found)
            if not inside:
                for other in [other for other in found if not root or other.startswith(root + "/")]:
                    del found[other]
                found[root] = layout
    return found


def find_run(tree: Tree, framework: str = "", path: str = "") -> DetectedRun:
    """Find the one run in a tree.

    Args:
        tree: where to look.
        framework: the only layout to ask; empty: all.
        path: of the checkpoint that is wanted, where that was told so. Where no layout finds a run and
            weights lie there, the tree is one: the person knows what no name tells.

    Raises:
        DataError: there is none.
        UsageError: there is more than one; the message names them.
    """
    found = find_runs(tree, framework)
    where = tree.source.uri
    if not found and path and framework in ("", Generic.name) and explicit_checkpoint(tree, path):
        return DetectedRun("", Generic())
    if not found:
        looked = f"a {framework} run" if framework else "a run of any known framework"
        empty = "" if tree.files else " (the folder holds no file at all)"
        hidden = next((name for name in tree.everything.files if name not in tree.files), "")
        if skipped := skipped_around(hidden):
            empty = f" (nor is one looked for in {skipped}: a folder of that name holds no run of its own)"
        if not tree.files and tree.refused:
            path, why = min(tree.refused.items())
            empty = f" (of all that the folder holds none can be read; {path!r}: {why})"
        shown = to_name(tree) if framework in ("", Generic.name) else ""
        other = f"to mirror weights all the same, name them: --checkpoint {shown!r}; " if shown else ""
        raise DataError(
            f"{where} does not hold {looked}: no checkpoint was found{empty}",
            f"check that the training saved a checkpoint there; {other}known layouts: {', '.join(NAMES)}",
        )
    if len(found) > 1:
        if path and len(named := [item for item in found if _has(item.tree(tree), path)]) == 1:
            return named[0]
        shown = ", ".join(f"{item.root or '.'} ({item.layout.name})" for item in found[:5])
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        outer = next((item.root for item in found if item.nested), None)
        around = (
            f"; {outer or '.'} is around another: --checkpoint PATH names one of its own"
            if outer is not None
            else ""
        )
        raise UsageError(
            f"{where} holds {len(found)} runs: {shown}{more}",
            f"pass the folder of one of them with --source{around}",
        )
    return found[0]


def _has(run: Tree, path: str) -> bool:
    return run.has(run.resolve(path)) or run.has_folder(run.resolve(path))
