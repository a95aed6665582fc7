"""Decides which files belong to the model, in a folder saved by a Trainer, accelerate, PEFT or OpenVLA."""

from __future__ import annotations

import re

from aml_mirror.layouts.base import Checkpoint, Role
from aml_mirror.layouts.huggingface.model_roots import (
    ARGUMENTS,
    FSDP,
    OPENVLA_PART,
    RANDOM_STATES,
    STATE,
    WEIGHT_SUFFIXES,
    adapters_in,
    has_adapters,
    part_folders,
)
from aml_mirror.layouts.step_folders import names_in, shard_problem
from aml_mirror.sources.tree import Tree, join

# (pattern of a file's or folder's name, why it is left out). It is compared with the first part of a path
# below the checkpoint, and with its last.
_TRAINING_ONLY: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?:.+-)?optimizer(?:_[0-9]+)?(?:\.(?:pt|bin))?"), "optimizer state"),
    (re.compile(r"scheduler(?:_[0-9]+)?\.(?:pt|bin)"), "learning-rate scheduler state"),
    (re.compile(r"scaler\.pt"), "gradient scaler state"),
    (re.compile(r"rng_state.*\.pth|random_states_.*\.pkl"), "random generator state"),
    (re.compile(r"training_args\.bin"), "arguments of the training"),
    (re.compile(r"trainer_state\.json"), "progress of the training"),
    # The Trainer names the folder global_step<N>, accelerate pytorch_model.
    (
        re.compile(r"global_step[0-9]+|pytorch_model(?:_[0-9]+)?|latest|zero_to_fp32\.py"),
        "DeepSpeed training state",
    ),
    (re.compile(r"(?:sampler|dl_state_dict)(?:_[0-9]+)?\.bin|user_content\.pt"), "data loader state"),
    (re.compile(r"events\.out\.tfevents\..*|trainer_log\.jsonl|.*\.log"), "log of the training"),
    (re.compile(r"wandb_config\.json"), "name of the W&B run"),
)
_ROOT_ONLY: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?:all|train|eval|test|predict)_results\.json"), "results of the training"),
    (re.compile(r".*\.(?:png|jpg|jpeg|svg|mp4|gif|csv|jsonl|out|err|sh|lock)|\..*"), "not part of the model"),
)
# Subfolders of the root that belong to a model saved there: parts of sentence-transformers, of diffusers
# pipelines and of GR00T. Everything else (logs, datasets, other models) does not belong to the model.
_ROOT_FOLDERS = re.compile(
    r"[0-9]+_[A-Z]\w*|additional_chat_templates|tokenizer(?:_[0-9])?|processor|experiment_cfg|"
    r"text_encoder(?:_[0-9])?|unet|vae|transformer|scheduler|feature_extractor|image_encoder|safety_checker"
)


def describe(run: Tree, path: str, step: int | None, role: Role) -> Checkpoint:
    """Describe the model saved in a folder: its files, its weights, and what only training needs."""
    folder = "" if path == "." else path
    files, left = [], []
    for file in root_files(run) if path == "." else run.walk(folder):
        inside = file[len(folder) + 1 :] if folder else file
        reason = _why_left(inside, is_root=path == ".")
        if reason:
            left.append((file, reason))
        else:
            files.append(file)
    full = [file for file in files if FSDP.fullmatch(_first(file, folder)) is None]
    sharded = [file for file in files if file not in full]
    weights = [file for file in full if file.endswith(WEIGHT_SUFFIXES) or _is_part(file)]
    problem = shard_problem(run, folder)
    if weights:
        # FSDP's own shards repeat the weights in a form that only the same training can load.
        left += [(file, "FSDP shards; the model's own files contain the same weights") for file in sharded]
        files = full
    elif sharded:
        weights = sharded
        if any(file.endswith(".distcp") for file in sharded) and not any(
            file.endswith("/.metadata") for file in sharded
        ):
            problem = problem or "its FSDP shards lack .metadata, which is written last"
    elif any(reason.startswith("DeepSpeed") for _, reason in left):
        problem = problem or (
            "it contains only DeepSpeed shards; convert them to weights with zero_to_fp32.py in that folder"
        )
    if not weights:
        problem = problem or "it holds no weights"
    return Checkpoint(
        path, step, role, tuple(sorted(files)), tuple(sorted(weights)), tuple(sorted(left)), problem
    )


def _first(path: str, folder: str) -> str:
    return (path[len(folder) + 1 :] if folder else path).partition("/")[0]


def _is_part(path: str) -> bool:
    return bool(OPENVLA_PART.fullmatch(path.rpartition("/")[2]))


def root_files(run: Tree) -> list[str]:
    found = sorted(names_in(run, ""))
    adapters = adapters_in(run, "") if has_adapters(run, "") else []
    parts = part_folders(run, "")
    for name in (name[:-1] for name in run.children.get("", ()) if name.endswith("/")):
        if name in parts or _ROOT_FOLDERS.fullmatch(name) or FSDP.fullmatch(name) or name in adapters:
            found += run.walk(name)
    return found


def _why_left(inside: str, is_root: bool) -> str:
    first, last = inside.partition("/")[0], inside.rpartition("/")[2]
    for pattern, reason in (*_TRAINING_ONLY, *(_ROOT_ONLY if is_root else ())):
        # A pipeline's folder scheduler/, or names like an optimizer's deeper down, belong to the model.
        if pattern.fullmatch(first) or ("/" in inside and "log" in reason and pattern.fullmatch(last)):
            return reason
    return ""


def has_weights_below(tree: Tree, folder: str) -> bool:
    """Tell whether a pipeline is saved in parts (diffusers): checkpoint-500/unet/….safetensors."""
    return any(path.endswith(".safetensors") for path in tree.walk(folder))


def common_names(run: Tree, path: str) -> set[str]:
    """Return what every checkpoint of a run has if one has it: names, and which of OpenVLA's parts."""
    names = names_in(run, path)
    parts = {match["part"] for name in names if (match := OPENVLA_PART.fullmatch(name))}
    return names & {STATE, RANDOM_STATES, "config.json", "adapter_config.json", "model_index.json"} | parts


def _is_of_accelerate(names: set[str]) -> bool:
    """Tell whether accelerate's ``save_state`` wrote a folder, without a Trainer, and finished."""
    trainers = ARGUMENTS in names or any(name.startswith("rng_state") for name in names)
    return RANDOM_STATES in names and not trainers


def save_problem(run: Tree, path: str, expected: set[str]) -> str:
    names = names_in(run, path)
    if STATE in names:
        state = join(path, STATE)
        size = run.size(state)
        if run.read(state, max(0, size - 64), 64).rstrip()[-1:] != b"}":
            return f"{STATE}, which is written last, is truncated: the save was not finished"
    elif STATE in expected or (
        any(name.startswith(("optimizer.", "scheduler.", "rng_state")) for name in names)
        and not _is_of_accelerate(names)
    ):
        return f"{STATE}, which is written last, is missing: the save was not finished"
    for name in sorted(expected - common_names(run, path) - {STATE}):
        return f"{name}, which the run's other checkpoints have, is missing"
    return ""
