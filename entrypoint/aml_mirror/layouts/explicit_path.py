"""Weights that no layout lists: what a person names by its path, and what an error proposes to name.

A part of a model is never a checkpoint. Of ``model-00002-of-00003.safetensors`` the whole set is taken, with
its index; of what has other parts (``__0_0.distcp``, an Orbax store, one rank's file) the folder around it.
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

# What ``--checkpoint`` takes beside paths.
WORDS = ("final", "best", "all")
STEP = re.compile("[0-9]{1,18}")
# One process's part of what several wrote, and what means nothing without the files around it.
_PART = re.compile(r".*\.distcp|manifest\.ocdbt|(?:.*_)?rank_[0-9]+(?:_.*)?\.pt")
# What is beside weights that are loaded by their folder: a model's configuration, or that of its training.
_BESIDE = re.compile(r"(?:config|model_config|adapter_config|args)\.(?:json|ya?ml)|.*\.index\.json")
# What the parts of one model are called that are stored apart.
_COMPONENTS = word_set(
    "actor critic encoder decoder vae unet transformer denoiser text vision tower image llm projector mm "
    "backbone head heads adapter action expert embedder tokenizer language value"
)
# So many proposals are looked into.
_LOOKED_AT = 20


def as_option(path: str) -> str:
    """Return the option that takes the checkpoint at a path, also where its name is a word or a step."""
    taken = path in WORDS or STEP.fullmatch(path)
    return f"--checkpoint {quote(f'./{path}' if taken else path)}"


def explicit_checkpoint(run: Tree, path: str) -> Checkpoint | None:
    """Describe what a person named by its path: weights, or a folder with weights; None: it is neither.

    No name has to say what it is, and no number is needed: ``exported/policy.onnx``, a lone ``model.pt``.
    ``.`` is the whole run but for what only its training needs. What no layout looks into, a cache above all,
    is taken where it is named.
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
    """Return the paths that a person may name where no layout finds a run, the likeliest first.

    The shallowest weights come first; of those at one depth what is whole, what by its name is a model, what
    says that it is the end, and the largest numbers, be they steps or dates. A folder is proposed for what
    is stored in several files, or beside its configuration, unless other weights are deeper in it.
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
    """Return the folder of the model that a folder is a part of (``llm/``, ``unet/``), else the path itself.

    The configuration of a model saved in parts is beside the folders of the parts, or all of them are called
    as parts are.
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
    """Tell whether all weights of a folder are of one model, which is loaded by the folder."""
    names = [name for policy in policies for name in policy]
    if any(SHARD.fullmatch(name) or _PART.fullmatch(name) for name in names):
        return True
    if len(policies) == 1:
        return any(_BESIDE.fullmatch(other) for other in names_in(tree, folder))
    parts = [frozenset(words_of(stem_of(policy[0]))) for policy in policies]
    # Names that differ in anything but the part of a model are of several models.
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
