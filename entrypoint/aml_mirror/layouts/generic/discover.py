"""Finds the folders and files that are checkpoints of no known framework, by the rules in :mod:`.layout`."""

from __future__ import annotations

import re

from aml_mirror.core.errors import MirrorError
from aml_mirror.layouts.generic.lone import alone, lone
from aml_mirror.layouts.generic.members import joined
from aml_mirror.layouts.generic.name_parts import is_series, tells_apart
from aml_mirror.layouts.generic.name_words import (
    CONTAINERS,
    DATA_FOLDERS,
    DATA_WORDS,
    DATE,
    ENDS,
    MODEL_WORDS,
    RUN_WORDS,
    TEMPORARY,
    TOP,
    TRAINING_FOLDERS,
    end_of,
    is_in_data,
    is_of_checkpoints,
    is_of_data,
    stem_of,
    step_of,
    words_of,
)
from aml_mirror.layouts.generic.training_evidence import are_runs, has_config, has_log, is_run
from aml_mirror.layouts.generic.weight_files import Candidate, is_weights
from aml_mirror.layouts.run_roots import folders_around
from aml_mirror.layouts.step_folders import names_in, subfolders, word_set
from aml_mirror.sources.tree import Tree, join, parent

# cleanrl's --save-model writes NAME.cleanrl_model once, when training ends.
_CLEANRL = ".cleanrl_model"
# PFRL's train_agent saves 1000_checkpoint and, when training ends, 3000_finish.
_FINISH = re.compile(r"[0-9]+_finish")
# How deep inside a folder its weights may be. Deeper if the name says what the folder is (RLlib: five).
_MAX_DEPTH = {False: 3, True: 6}
# No training keeps more numbered files in one folder. A folder with more contains data.
_MAX_FILES = 2000
_MAX_POINTER_BYTES = 256
# Words that a training counts with. People also number their trainings with them: iter1/, iter2/.
_ROUNDS = word_set("iter iters iteration iterations itr epoch epochs update updates")


def root_of(folder: str) -> str:
    """Return the run's root for the folder with the checkpoints: the folder around ``checkpoints/``."""
    parent, _, name = folder.rpartition("/")
    return parent if name.lower() in CONTAINERS else folder


def candidates(tree: Tree) -> list[Candidate]:
    below = subfolders(tree)
    found: list[Candidate] = []
    for folder in sorted(below.keys() | tree.children.keys()):
        if is_in_data(folder):
            continue
        above, _, own = join(tree.root, folder).rpartition("/")
        speaks = bool(words_of(own) & MODEL_WORDS) and not words_of(own) & DATA_WORDS
        # checkpoints/TASK/300.ckpt
        inside = above.rpartition("/")[2].lower() in CONTAINERS and bool(words_of(own) - DATA_WORDS)
        folders = _folders_in(tree, folder, below.get(folder, {}), speaks, is_of_checkpoints(own))
        found += folders
        if all(item.number is None for item in folders):
            found += _files_in(tree, folder, speaks, speaks or inside)
    found = _without_asides(found)
    whole = {item.path for item in found if not item.members}
    around = {above for item in found for above in (item.folder, *folders_around(item.folder))}
    found += [
        item
        for folder in tree.children
        if folder not in around and not is_in_data(folder)
        for item in lone(tree, folder)
    ]
    found = [
        item
        for item in found
        if not any(item.folder == path or item.folder.startswith(path + "/") for path in whole)
    ]
    return found or alone(tree)


def _without_asides(found: list[Candidate]) -> list[Candidate]:
    """Leave out the training's own files if a folder beside theirs has the same steps of the model."""

    def is_aside(item: Candidate) -> bool:
        return item.folder.rpartition("/")[2].lower() in TRAINING_FOLDERS

    beside = {(parent(item.folder), item.number) for item in found if not is_aside(item)}
    return [item for item in found if not is_aside(item) or (parent(item.folder), item.number) not in beside]


def _folders_in(
    tree: Tree, folder: str, below: dict[str, str], speaks: bool, of_checkpoints: bool
) -> list[Candidate]:
    numbered = []
    ends = []
    families: dict[str, bool] = {}
    of_runs: set[str] = set()
    counted: dict[str, list[tuple[int, int | None]]] = {}
    seeds = not speaks and are_runs(tree, folder, below.items())
    for name, real in below.items():
        step, words, end = step_of(name), words_of(name), end_of(name)
        if (
            (step is None and end < 0)
            or words & RUN_WORDS
            or is_of_data(words)
            or name.lower() in DATA_FOLDERS
        ):
            continue
        if DATE.search(name) and not words & MODEL_WORDS:
            continue
        if step is not None and end < 0:
            numbered.append((name, real, step))
        weights = [path[len(real) + 1 :] for path in tree.walk(real) if is_weights(path)]
        named = speaks or bool(words & MODEL_WORDS or _FINISH.fullmatch(name))
        weights = [path for path in weights if path.count("/") < _MAX_DEPTH[named]]
        # walker_agent/1 may be a seed, but checkpoints/1 is a checkpoint, whatever it contains.
        if speaks and not of_checkpoints and name.isdecimal() and is_run(tree, real):
            continue
        if not named and (seeds or is_run(tree, real) or _says_more(tree, real)):
            continue
        if not speaks and words & _ROUNDS and not is_of_checkpoints(name) and _is_round(tree, real, weights):
            continue
        inside = [stem_of(file) for file in names_in(tree, real) if is_weights(file)]
        if _are_policies(inside):
            of_runs.add(_family(name))
            continue
        if step is not None and len(inside) == 1:
            counted.setdefault(_family(name), []).append((step, step_of(inside[0])))
        # A folder checkpoints/ inside a folder that is not itself named like one: the outer folder is a run.
        if not named and any(part.lower() in CONTAINERS for path in weights for part in path.split("/")[:-1]):
            continue
        if named:
            # The state of the model's data loader, stored beside the model under a name of data.
            weights = [path for path in weights if not words_of(stem_of(path)) & DATA_WORDS]
        stems = {word for path in weights for word in words_of(stem_of(path))}
        # Only a training writes these two.
        if any(path.endswith(("manifest.ocdbt", ".distcp")) for path in weights):
            stems = {"checkpoint"}
        if not weights or stems & DATA_WORDS:
            continue
        if end >= 0:
            if named or stems & MODEL_WORDS:
                temporary = bool(TEMPORARY.search(name.lower()))
                ends.append((named, Candidate(folder, real, name, step, (), temporary, end)))
            continue
        family = _family(name)
        # Only the file's name mentions a model. Then the number must be the whole name, or there must be
        # several.
        if named or (stems & MODEL_WORDS and (name.isdecimal() or family in families)):
            families[family] = True
        elif stems & MODEL_WORDS:
            families[family] = False
    of_runs.update(family for family, pairs in counted.items() if _disagree(pairs))
    pointed = [] if any(families.values()) else _pointed(tree, folder, below)
    numbers = [
        (name, real, step)
        for name, real, step in numbered
        if _family(name) not in of_runs
        if families.get(_family(name)) or (TEMPORARY.search(name.lower()) and any(families.values()))
    ]
    several = {real: each for name, real, step in numbers if (each := _of_several(tree, folder, real, step))}
    # A folder of the same family without weights is a checkpoint that lost them. That must be reported.
    return (
        pointed
        + [item for each in several.values() for item in each]
        + [
            Candidate(folder, real, name, step, (), bool(TEMPORARY.search(name.lower())))
            for name, real, step in numbers
            if real not in several
        ]
        + [item for named, item in ends if named or any(families.values()) or _is_alone(tree, item)]
    )


def _are_policies(stems: list[str]) -> bool:
    """Tell whether the weights in a folder are several policies. Then the folder is a run, not a checkpoint.

    They are several policies if they form a series, or if one of them is named as the end, beside others.
    """
    ends = [stem for stem in stems if end_of(stem) >= 0]
    return is_series(stems) or 0 < len(ends) < len(stems)


def _disagree(pairs: list[tuple[int, int | None]]) -> bool:
    """Tell whether the numbers of folders and of the file in each contradict: ``1/pi-209``, ``2/pi-193``."""
    inside = [number for _, number in sorted(pairs, key=lambda pair: pair[0]) if number is not None]
    return len(inside) == len(pairs) > 1 and inside != sorted(inside)


def _is_alone(tree: Tree, end: Candidate) -> bool:
    """Tell whether a folder named as the end contains all weights that exist: pick_1_final/."""
    return all(path.startswith(end.path + "/") for path in tree.files if is_weights(path))


def _of_several(tree: Tree, folder: str, numbered: str, step: int) -> list[Candidate]:
    """Return the policies in a numbered folder if several trainings saved them: ``step_100/seed_0.pt``."""
    names = sorted(file for file in names_in(tree, numbered) if is_weights(file))
    if parent(numbered) != folder or not tells_apart([stem_of(file) for file in names]):
        return []
    own = numbered.rpartition("/")[2]
    return [
        Candidate(
            folder,
            join(numbered, members[0]),
            f"{own}_{stem_of(members[0])}",
            step,
            tuple(f"{own}/{member}" for member in members),
        )
        for members in joined(names)
    ]


def _pointed(tree: Tree, folder: str, below: dict[str, str]) -> list[Candidate]:
    """Find the target of a file ``latest``, and folders with similar names (DreamerV3: times)."""
    if "latest" not in names_in(tree, folder) or tree.size(join(folder, "latest")) > _MAX_POINTER_BYTES:
        return []
    try:
        latest = tree.read_text(join(folder, "latest")).strip()
    except MirrorError:
        return []
    found = []
    for name, real in below.items() if latest in below else ():
        if _family(name) == _family(latest):
            depths = [path[len(real) + 1 :].count("/") for path in tree.walk(real) if is_weights(path)]
            if depths and min(depths) < _MAX_DEPTH[False]:
                end = 0 if name == latest else -1
                found.append(Candidate(folder, real, name, None, end=end, is_pointed=True))
    return found


def _is_round(tree: Tree, folder: str, weights: list[str]) -> bool:
    """Tell whether a numbered folder such as ``iter1`` is a training of its own, not one save of a training.

    It is, if it contains a log, a folder of checkpoints, or a model that is named as the end.
    """
    inside = {part.lower() for path in weights for part in path.split("/")[:-1]}
    return bool(inside & CONTAINERS) or is_run(tree, folder) or _has_end(tree, folder)


def _says_more(tree: Tree, folder: str) -> bool:
    """Tell whether files in a folder have their own numbers, or are named as the end."""
    files = _files_in(tree, folder, False)
    return len({item.number for item in files}) > 1 or _has_end(tree, folder)


def _has_end(tree: Tree, folder: str) -> bool:
    # If the folder around belongs to a training, so does the model_final.pt that it writes each time.
    around = parent(folder)
    ends = any(item.end >= 0 for item in _files_in(tree, folder, False))
    return ends and not (has_config(tree, around) or has_log(tree, around))


def _family(name: str) -> str:
    return re.sub(r"[0-9]+", "0", name)


def _files_in(tree: Tree, folder: str, speaks: bool, numbers: bool = False) -> list[Candidate]:
    """Find files. ``numbers``: a file whose name is only a number is judged by its folder."""
    names: list[str] = []
    ends: list[str] = []
    for name in names_in(tree, folder):
        stem = stem_of(name)
        words = words_of(stem)
        is_cleanrl = name.endswith(_CLEANRL)
        if (step_of(stem) is None and end_of(stem) < 0 and not is_cleanrl) or not is_weights(name):
            continue
        if words & DATA_WORDS or re.search(r"-of-[0-9]+", stem) or TOP.search(stem):
            continue
        is_named = words & MODEL_WORDS or stem.lower() in ENDS or is_cleanrl
        if speaks or is_named or (numbers and stem.isdecimal()):
            names.append(name)
        elif end_of(stem) >= 0:
            ends.append(name)
    # A file named as the end needs no word of a model if model files beside it contain all of its words:
    # go2_ppo_final.pt.
    known = frozenset(ENDS).union(*(words_of(stem_of(name)) for name in names))
    names += [name for name in ends if names and words_of(stem_of(name)) <= known]
    if len(names) > _MAX_FILES:
        return []
    found = []
    for members in joined(names):
        stem = stem_of(members[0])
        end = end_of(stem)
        if members[0].endswith(_CLEANRL) and step_of(stem) is None:
            end = len(ENDS) - 1
        temporary = bool(TEMPORARY.search(stem.lower()))
        found.append(
            Candidate(folder, join(folder, members[0]), stem, step_of(stem), members, temporary, end)
        )
    return found
