"""Any other run: directories, or files, that hold weights and have a number in their name.

This layout is asked last and must not mistake a dataset for a run, so a number alone is never enough:

- a directory counts where it holds a file of a weight format and one of three names speaks of a model: the
  directory's own (``step_1000``, ``epoch-3``), that of the folder around it (``checkpoints/1000``), or the
  file's (``1000/policy.pt``);
- a file counts (``model_1000.pt``) where its own name or the folder's does;
- names of recordings (``episode_000001``, ``chunk-000``) never count, nor of runs (``version_0``, ``seed_1``,
  a date), nor does anything inside ``data/`` or ``trajectories/``.

The final one is the highest number, compared as a number. There is no best one: a name that says "best"
says nothing about when it was saved, so such a checkpoint is not taken at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from aml_mirror.layouts.base import Checkpoint, Run
from aml_mirror.layouts.config_files import read_mapping
from aml_mirror.layouts.folders import names_in, shard_problem, subfolders, topmost, word_set
from aml_mirror.sources.tree import Tree, join

_WEIGHTS = re.compile(
    r".+\.(?:safetensors|pt|pth|ckpt|msgpack|h5|hdf5|keras|onnx)|"
    r"(?:.*[-_.])?(?:model|weights|adapter)(?:[-_.].*)?\.(?:bin|zip|pkl)"
)
_TRAINING_ONLY: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?:.*[-_.])?(?:optim|optimizers?|optimizer_state)(?:[-_.].*)?"), "optimizer state"),
    (
        re.compile(r"(?:.*[-_.])?(?:lr_)?scheduler(?:[-_.].*)?\.(?:pt|pth|bin|pkl|safetensors)"),
        "scheduler state",
    ),
    (re.compile(r"(?:grad_)?scaler(?:[-_.].*)?\.(?:pt|pth|bin)"), "gradient scaler state"),
    (re.compile(r"(?:rng|random)[-_]?states?(?:[-_.].*)?"), "random generator state"),
    (
        re.compile(r"(?:training|trainer|train)[-_]state(?:[-_.].*)?|training_args\.bin|global_step[0-9]+"),
        "state of the training",
    ),
    (re.compile(r"(?:.*[-_.])?replay[-_]?buffer(?:[-_.].*)?"), "replay buffer"),
    (re.compile(r"events\.out\.tfevents\..*|.*\.log"), "log of the training"),
)
# Words that speak of a model being trained, as whole words of a name.
_MODEL_WORDS = word_set(
    "checkpoint checkpoints ckpt ckpts step steps iter iters iteration iterations itr epoch epochs update "
    "updates model models policy policies weights snapshot snapshots actor agent agents net nets network "
    "networks nn save saves saved params"
)
_CONTAINERS = word_set(
    "checkpoint checkpoints ckpt ckpts models policies weights snapshots agents nets networks nn saves "
    "saved saved_models"
)
_DATA_WORDS = word_set(
    "episode episodes chunk chunks frame frames shard shards sample samples demo demos traj trajs trajectory "
    "trajectories rollout rollouts data dataset datasets video videos image images obs clip clips scene "
    "scenes recording recordings embedding embeddings feature features cache best"
)
# A numbered folder of that name is a run or a part of one, not a checkpoint.
_RUN_WORDS = word_set("version run runs exp experiment seed trial job worker rank gpu fold attempt")
_DATE = re.compile(r"(?:19|20)[0-9]{2}[-_.]?[01][0-9][-_.]?[0-3][0-9]")
_DATA_FOLDERS = word_set(
    "data dataset datasets dataset_offline raw_data cache .cache wandb mlruns node_modules site-packages "
    ".git videos images episodes trajectories trajs rollouts frames chunks pretrained pretrained_models "
    "base_model"
)
_TEMPORARY = re.compile(r"(?:^|[-_.~])(?:tmp|temp|temporary|partial|incomplete)(?:$|[-_.~0-9])")
# What comes first is worth more: in epoch=3-step=1000 the step is the number.
_KEYED = tuple(
    re.compile(rf"(?<![a-z])(?:{word})[-_=. ]?([0-9]{{1,18}})(?![0-9])") for word in
    ("(?:global)?[-_]?steps?", "iters?|iterations?|itr|updates?", "checkpoint|ckpt", "epochs?|ep")
)  # fmt: skip
_MODEL_NUMBER = re.compile(
    r"(?<![a-z])(?:model|policy|agent|actor|weights|snapshot|params)[-_=. ]?([0-9]{1,18})(?![0-9a-z]|\.[0-9])"
)
_BEHIND = re.compile(r"(?<![0-9.])([0-9]{1,18})[-_ ]?(?:steps?|iters?|iterations?|updates?|epochs?)(?![a-z])")
# Elsewhere a number stands by itself: not the 3 or the 8 of llama3-8b, nor a decimal.
_NUMBER = re.compile(r"(?:^|(?<=[-_= ]))(?<![0-9]\.)([0-9]{1,18})(?=$|[-_. ](?![0-9]+$))")
# Names of a run's own configuration, in the run's root or in a folder for it.
_CONFIGS = re.compile(
    r"(?:\.hydra/|params/|config/|configs/)?"
    r"(?:config|args|hparams|hyperparameters|cfg|params|agent|env|train_config)\.(?:json|ya?ml)"
)
# What a file beside a numbered weight file must be to belong to it.
_SIDECARS = (".json", ".yaml", ".yml", ".onnx.data", ".safetensors.index.json")
_MAX_DEPTH = 3
# No training keeps more numbered files in one folder; a folder with more holds data.
_MAX_FILES = 2000


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A directory or a set of files with a number; ``folder`` is where it lies."""

    folder: str
    path: str
    step: int
    members: tuple[str, ...] = ()
    temporary: bool = False


class Generic:
    """See the module."""

    name = "generic"

    def find(self, tree: Tree) -> list[str]:
        return topmost(_root_of(candidate.folder) for candidate in _candidates(tree))

    def read(self, run: Tree) -> Run:
        result = Run([])
        found = [item for item in _candidates(run) if _root_of(item.folder) == ""]
        ordered = sorted(found, key=lambda item: (-item.step, item.temporary, item.path))
        for candidate in ordered:
            result.checkpoints.append(_file(run, candidate) if candidate.members else _folder(run, candidate))
        result.checkpoints = _compared(result.checkpoints)
        if result.checkpoints:
            result.checkpoints[0] = replace(result.checkpoints[0], role="final")
            result.warnings.append(
                "no known framework wrote this run: its checkpoints were told by the numbers in their names"
            )
        for path in run.files:
            if path.count("/") <= 1 and _CONFIGS.fullmatch(path):
                result.params[path.rpartition(".")[0]] = read_mapping(run, path, result.warnings)
        return result


def _root_of(folder: str) -> str:
    """Return the run's root for the folder that holds the checkpoints: the one around ``checkpoints/``."""
    parent, _, name = folder.rpartition("/")
    return parent if name.lower() in _CONTAINERS else folder


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()))


def _is_data(path: str) -> bool:
    return any(part.lower() in _DATA_FOLDERS for part in path.split("/"))


def _step(name: str) -> int | None:
    low = name.lower()
    for pattern in (*_KEYED, _BEHIND, _MODEL_NUMBER):
        if numbers := pattern.findall(low):
            return int(numbers[-1])
    numbers = _NUMBER.findall(low)
    return int(numbers[-1]) if numbers else None


def _candidates(tree: Tree) -> list[_Candidate]:
    below = subfolders(tree)
    found: list[_Candidate] = []
    for folder in sorted(below.keys() | tree.children.keys()):
        if _is_data(folder):
            continue
        own = folder.rpartition("/")[2]
        speaks = bool(_words(own) & _MODEL_WORDS) and not _words(own) & _DATA_WORDS
        folders = _folders_in(tree, folder, below.get(folder, {}), speaks)
        found += folders or _files_in(tree, folder, speaks)
    inside = {item.path for item in found if not item.members}
    return [
        item
        for item in found
        if not any(item.folder == path or item.folder.startswith(path + "/") for path in inside)
    ]


def _folders_in(tree: Tree, folder: str, below: dict[str, str], speaks: bool) -> list[_Candidate]:
    numbered = []
    families: dict[str, bool] = {}
    for name, real in below.items():
        step, words = _step(name), _words(name)
        if step is None or words & (_DATA_WORDS | _RUN_WORDS) or name.lower() in _DATA_FOLDERS:
            continue
        if _DATE.search(name) and not words & _MODEL_WORDS:
            continue
        numbered.append((name, real, step))
        weights = [path[len(real) + 1 :] for path in tree.walk(real) if _is_weights(path)]
        weights = [path for path in weights if path.count("/") < _MAX_DEPTH]
        named = speaks or bool(words & _MODEL_WORDS)
        # checkpoints/ inside a folder that is not named as one itself: the folder is a run.
        if not named and any(
            part.lower() in _CONTAINERS for path in weights for part in path.split("/")[:-1]
        ):
            continue
        stems = {word for path in weights for word in _words(path.rpartition("/")[2].rpartition(".")[0])}
        if not weights or stems & _DATA_WORDS:
            continue
        family = _family(name)
        # Only the file speaks of a model: then the number must be the name, or there must be several.
        if named or (stems & _MODEL_WORDS and (name.isdecimal() or family in families)):
            families[family] = True
        elif stems & _MODEL_WORDS:
            families[family] = False
    # A folder of the same family without weights is a checkpoint that lost them, and that is to be said.
    return [
        _Candidate(folder, real, step, temporary=bool(_TEMPORARY.search(name.lower())))
        for name, real, step in numbered
        if families.get(_family(name)) or (_TEMPORARY.search(name.lower()) and any(families.values()))
    ]


def _family(name: str) -> str:
    return re.sub(r"[0-9]+", "0", name)


def _files_in(tree: Tree, folder: str, speaks: bool) -> list[_Candidate]:
    steps: dict[int, list[str]] = {}
    for name in names_in(tree, folder):
        stem = name.rpartition(".")[0]
        words = _words(stem)
        step = _step(stem)
        if step is None or not _is_weights(name) or words & _DATA_WORDS or re.search(r"-of-[0-9]+", stem):
            continue
        if speaks or words & _MODEL_WORDS:
            steps.setdefault(step, []).append(name)
    if len(steps) > _MAX_FILES:
        return []
    found = []
    for step, names in steps.items():
        # Several files of one step are parts of one policy; the one that names it stands for all.
        names.sort(
            key=lambda name: (not _words(name) & {"model", "policy", "agent", "checkpoint", "ckpt"}, name)
        )
        found.append(_Candidate(folder, join(folder, names[0]), step, tuple(names)))
    return found


def _is_weights(path: str) -> bool:
    name = path.rpartition("/")[2].lower()
    return bool(_WEIGHTS.fullmatch(name)) and not _why_left(name)


def _why_left(inside: str) -> str:
    for part in inside.lower().split("/"):
        for pattern, reason in _TRAINING_ONLY:
            if pattern.fullmatch(part):
                return reason
    return ""


def _folder(run: Tree, candidate: _Candidate) -> Checkpoint:
    path = candidate.path
    files, left = [], []
    for file in run.walk(path):
        reason = _why_left(file[len(path) + 1 :])
        if reason:
            left.append((file, reason))
        else:
            files.append(file)
    weights = [file for file in files if _is_weights(file)]
    problem = ""
    if candidate.temporary:
        problem = "it is a temporary folder: the save had not ended"
    for folder in sorted({file.rpartition("/")[0] for file in files}):
        problem = problem or shard_problem(run, folder)
    if not weights:
        problem = problem or "it holds no weights"
    return Checkpoint(
        path, candidate.step, "periodic", tuple(files), tuple(weights), tuple(sorted(left)), problem
    )


def _file(run: Tree, candidate: _Candidate) -> Checkpoint:
    names = names_in(run, candidate.folder)
    files = [join(candidate.folder, name) for name in candidate.members]
    for name in candidate.members:
        stem = name.rpartition(".")[0]
        files += [
            join(candidate.folder, stem + suffix)
            for suffix in _SIDECARS
            if stem + suffix in names and stem + suffix not in candidate.members
        ]
    left = [
        (join(candidate.folder, name), reason)
        for name in sorted(names)
        if (reason := _why_left(name)) and _step(name.rpartition(".")[0]) == candidate.step
    ]
    weights = tuple(sorted(join(candidate.folder, name) for name in candidate.members))
    return Checkpoint(candidate.path, candidate.step, "periodic", tuple(sorted(files)), weights, tuple(left))


def _compared(checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    """Mark folders that lack weights which every other folder of the run has."""

    def inside(checkpoint: Checkpoint) -> set[str]:
        return {path[len(checkpoint.path) + 1 :] for path in checkpoint.weights}

    whole = [item for item in checkpoints if not item.problem]
    if len(whole) < 3 or any(item.path in item.weights for item in whole):
        return checkpoints
    marked: list[Checkpoint] = []
    for checkpoint in checkpoints:
        others: list[Any] = [inside(item) for item in whole if item is not checkpoint]
        missing = sorted(set.intersection(*others) - inside(checkpoint)) if others else []
        if missing and not checkpoint.problem:
            checkpoint = replace(
                checkpoint, problem=f"{missing[0]}, which the run's other checkpoints have, is missing"
            )
        marked.append(checkpoint)
    return marked
