"""What belongs to a checkpoint of no known framework: its weights, its companions, and what is left out."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from aml_mirror.formats.registry import Weights, pattern_of, suffixes_of, weight_suffixes
from aml_mirror.layouts.base import Checkpoint
from aml_mirror.layouts.generic.name_words import (
    CONTAINERS,
    MODEL_WORDS,
    end_of,
    stem_of,
    step_of,
    suffix_of,
    words_of,
)
from aml_mirror.layouts.generic.sharded import is_zero, parts_problem, stores_of
from aml_mirror.layouts.step_folders import names_in
from aml_mirror.sources.tree import Tree, join, parent

# Formats that may hold any state that a training saves.
_SAVED = pattern_of(weight_suffixes(Weights.ALWAYS, Weights.OFTEN, Weights.NAMED))
# Without a suffix: flax.training.checkpoints writes msgpack this way.
_WEIGHTS = re.compile(
    rf".+{pattern_of(weight_suffixes(Weights.ALWAYS))}|checkpoint_[0-9]+|"
    r"(?:.*[-_.])?(?:model|weights|adapter)(?:[-_.].*)?"
    rf"{pattern_of((*weight_suffixes(Weights.OFTEN), '.pkl'))}|"
    r"(?:.*[-_.])?(?:params|policy|agent|actor|(?:module|policy)_state|checkpoint|ckpt)(?:[-_.].*)?\.(?:npz|pkl)"
)
_TRAINING_ONLY: tuple[tuple[re.Pattern[str], str], ...] = (
    # Megatron's model_optim_rng.pt contains the model too.
    (
        re.compile(
            r"(?!model_optim_rng\.)(?:.*[-_.])?(?:optim|optimizers?|opt(?:imizer)?_state)(?:[-_.].*)?"
        ),
        "optimizer state",
    ),
    (re.compile(rf"opt(?:[-_]?[0-9]+)?{_SAVED}"), "optimizer state"),
    (
        re.compile(rf"(?:.*[-_.])?(?:lr_)?scheduler(?:[-_.].*)?{_SAVED}"),
        "scheduler state",
    ),
    (re.compile(rf"(?:grad_)?scaler(?:[-_.].*)?{_SAVED}"), "gradient scaler state"),
    (re.compile(r"(?:rng|random)[-_]?states?(?:[-_.].*)?"), "random generator state"),
    (
        re.compile(
            r"(?:training|trainer|train)[-_]state(?:[-_.].*)?|training_args\.bin|global_step[0-9]+"
            r"|extra_state_world_size_.*\.pt"
        ),
        "state of the training",
    ),
    (re.compile(r"(?:sampler|dl_state_dict)(?:_[0-9]+)?\.bin|data\.pt"), "data loader state"),
    (re.compile(r"(?:.*[-_.])?replay[-_]?buffer(?:[-_.].*)?|replay\.pkl"), "replay buffer"),
    (re.compile(r"events\.out\.tfevents\..*|.*\.log|wandb"), "log of the training"),
)
# Formats of a whole model.
_WHOLE = tuple(
    suffix for suffix in suffixes_of("safetensors", "torch.save", "torch.save as .bin") if suffix != ".ckpt"
)
# Names that save_pretrained, accelerate and FSDP give only to a whole model.
_SAVED_WHOLE = re.compile(
    r"(?:(?:pytorch_)?model(?:-[0-9]+-of-[0-9]+)?\.(?:safetensors|bin)|full_weights\.pt)"
)
_ASIDE = re.compile(rf"(?:.*/)?(?:scheduler|trainer)/[^/]*(?:\.metadata|{_SAVED})")
# Statistics for scaling observations and actions. Without them a policy cannot act.
_COMPANIONS = re.compile(
    r"(?:(?:dataset|data|norm|normalization|obs|observation|action|state)_(?:stats|statistics|rms|normalizer)"
    rf"|normalizer|normalization)(?:\.(?:json|ya?ml|npy)|{_SAVED})"
)
_STATISTICS_OF_ONE = re.compile(
    r"(?<![a-z])(?:(?:obs?|observation|state|action|act|norm|dataset|data)[-_]?(?:rms|stats|statistics|normalizer)"
    r"|normalizer|normalization|vec_?norm(?:alize)?|running_mean_std)(?![a-z]).*"
    rf"(?:\.(?:json|ya?ml|npy)|{pattern_of(suffixes_of('torch.save', 'numpy archive', 'pickle'))})"
)
# Configuration that the framework's loader reads from the run's folder: Octo's load_pretrained (config.json,
# example_batch.msgpack), prismatic's of OpenVLA (config.json), starVLA's (config.yaml).
_LOADED_WITH = re.compile(r"config\.(?:json|ya?ml)|example_batch\.msgpack")
# Words that only name a number.
_COUNTING = frozenset(
    ("step", "steps", "iter", "iters", "iteration", "itr", "epoch", "epochs", "update", "updates", "ep", "it")
)
# The kinds of file beside a numbered weight file that belong to it.
_SIDECARS = (".json", ".yaml", ".yml", ".onnx.data", ".safetensors.index.json")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A directory or a set of files that may be a checkpoint. ``folder`` is the folder around it.

    ``number`` only says that the name contains a number. :mod:`.families` decides what it counts. ``end`` is
    the index in ``ENDS`` of the word by which the name says that it is the end.
    """

    folder: str
    path: str
    name: str
    """The name of the folder, or of the file without its suffix. For a link, the link's name."""
    number: int | None
    members: tuple[str, ...] = ()
    temporary: bool = False
    end: int = -1
    is_pointed: bool = False
    """Whether a file beside it says which of its kind is the newest. ``end`` is 0 for that one."""
    is_best: bool = False
    """Whether it was kept for its score, and nothing else was kept."""


def is_weights(path: str) -> bool:
    """Tell whether a file has a format of weights, and its name does not say that it is something else."""
    name = path.rpartition("/")[2].lower()
    return bool(_WEIGHTS.fullmatch(name)) and not _why_left(name)


def is_statistics(name: str) -> bool:
    """Tell whether a file's name says that it contains statistics for scaling observations and actions."""
    return bool(_COMPANIONS.fullmatch(name.lower()))


def _why_left(inside: str) -> str:
    for part in inside.lower().split("/"):
        for pattern, reason in _TRAINING_ONLY:
            if pattern.fullmatch(part):
                return reason
    return ""


def _folder(run: Tree, candidate: Candidate) -> Checkpoint:
    path = candidate.path
    prefix = "" if path == "." else path + "/"
    files, left = _divided(list(run.walk(prefix[:-1])), prefix)
    stores = stores_of(files)
    # The arrays of an Orbax store are in d/, below the store or below the store of one process.
    weights = [
        file
        for file in files
        if is_weights(file)
        or is_zero(file)
        or ("/d/" in file and any(file.startswith(store + "/") for store in stores))
    ]
    repeated = _repeated(files, weights)
    files = [file for file in files if file not in repeated]
    weights = [file for file in weights if file not in repeated]
    left += [(file, "repeats the weights, with the state of the training") for file in repeated]
    problem = parts_problem(run, files, prefix)
    if candidate.temporary:
        problem = "it is a temporary folder: the save was not finished"
    if not weights:
        problem = problem or "it holds no weights"
    return Checkpoint(path, None, "periodic", tuple(files), tuple(weights), tuple(sorted(left)), problem)


def _repeated(files: list[str], weights: list[str]) -> set[str]:
    """Return the files of torch.distributed and DeepSpeed beside a complete model."""
    saved = {parent(file) for file in weights if _SAVED_WHOLE.fullmatch(file.rpartition("/")[2])}
    zero = {
        file for file in files if is_zero(file) and (parent(file) in saved or parent(parent(file)) in saved)
    }
    return zero | _distributed(files, weights)


def _distributed(files: list[str], weights: list[str]) -> set[str]:
    folders = {parent(file) for file in files if file.endswith(".distcp")}
    saved = {parent(file) for file in weights if _SAVED_WHOLE.fullmatch(file.rpartition("/")[2])}
    whole = [file for file in weights if file.endswith(_WHOLE) and parent(file) not in folders]
    if not whole:
        # If a folder contains both the shards and the model, the model stays.
        shards = (".distcp", "/.metadata")
        return {file for file in files if parent(file) in folders & saved and file.endswith(shards)}
    return {file for file in files if parent(file) in folders}


def _divided(paths: list[str], prefix: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Divide the files of a folder into those that inference needs and the others."""
    reasons = {path: _why_left(path.removeprefix(prefix)) for path in paths}
    # Beside model/ these two folders contain state. A pipeline of diffusers keeps a configuration in
    # scheduler/.
    aside = {path for path in paths if not reasons[path] and _ASIDE.fullmatch(path.removeprefix(prefix))}
    held = [path for path in paths if not reasons[path] and is_weights(path) and path not in aside]
    if held:
        reasons.update(dict.fromkeys(aside, "state of the training"))
    # If only DeepSpeed's files hold the weights, both kinds are needed to build a model.
    if all(is_zero(path) or is_statistics(path.rpartition("/")[2]) for path in held) and any(
        is_zero(path, "model") for path in paths
    ):
        reasons.update({path: "" for path in paths if is_zero(path)})
    return (
        [path for path in paths if not reasons[path]],
        [(path, reason) for path, reason in reasons.items() if reason],
    )


def _file(run: Tree, candidate: Candidate) -> Checkpoint:
    names = names_in(run, candidate.folder)
    files = [join(candidate.folder, name) for name in candidate.members]
    for name in candidate.members:
        stem = stem_of(name)
        files += [
            join(candidate.folder, stem + suffix)
            for suffix in _SIDECARS
            if stem + suffix in names and stem + suffix not in candidate.members
        ]
    # Statistics saved with each policy, in a format that holds no weights: vecnormalize_500.pkl.
    files += [
        join(candidate.folder, name)
        for name in sorted(names)
        if name not in candidate.members
        and _STATISTICS_OF_ONE.search(name.lower())
        and not _why_left(name)
        and (candidate.number is not None or candidate.end >= 0)
        and _says_the_same(stem_of(name), candidate)
    ]
    left = [
        (join(candidate.folder, name), reason)
        for name in sorted(names)
        if (reason := _why_left(name)) and _says_the_same(stem_of(name), candidate)
    ]
    weights = tuple(sorted(join(candidate.folder, name) for name in candidate.members))
    return Checkpoint(
        candidate.path,
        None,
        "periodic",
        tuple(sorted(files)),
        weights,
        tuple(left),
        "it is a temporary file: the save was not finished" if candidate.temporary else "",
    )


def _says_the_same(stem: str, candidate: Candidate) -> bool:
    number = step_of(stem)
    return number == candidate.number and end_of(stem) == candidate.end


def described(run: Tree, candidate: Candidate) -> Checkpoint:
    """Describe the checkpoint of a candidate, without its step."""
    return _file(run, candidate) if candidate.members else _folder(run, candidate)


def best_beside(run: Tree, newest: Checkpoint) -> Checkpoint | None:
    """Return the only file beside the newest whose name adds nothing but "best"; else None."""
    if newest.path not in newest.weights:
        return None
    folder, _, own = newest.path.rpartition("/")
    words = words_of(stem_of(own)) | MODEL_WORDS | {"best"}
    suffix = suffix_of(own)
    names = [
        name
        for name in sorted(names_in(run, folder))
        if "best" in words_of(stem_of(name)) <= words and name.endswith(suffix) and is_weights(name)
    ]
    if len(names) != 1:
        return None
    item = Candidate(folder, join(folder, names[0]), stem_of(names[0]), None, (names[0],))
    (found,) = with_companions(run, [described(run, item)])
    return replace(found, role="best")


def without_number(run: Tree, path: str) -> list[str]:
    """Return the paths of weights with the name of a file, but without its number: ``policy.pt``.

    They may be beside the file, or beside the folder of checkpoints.
    """
    folder, _, own = path.rpartition("/")
    suffix = suffix_of(own)
    words = re.findall(r"[a-z]+", re.sub(r"[-_.=]?[0-9]+[km]?", "", stem_of(own).lower()))
    shown = [word for word in words if word not in _COUNTING]
    folders = [folder]
    if folder.rpartition("/")[2].lower() in CONTAINERS:
        folders.append(parent(folder))
    return [
        join(place, name)
        for place in folders
        for name in sorted(names_in(run, place))
        if name.endswith(suffix)
        and is_weights(name)
        and not re.search("(?<![a-z])[0-9]", stem_of(name))
        and re.findall(r"[a-z]+", re.sub(r"[0-9]+", "", stem_of(name).lower())) in (words, shown)
    ]


def with_companions(run: Tree, checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    """Add the files beside the checkpoints or in the run's root that are loaded with them.

    These are statistics, and configurations with the two most common names.
    """
    with_them = []
    for checkpoint in checkpoints:
        folders = {"", checkpoint.path.rpartition("/")[0]}
        added = {
            join(folder, name)
            for folder in folders
            for name in names_in(run, folder)
            if is_statistics(name) or _LOADED_WITH.fullmatch(name.lower())
        }
        with_them.append(replace(checkpoint, files=tuple(sorted({*checkpoint.files, *added}))))
    return with_them
