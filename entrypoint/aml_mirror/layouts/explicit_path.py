"""Weights that no layout lists: what a person selects by path, and what an error suggests to select.

A part of a model is never a checkpoint. For ``model-00002-of-00003.safetensors``, the whole set is taken,
with its index. For other kinds of parts (``__0_0.distcp``, an Orbax store, the file of one rank), it is the
folder around them.
"""

from __future__ import annotations

import re
from dataclasses import replace
from shlex import quote

from aml_mirror.core.errors import DataError
from aml_mirror.layouts.adapters import with_base_model
from aml_mirror.layouts.base import Checkpoint
from aml_mirror.layouts.generic.members import joined
from aml_mirror.layouts.generic.name_parts import stated_step
from aml_mirror.layouts.generic.name_words import (
    DATA_FOLDERS,
    DATA_WORDS,
    MODEL_WORDS,
    SHARD,
    end_of,
    stem_of,
    step_of,
    words_of,
)
from aml_mirror.layouts.generic.weight_files import Candidate, described, is_weights, with_companions
from aml_mirror.layouts.run_roots import folders_around
from aml_mirror.layouts.step_folders import names_in, shard_problem, word_set
from aml_mirror.sources.tree import Tree, join, parent

# Values of ``--checkpoint`` that are not paths.
WORDS = ("final", "best", "all")
STEP = re.compile("[0-9]{1,18}")
# One process's part of a file set, and files that mean nothing without the files around them.
_PART = re.compile(r".*\.distcp|manifest\.ocdbt|(?:.*_)?rank_[0-9]+(?:_.*)?\.pt")
# Files beside weights that are loaded as a folder: the configuration of the model or of its training.
_BESIDE = re.compile(r"(?:config|model_config|adapter_config|args)\.(?:json|ya?ml)|.*\.index\.json")
# Names of the parts of a model whose parts are stored separately.
_COMPONENTS = word_set(
    "actor critic encoder decoder vae unet transformer denoiser text vision tower image llm projector mm "
    "backbone head heads adapter action expert embedder tokenizer language value"
)
# How many suggestions are examined.
_LOOKED_AT = 20


def as_option(path: str) -> str:
    """Return the option that selects the checkpoint at a path, even if its name is a keyword or a step."""
    taken = path in WORDS or STEP.fullmatch(path)
    return f"--checkpoint {quote(f'./{path}' if taken else path)}"


def explicit_checkpoint(run: Tree, path: str) -> Checkpoint | None:
    """Describe the weights, or the folder with weights, that a person selected by path; None: there are none.

    The name need not contain a keyword or a number: ``exported/policy.onnx``, or a single ``model.pt``. ``.``
    is the whole run, without the files that only its training needs. Folders that no layout searches, such as
    a cache, are accepted if they are named.
    """
    path = run.resolve(path)
    if not run.has(path) and not run.has_folder(path) and path != ".":
        run = run.everything
        path = run.resolve(path)
    folder, _, name = path.rpartition("/")
    if run.has(path):
        if not is_weights(path):
            return None
        if shard := SHARD.fullmatch(name):
            found = _shards(run, folder, shard)
        elif _PART.fullmatch(name):
            return explicit_checkpoint(run, folder or ".")
        else:
            stem = stem_of(name)
            found = described(run, Candidate(folder, path, stem, step_of(stem), (name,), end=end_of(stem)))
            found = replace(found, step=stated_step(stem))
    elif path and any(is_weights(file) for file in run.walk("" if path == "." else path)):
        found = replace(described(run, Candidate(folder, path, name, step_of(name))), step=stated_step(name))
    else:
        return None
    (found,) = with_companions(run, [replace(found, role="unknown")])
    return with_base_model(run, found)


def _shards(run: Tree, folder: str, named: re.Match[str]) -> Checkpoint:
    members, beside = [], []
    for name in sorted(names_in(run, folder)):
        shard = SHARD.fullmatch(name)
        if shard and shard.group("stem", "count", "suffix") == named.group("stem", "count", "suffix"):
            members.append(name)
        elif name == named["stem"] + named["suffix"] + ".index.json":
            beside.append(join(folder, name))
    found = described(run, Candidate(folder, join(folder, members[0]), named["stem"], None, tuple(members)))
    problem = shard_problem(run, folder)
    if not problem and len(members) < int(named["count"]):
        problem = f"it has only {len(members)} of its {int(named['count'])} shards"
    return replace(found, files=tuple(sorted({*found.files, *beside})), problem=problem)


def to_name(tree: Tree) -> list[str]:
    """Return the paths that a person could select if no layout finds a run, the most likely first.

    The weights closest to the root come first. At the same depth, the order is: complete weights, names of a
    model, names that say "final", and the largest numbers, whether steps or dates. A folder is suggested if
    its weights are in several files or beside their configuration, unless deeper folders contain other
    weights.
    """
    weights = [path for path in tree.files if is_weights(path)]
    own = [path for path in weights if not any(part.lower() in DATA_FOLDERS for part in path.split("/"))]
    weights = own or weights
    if not weights:
        return []
    deeper = {around for path in weights if "/" in path for around in folders_around(parent(path))}
    depth = min(path.count("/") for path in weights)
    shallow: dict[str, list[str]] = {}
    for path in weights:
        if path.count("/") == depth:
            shallow.setdefault(parent(path), []).append(path)
    paths: list[str] = []
    for folder, inside in shallow.items():
        policies = joined(path.rpartition("/")[2] for path in inside)
        whole = folder not in deeper and _is_one(tree, folder, policies)
        paths += [folder or "."] if whole else [join(folder, policy[0]) for policy in policies]
    paths = sorted({_around_part(tree, path) for path in paths})
    ordered = sorted(paths, key=_likely, reverse=True)
    return [path for path in ordered[:_LOOKED_AT] if _is_whole(tree, path)] or ordered[:1]


def _around_part(tree: Tree, path: str) -> str:
    """Return the folder of the model that a folder is a part of (``llm/``, ``unet/``), or else the path
    itself.

    A model saved in parts has its configuration beside the folders of the parts, or all these folders have
    the usual names of parts.
    """
    part = parent(path) if tree.has(path) else path
    if part in ("", "."):
        return path
    around = parent(part)
    beside = {name[:-1] for name in tree.children.get(around, ()) if name.endswith("/")}
    parts = [
        name for name in beside if any(is_weights(file) for file in tree.children.get(join(around, name), ()))
    ]
    configured = bool({"config.json", "model_index.json"} & names_in(tree, around))
    named = all(
        words_of(name) <= _COMPONENTS | MODEL_WORDS and words_of(name) & _COMPONENTS for name in parts
    )
    whole = (configured or named) and len(parts) > 1
    return (around or ".") if whole and step_of(part.rpartition("/")[2]) is None else path


def _is_one(tree: Tree, folder: str, policies: list[tuple[str, ...]]) -> bool:
    """Tell whether all weights in a folder belong to one model, which is loaded as a folder."""
    names = [name for policy in policies for name in policy]
    if any(SHARD.fullmatch(name) or _PART.fullmatch(name) for name in names):
        return True
    if len(policies) == 1:
        return any(_BESIDE.fullmatch(other) for other in names_in(tree, folder))
    parts = [frozenset(words_of(stem_of(policy[0]))) for policy in policies]
    # Names that differ in more than the name of the part belong to several models.
    return all(words <= _COMPONENTS | MODEL_WORDS and words & _COMPONENTS for words in parts) and len(
        set(parts)
    ) == len(parts)


def _likely(path: str) -> tuple[bool, bool, int, tuple[int, ...]]:
    name = path.rpartition("/")[2]
    words = words_of(stem_of(name))
    numbers = tuple(int(number) for number in re.findall(r"[0-9]{1,18}", path))
    return not words & DATA_WORDS, bool(words & MODEL_WORDS), end_of(name), numbers


def _is_whole(tree: Tree, path: str) -> bool:
    try:
        found = explicit_checkpoint(tree, path)
    except DataError:
        return False
    return found is not None and not found.problem and all(tree.size(file) for file in found.weights)
