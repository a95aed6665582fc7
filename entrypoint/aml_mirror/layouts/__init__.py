"""The layouts, in the order in which they are asked, and the search for the one run below a source."""

from __future__ import annotations

from dataclasses import dataclass

from aml_mirror.errors import DataError, UsageError
from aml_mirror.layouts.base import Checkpoint, Layout, Run
from aml_mirror.layouts.diffusion_policy import DiffusionPolicy
from aml_mirror.layouts.generic import Generic
from aml_mirror.layouts.groot import Groot
from aml_mirror.layouts.huggingface import HuggingFace
from aml_mirror.layouts.lerobot import LeRobot
from aml_mirror.layouts.lightning import Lightning
from aml_mirror.layouts.openpi import OpenPi
from aml_mirror.layouts.rl_games import RlGames
from aml_mirror.layouts.robomimic import Robomimic
from aml_mirror.layouts.rsl_rl import RslRl
from aml_mirror.layouts.skrl import Skrl
from aml_mirror.layouts.stable_baselines3 import StableBaselines3
from aml_mirror.sources.tree import Tree

__all__ = ["LAYOUTS", "NAMES", "Checkpoint", "Found", "Layout", "Run", "find_run", "find_runs"]

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
class Found:
    """A run in a source: its root relative to the source (``""``: the source itself) and its layout."""

    root: str
    layout: Layout


def find_runs(tree: Tree, framework: str = "") -> list[Found]:
    """Find every run in a tree, sorted by root.

    Each layout is asked in turn. A directory belongs to the first that claims it, and what lies inside a
    claimed run is part of that run.
    """
    found: dict[str, Layout] = {}
    for layout in LAYOUTS:
        if framework and layout.name != framework:
            continue
        if layout.name == "generic" and found and not framework:
            break
        for root in layout.find(tree):
            inside = any(root == other or not other or root.startswith(other + "/") for other in found)
            if not inside:
                for other in [other for other in found if not root or other.startswith(root + "/")]:
                    del found[other]
                found[root] = layout
    return [Found(root, found[root]) for root in sorted(found)]


def find_run(tree: Tree, framework: str = "") -> Found:
    """Find the one run in a tree.

    Raises:
        DataError: there is none.
        UsageError: there is more than one; the message names them.
    """
    found = find_runs(tree, framework)
    where = tree.source.uri
    if not found:
        looked = f"a {framework} run" if framework else "a run of any known framework"
        empty = "" if tree.files else " (the folder holds no file at all)"
        raise DataError(
            f"{where} does not hold {looked}: no checkpoint was found{empty}",
            "check that the training saved a checkpoint there; known layouts: " + ", ".join(NAMES),
        )
    if len(found) > 1:
        shown = ", ".join(f"{item.root or '.'} ({item.layout.name})" for item in found[:5])
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise UsageError(
            f"{where} holds {len(found)} runs: {shown}{more}",
            "pass the folder of one of them with --source",
        )
    return found[0]
