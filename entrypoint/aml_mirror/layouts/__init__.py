"""Finds the runs below a source, using every layout that the program knows."""

from __future__ import annotations

from dataclasses import dataclass

from aml_mirror.core.errors import DataError, MirrorError, SeveralRuns, UsageError
from aml_mirror.core.run import Run
from aml_mirror.layouts.adapters import with_base_model
from aml_mirror.layouts.base import Checkpoint, Layout, RunDraft
from aml_mirror.layouts.explicit_path import as_option, explicit_checkpoint, to_name
from aml_mirror.layouts.generic.layout import Generic
from aml_mirror.layouts.generic.name_words import DATA_FOLDERS
from aml_mirror.layouts.generic.weight_files import is_weights
from aml_mirror.layouts.known_layouts import known_layouts, layout_names
from aml_mirror.layouts.nested import nested_runs
from aml_mirror.layouts.own_configurations import ask_about_configurations
from aml_mirror.layouts.rivals import ask_about_rivals
from aml_mirror.layouts.run_evidence import why_no_run
from aml_mirror.layouts.unlisted_weights import warn_of_later_best, warn_of_unlisted_weights
from aml_mirror.sources.skipped_folders import around as skipped_around
from aml_mirror.sources.tree import Tree, join
from aml_mirror.sources.wandb_copies import without_copies

__all__ = [
    "Checkpoint",
    "DetectedRun",
    "Layout",
    "Run",
    "RunDraft",
    "as_option",
    "explicit_checkpoint",
    "find_every_run",
    "find_run",
    "find_runs",
    "known_layouts",
    "layout_names",
    "unknown_beside",
    "why_no_run",
    "why_none_was_told",
]


@dataclass(frozen=True, slots=True)
class DetectedRun:
    """A run in a source: its layout, and its root relative to the source (``""`` is the source itself)."""

    root: str
    layout: Layout
    # Whether the run was found with W&B's copies left out. It is then read without them, too.
    without_copies: bool = False
    # The roots, relative to the source, of other runs inside this one. Their files do not belong to this run.
    nested: tuple[str, ...] = ()

    def tree(self, whole: Tree) -> Tree:
        """Return the run's own files. ``whole`` is the tree in which the run was found."""
        start = len(self.root) + 1 if self.root else 0
        return whole.below(self.root).without(root[start:] for root in self.nested)

    def read(self, tree: Tree) -> Run:
        """Describe the run. ``tree`` is the tree in which it was found."""
        files = self.tree(without_copies(tree) if self.without_copies else tree)
        draft = self.layout.read(files)
        if not getattr(self.layout, "orders_equal_steps", False):
            ask_about_rivals(files, draft)
        ask_about_configurations(files, draft)
        warn_of_unlisted_weights(files, draft)
        warn_of_later_best(draft)
        draft.checkpoints = [with_base_model(files, item) for item in draft.checkpoints]
        draft.best = with_base_model(files, draft.best) if draft.best else None
        return draft.finished()


def find_runs(tree: Tree, framework: str = "") -> list[DetectedRun]:
    """Find every run in a tree, sorted by root.

    Each layout is asked in turn, and a directory belongs to the first layout that claims it. Everything
    inside a claimed run is part of that run, unless a layout recognises it as a run of its own: see
    :mod:`aml_mirror.layouts.nested`. W&B's copies count as a run only if there is no other run.
    """
    own = without_copies(tree)
    if own is not tree and (runs := _detected(own, framework, True)):
        return runs
    return _detected(tree, framework, False)


def find_every_run(tree: Tree, framework: str = "") -> list[DetectedRun]:
    """Like :func:`find_runs`, but also return runs of unknown frameworks beside runs of known ones.

    A command for one run asks the person to choose between several. A backfill wants all of them.
    """
    runs = find_runs(tree, framework)
    known = [run.root for run in runs]
    # Where the generic layout found a run, it has already seen everything, unless that run is inside another.
    outer = [run for run in runs if not any(_is_inside(run.root, root) for root in known)]
    if framework or not runs or "" in known or any(run.layout.name == Generic.name for run in outer):
        return runs
    rest = (without_copies(tree) if runs[0].without_copies else tree).without(known)
    if not any(map(is_weights, rest.files)):
        return runs
    for root in Generic().find(rest):
        if not _is_hidden(root):
            inner = tuple(name for name in known if _is_inside(name, root))
            runs.append(DetectedRun(root, Generic(), runs[0].without_copies, inner))
    return sorted(runs, key=lambda run: run.root)


def _detected(tree: Tree, framework: str, is_without_copies: bool) -> list[DetectedRun]:
    roots = _with_nested(tree, framework)
    return [
        DetectedRun(
            root, layout, is_without_copies, tuple(name for name in sorted(roots) if _is_inside(name, root))
        )
        for root, layout in sorted(roots.items())
    ]


def _is_hidden(root: str) -> bool:
    # A save in progress under a hidden name belongs to the run around it.
    return root.startswith(".") or "/." in root


def unknown_beside(tree: Tree, found: DetectedRun) -> list[str]:
    """Return the sorted roots of what no known framework wrote, beside the only run of a known framework.

    Without this, nobody would notice them: the run of the known framework would pass for the whole folder.
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


def _with_nested(tree: Tree, framework: str) -> dict[str, Layout]:
    found = _found(tree, framework)
    asked = [item for item in known_layouts() if framework in ("", item.name)]
    pending = list(found.items())
    while pending:
        root, layout = pending.pop()
        if layout.name != Generic.name:
            inner = nested_runs(tree, root, layout, asked)
            pending += [(name, other) for name, other in inner.items() if name not in found]
            found |= inner
    return found


def _found(tree: Tree, framework: str) -> dict[str, Layout]:
    found: dict[str, Layout] = {}
    for layout in known_layouts():
        if framework and layout.name != framework:
            continue
        if layout.name == "generic" and found and not framework:
            break
        for root in layout.find(tree):
            if _is_hidden(root):
                continue
            inside = any(root == other or not other or root.startswith(other + "/") for other in found)
            if not inside:
                for other in [other for other in found if not root or other.startswith(root + "/")]:
                    del found[other]
                found[root] = layout
    return found


def why_none_was_told(tree: Tree) -> MirrorError | None:
    """Return why no run was found in a tree that may contain one: its weights cannot be read."""
    unreadable = {
        path: error
        for path, error in tree.unreadable().items()
        if is_weights(path) and not any(part.lower() in DATA_FOLDERS for part in path.split("/"))
    }
    if not unreadable:
        return None
    error = unreadable[min(unreadable)]
    others = f", nor can {len(unreadable) - 1} others" if len(unreadable) > 1 else ""
    where = tree.source.uri
    return type(error)(f"no run could be recognised in {where}: {error.message}{others}", error.hint)


def find_run(tree: Tree, framework: str = "", path: str = "") -> DetectedRun:
    """Find the only run in a tree.

    Args:
        tree: where to look.
        framework: the only layout to ask; empty: ask all.
        path: the path of the requested checkpoint, if one was given. If weights are stored there and no
            layout finds a run, the whole tree is taken as the run, because the person knows more than the
            names say.

    Raises:
        DataError: there is no run.
        UsageError: there are several runs; the message lists them. SeveralRuns if none is inside another.
    """
    found = find_runs(tree, framework)
    where = tree.source.uri
    if not found and path and framework in ("", Generic.name) and explicit_checkpoint(tree, path):
        return DetectedRun("", Generic())
    if not found and (failure := why_none_was_told(tree)):
        raise failure
    if not found:
        looked = f"a {framework} run" if framework else "a run of any known framework"
        empty = "" if tree.files else " (the folder is empty)"
        hidden = next((name for name in tree.everything.files if name not in tree.files), "")
        if skipped := skipped_around(hidden):
            empty = f" ({skipped} was not searched: a folder with that name does not contain a run)"
        if not tree.files and tree.refused:
            path, why = min(tree.refused.items())
            empty = f" (none of its files can be read; {path!r}: {why})"
        models = to_name(tree) if framework in ("", Generic.name) else []
        if len(models) > 1:
            raise UsageError(
                f"{where} does not hold {looked}, but several models, of which no name tells which is the "
                f"policy: {', '.join(models)}",
                "pass one of: " + ", ".join(map(as_option, models)),
            )
        other = "".join(
            f"to mirror weights all the same, name them: --checkpoint {one!r}; " for one in models
        )
        raise DataError(
            f"{where} does not hold {looked}: no checkpoint was found{empty}",
            f"check that the training saved a checkpoint there; {other}known layouts: "
            + ", ".join(layout_names()),
        )
    if len(found) == 1 and not framework:
        found = [*_around(tree, found[0]), *found]
    if len(found) > 1 and path and (meant := _with_path(tree, found, path)):
        return meant
    if len(found) > 1:
        shown = ", ".join(f"{item.root or '.'} ({item.layout.name})" for item in found[:5])
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        is_nested = any(not item.root or item.nested for item in found)
        raise (UsageError if is_nested else SeveralRuns)(
            f"{where} holds {len(found)} runs: {shown}{more}",
            "pass the folder of one of them with --source, or mirror all of them with: aml-mirror backfill"
            + _outer(tree, found),
        )
    return found[0]


def _around(tree: Tree, found: DetectedRun) -> list[DetectedRun]:
    """Return the run of an unknown framework around the only run of a known framework, if any."""
    if not found.root or found.layout.name == Generic.name:
        return []
    seen = without_copies(tree) if found.without_copies else tree
    rest = seen.without([found.root])
    if not any(map(is_weights, rest.files)):
        return []
    return [
        DetectedRun(root, Generic(), found.without_copies, (found.root, *found.nested))
        for root in Generic().find(rest)
        if _is_inside(found.root, root) and not _is_hidden(root)
    ]


def _with_path(tree: Tree, found: list[DetectedRun], path: str) -> DetectedRun | None:
    """Return the run that a path belongs to, out of an outer run and the runs inside it."""
    roots = [item.root for item in found]
    owners = [
        item
        for item in found
        for whole in [join(item.root, path)]
        if tree.has(whole) or tree.has_folder(whole)
        if not any(
            _is_inside(root, item.root) and (whole == root or _is_inside(whole, root)) for root in roots
        )
    ]
    outer = [
        item for item in owners if all(_is_inside(other.root, item.root) or other is item for other in owners)
    ]
    return outer[0] if outer else None


def _is_inside(path: str, folder: str) -> bool:
    return path != folder and (not folder or path.startswith(folder + "/"))


def _outer(tree: Tree, found: list[DetectedRun]) -> str:
    """Explain how to select a run that contains other runs, because its folder includes them."""
    for item in found:
        if item.nested:
            checkpoints = item.read(tree).checkpoints
            shown = checkpoints[0].path if checkpoints else "PATH"
            return f"; for {item.root or '.'} itself name its checkpoint: {as_option(shown)}"
    return ""
