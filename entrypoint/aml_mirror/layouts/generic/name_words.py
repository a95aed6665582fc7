"""What a name says if no framework is known: about a model, a step, the end of training."""

from __future__ import annotations

import re

from aml_mirror.formats.registry import weight_suffixes
from aml_mirror.layouts.step_folders import word_set

# Words that indicate a model in training, as whole words of a name.
MODEL_WORDS = word_set(
    "checkpoint checkpoints ckpt ckpts chkpt step steps iter iters iteration iterations itr epoch epochs "
    "update updates model models policy policies weights snapshot snapshots actor agent agents net nets "
    "network networks nn save saves saved params"
)
CONTAINERS = word_set(
    "checkpoint checkpoints ckpt ckpts models policies weights snapshots agents nets networks nn saves "
    "saved saved_models"
)
DATA_WORDS = word_set(
    "episode episodes chunk chunks frame frames shard shards sample samples demo demos traj trajs trajectory "
    "trajectories rollout rollouts data dataset datasets video videos image images obs clip clips scene "
    "scenes recording recordings embedding embeddings feature features cache best"
)
# A folder with one of these words is a checkpoint, whatever else its name says about the training: image_aug,
# …
_CHECKPOINT_WORDS = word_set("checkpoint checkpoints ckpt ckpts chkpt chkpts step steps")
# A numbered folder with one of these names is a run or a part of one, not a checkpoint.
RUN_WORDS = word_set("version run runs exp experiment seed trial job worker rank gpu fold attempt")
# The day of a training. The century may be omitted if a time follows: 260102-030405. Steps have eight digits
# too: 20971520 is not a day, nor is 20000000.
DATE = re.compile(
    r"(?<![0-9])20[1-4][0-9][-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:0[1-9]|[12][0-9]|3[01])(?![0-9])"
    r"|(?<![0-9])[1-4][0-9](?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[-_](?:[01][0-9]|2[0-3])(?:[0-5][0-9]){2}(?![0-9])"
)
DATA_FOLDERS = word_set(
    "data dataset datasets dataset_offline raw_data cache .cache wandb mlruns mlartifacts swanlog dvclive "
    "cometml-runs node_modules site-packages "
    ".git videos images episodes trajectories trajs rollouts frames chunks pretrained pretrained_models "
    "base_model"
)
# Folders beside the model's folder that only its training needs.
TRAINING_FOLDERS = word_set("optim optimizer optimizers scheduler schedulers trainer")
TEMPORARY = re.compile(r"^\.|(?:^|[-_.~])(?:tmp|temp|temporary|partial|incomplete)(?:$|[-_.~0-9])")
# "model-00002-of-00005.safetensors": a shard, useless by itself.
SHARD = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]+)-of-(?P<count>[0-9]+)(?P<suffix>\.[a-z]+)")
# Models that are kept beside the trained policy. Their names say so. They are never taken as the policy.
ASIDE = word_set("ema averaged average swa best")
# Kept for a score: top_3, topk.
TOP = re.compile(r"(?:^|[-_.])top[-_]?(?:k|[0-9]+)(?![a-z0-9])", re.IGNORECASE)
# How a name says that training ended with it, the most certain last.
ENDS = ("latest", "last", "finish", "final")
TEMPORARY_WORDS = word_set("tmp temp temporary partial incomplete")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# People shorten large steps: step_100k, model_1.5M, 2M_steps, 500k. Behind any other word it is a size:
# opt-350m.
_SHORTENED = re.compile(
    r"(?:(?<![a-z])(?P<word>(?:global[-_]?)?steps?|iters?|iterations?|updates?|checkpoint|ckpt|model|policy|agent"
    r"|actor|critic|student|teacher|generator|discriminator|encoder|decoder|weights|snapshot|params)[-_=. ]?"
    r"|^|(?<=[-_= ])(?=[0-9.]+[km][-_ ]?steps?(?![a-z])))"
    r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,6})?)(?P<unit>[km])(?=[-_ ]?steps?(?![a-z])|$|[-_. ])"
)
_FACTORS = {"k": 1_000, "m": 1_000_000}
# Earlier patterns win: in epoch=3-step=1000 the step is the number.
_KEYED = tuple(
    re.compile(rf"(?<![a-z])(?:{word})[-_=. ]?([0-9]{{1,18}})(?![0-9])") for word in
    ("(?:global)?[-_]?steps?", "iters?|iterations?|itr|it|updates?", "checkpoint|ckpt|chkpt", "epochs?|ep")
)  # fmt: skip
_MODEL_NUMBER = re.compile(
    r"(?<![a-z])(?:model|policy|agent|actor|weights|snapshot|params)[-_=. ]?([0-9]{1,18})(?![0-9a-z]|\.[0-9])"
)
_BEHIND = re.compile(
    r"(?<![0-9.])([0-9]{1,18})[-_ ]?(?:steps?|iters?|iterations?|updates?|epochs?|chkpt)(?![a-z])"
)
# Elsewhere a number must be a word of its own: not the 3 or the 8 of llama3-8b, nor a decimal.
_NUMBER = re.compile(r"(?:^|(?<=[-_= ]))(?<![0-9]\.)([0-9]{1,18})(?=$|[-_. ](?![0-9]+$))")

# .pth.tar
_SUFFIXES_OF_TWO = tuple(suffix for suffix in weight_suffixes() if suffix.count(".") > 1)


def words_of(name: str) -> set[str]:
    """Return the words of a name, in lower case, also split at capital letters."""
    return set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()))


def is_of_checkpoints(name: str) -> bool:
    """Tell whether a folder's name says that it contains checkpoints, not just anything about a model."""
    return name.lower() in CONTAINERS or bool(words_of(name) & _CHECKPOINT_WORDS)


def is_in_data(path: str) -> bool:
    """Tell whether a path is, or is in, a folder of data."""
    return any(part.lower() in DATA_FOLDERS for part in path.split("/"))


def is_of_data(words: set[str]) -> bool:
    """Tell whether a folder's name mentions data, or something kept for a score."""
    return "best" in words or bool(words & DATA_WORDS and not words & _CHECKPOINT_WORDS)


def step_of(name: str) -> int | None:
    """Return the step in a name without its suffix; None: there is none."""
    low = in_full(name.lower())
    for pattern in (*_KEYED, _BEHIND, _MODEL_NUMBER):
        if numbers := pattern.findall(low):
            return int(numbers[-1])
    numbers = _NUMBER.findall(low)
    return int(numbers[-1]) if numbers else None


def stem_of(path: str) -> str:
    """Return a file's name without its suffix. checkpoint_1000 has none, model.pth.tar has .pth.tar."""
    name = path.rpartition("/")[2]
    suffix = suffix_of(name)
    return name[: -len(suffix)] if suffix and suffix != name else name


def suffix_of(path: str) -> str:
    """Return the suffix of a file's name with its dot, in the case that it has; empty: it has none."""
    name = path.rpartition("/")[2]
    for suffix in _SUFFIXES_OF_TWO:
        if name.lower().endswith(suffix):
            return name[-len(suffix) :]
    _, dot, suffix = name.rpartition(".")
    return dot + suffix if dot else ""


def end_of(name: str) -> int:
    """Return the index in ``ENDS`` of the word by which a name says that it is the end; -1: there is none."""
    words = words_of(name)
    return max((place for place, word in enumerate(ENDS) if word in words), default=-1)


def is_kept_for_its_score(stem: str) -> bool:
    """Tell whether a name says that a model was kept for a score: ``model_best``, ``top_3``."""
    return "best" in words_of(stem) or TOP.search(stem) is not None


def in_full(name: str) -> str:
    """Write out shortened steps in a lower-case name: ``step_100k`` becomes ``step_100000``."""
    return _SHORTENED.sub(_without_unit, name)


def _without_unit(match: re.Match[str]) -> str:
    whole, _, part = match["number"].partition(".")
    factor = _FACTORS[match["unit"]]
    number = int(whole) * factor + (int(part) * factor // 10 ** len(part) if part else 0)
    return match[0][: match.start("number") - match.start()] + str(number)
