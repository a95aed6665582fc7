"""Finds evidence that a training wrote a run, if no layout's own files do: a log, a configuration or a state.

A folder of numbered tensors may also contain latents, predictions, point clouds or the state of an optimizer.
A person who selects it knows what it is. A backfill selects nothing, so it takes such a folder only if
evidence is beside the tensors, or if the files themselves contain the state of a training.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from aml_mirror.layouts.base import Checkpoint, Layout
from aml_mirror.layouts.generic.name_words import DATA_FOLDERS, stem_of, words_of
from aml_mirror.layouts.generic.weight_files import is_statistics, is_weights
from aml_mirror.layouts.step_folders import word_set
from aml_mirror.layouts.torch_files import pickle_of
from aml_mirror.sources.tree import Tree, join, parent

_CONFIGS = word_set(
    "config configs cfg args arguments hparams hyperparameters hyperparams params parameters agent env "
    "options opts opt settings variant flags spec experiment trainer"
)
_CONFIG_SUFFIXES = (".yaml", ".yml", ".json", ".toml", ".gin", ".cfg", ".ini", ".txt", ".pkl", ".py")
_LOGS = word_set(
    "log logs metrics metric progress train training losses loss history results scores evaluations stdout "
    "stderr monitor rewards returns summary eval evals evaluation"
)
_LOG_SUFFIXES = (".csv", ".jsonl", ".json", ".txt", ".tsv", ".npz", ".pkl", ".wandb")
_LOG_FOLDERS = word_set("wandb mlruns lightning_logs tensorboard tb_logs .hydra .summary")
# Configurations of a model and of its preprocessing. save_pretrained writes them beside any model.
_OF_A_MODEL = re.compile(r"(?:[a-z_]*_)?config\.json")
_STATE = re.compile(
    r"(?:.*[-_.])?(?:optim|optimizers?|opt_state|scheduler|grad_scaler|scaler|rng_state|random_states?)"
    r"(?:[-_.].*)?|(?:training|trainer|train)[-_]state(?:[-_.].*)?|training_args\.bin"
    r"|(?:.*[-_.])?replay[-_]?buffer(?:[-_.].*)?"
)
# HIL-SERL logs only to W&B, and keeps recordings of its policy beside the checkpoints
# (examples/train_rlpd.py).
_TRANSITIONS = re.compile(r"(?:.*/)?(?:demo_)?buffer/transitions_[0-9]+\.pkl")
# Files that only a trainer, PEFT or the scripts of OpenVLA write, and their folders.
_OF_HUGGING_FACE = re.compile(
    r"(?:.*/)?(?:trainer_state\.json|training_args\.bin|adapter_config\.json|dataset_statistics\.json"
    r"|checkpoint-[0-9]+/.*|[^/]+--[0-9]+_chkpt/.*|[^/]+--(?:[0-9]+|latest)_checkpoint\.pt|global_step[0-9]+/.*)"
)
# Numbered files that are not a policy, whatever else is beside them.
_NO_POLICY = word_set(
    "latent latents prediction predictions pred preds point points cloud clouds pointcloud pointclouds pcd "
    "pcds optim optimizer optimizers embedding embeddings feature features mask masks depth depths label "
    "labels target targets gradient gradients grad grads activation activations attention token tokens voxel "
    "voxels mesh meshes render renders heatmap heatmaps pose poses occupancy sdf scheduler schedulers"
)
# Words that say nothing about the contents of a file.
_NEUTRAL = word_set(
    "step steps iter iters iteration iterations epoch epochs update updates val valid validation test train "
    "eval batch rank gpu chunk part and of the state dict file out output outputs"
)
_OPTIMIZER = re.compile(rb"optim|opt_state")
_MODEL = re.compile(rb"model|state_dict|policy|actor|network|weights|agent")


def why_no_run(tree: Tree, layout: Layout) -> str:
    """Return why a backfill does not accept something as a run; empty: it does.

    Args:
        tree: the run's own tree.
        layout: the layout that found it.
    """
    if layout.name == "huggingface":
        if any(map(_OF_HUGGING_FACE.fullmatch, tree.files)) or _has_log(tree) or _has_config(tree, True):
            return ""
        return "there is no log, configuration or state of a training beside the model: it may be a download"
    if layout.name != "generic":
        return ""
    run = layout.read(tree)
    checkpoints = run.checkpoints
    if run.best and not checkpoints:
        return f"only {run.best.path} was kept, for its score: the final checkpoint is missing"
    if words := _no_policy(tree, checkpoints):
        return f"the names of its numbered files do not suggest a policy: {', '.join(sorted(words))}"
    if any(checkpoint.left_out for checkpoint in checkpoints) or has_evidence(tree):
        return ""
    if _holds_state(tree, checkpoints[:1]):
        return ""
    return "there is no log, configuration or state of a training beside its numbered files"


def has_evidence(tree: Tree) -> bool:
    """Tell by the names in a folder whether a training wrote to it."""
    return _has_log(tree) or _has_config(tree, False) or any(map(_is_state, tree.files))


def _no_policy(tree: Tree, checkpoints: Iterable[Checkpoint]) -> set[str]:
    """Return the words that rule out a policy for every file; none: some file may be a policy."""
    found: set[str] = set()
    for checkpoint in checkpoints:
        for path in checkpoint.weights:
            own = words_of(stem_of(path)) - _NEUTRAL
            folder = (join(tree.root, parent(path)) or tree.source.name).rpartition("/")[2]
            around = words_of(folder) - _NEUTRAL
            says = own if own else around
            if not says or not says <= _NO_POLICY:
                return set()
            found |= says
    return found


def _is_state(path: str) -> bool:
    # Files that scale a policy's input were made for its training.
    name = path.rpartition("/")[2].lower()
    return bool(_STATE.fullmatch(name) or _TRANSITIONS.fullmatch(path)) or is_statistics(name)


def _own(tree: Tree) -> Iterable[str]:
    for path in tree.files:
        if not any(part.lower() in DATA_FOLDERS - _LOG_FOLDERS for part in path.split("/")[:-1]):
            yield path


def _has_log(tree: Tree) -> bool:
    for path in _own(tree):
        *folders, name = path.lower().split("/")
        if ".tfevents." in name or name.endswith((".log", ".out", ".err")):
            return True
        if not _LOG_FOLDERS.isdisjoint(folders):
            return True
        if name.endswith(_LOG_SUFFIXES) and words_of(stem_of(name)) & _LOGS and not is_weights(path):
            return True
    return False


def _has_config(tree: Tree, of_training: bool) -> bool:
    for path in _own(tree):
        name = path.rpartition("/")[2].lower()
        if name.endswith(_CONFIG_SUFFIXES) and words_of(stem_of(name)) & _CONFIGS and not is_weights(path):
            if of_training and _OF_A_MODEL.fullmatch(name):
                continue
            return True
    return False


def _holds_state(tree: Tree, checkpoints: Iterable[Checkpoint]) -> bool:
    """Tell whether a checkpoint's own file contains the optimizer beside the model."""
    for checkpoint in checkpoints:
        for path in checkpoint.weights[:2]:
            if (data := pickle_of(tree, path)) and _OPTIMIZER.search(data) and _MODEL.search(data):
                return True
    return False
