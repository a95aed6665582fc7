"""Finds the roots of the runs that :mod:`.layout` reads.

Sources beside those named there: ``vla-scripts/finetune.py`` of OpenVLA and of OpenVLA-OFT
(``save_training_checkpoint``, ``run_training``), peft 0.21 (``PeftModel.save_pretrained``).

- A run is a folder with ``checkpoint-<step>`` folders, or with a model and a file that only a Trainer or PEFT
  writes.
- OpenVLA saves the merged model into the run's folder, or beside it into one folder per step,
  ``<run>--<step>_chkpt``. OFT also saves ``lora_adapter/``, which is merged into it, and other parts,
  ``action_head--<step>_checkpoint.pt`` or ``--latest_checkpoint.pt``. The folder around contains all runs.
- OpenVLA without OFT keeps the adapter in ``adapter-tmp/<run>`` during training, and leaves it there.
- So an adapter is a run if it is alone. In the folder of a model it is a part of that model.
- VILA saves a model in parts, ``llm/``, ``mm_projector/`` and ``vision_tower/``, beside its ``config.json``.
- A person may pass a single model with its ``config.json``, or the folder above it.
"""

from __future__ import annotations

import re

from aml_mirror.formats.registry import suffixes_of
from aml_mirror.layouts.config_files import read_json
from aml_mirror.layouts.generic.name_words import (
    DATA_FOLDERS,
    DATA_WORDS,
    MODEL_WORDS,
    TEMPORARY,
    step_of,
    words_of,
)
from aml_mirror.layouts.generic.weight_files import is_weights
from aml_mirror.layouts.run_roots import folders_around, topmost
from aml_mirror.layouts.step_folders import names_in, subfolders
from aml_mirror.sources.tree import Tree, join, parent

STATE = "trainer_state.json"
ARGUMENTS = "training_args.bin"
STEP = re.compile(r"checkpoint-(?P<step>[0-9]{1,18})")
OPENVLA_STEP = re.compile(r"(?P<run>.+)--(?P<step>[0-9]{1,18})_chkpt")
# action_head, proprio_projector, noisy_action_projector, vision_backbone: what OFT trains beside the model.
OPENVLA_PART = re.compile(r"(?P<part>.+)--(?:[0-9]{1,18}|latest)_checkpoint\.pt")
# Where scripts save the final model if not in the root: final, final_model, checkpoint-final,
# last-checkpoint, final_merged_model, … A number in the name belongs to something else.
_WORD = "(?!best|eval|runs?|exp|experiment|logs?)[A-Za-z]+"
FINAL = re.compile(f"(?:{_WORD}[-_])*?(?P<word>final|last|latest)(?:[-_]{_WORD})*", re.IGNORECASE)
# VILA's and NaVILA's models are saved in parts, one folder each, in the root and in each checkpoint
# (save_pretrained in llava/model/llava_arch.py).
_PARTS = frozenset({"llm", "mm_projector", "vision_tower"})
# What save_pretrained writes for PyTorch, TensorFlow and Flax.
WEIGHT_SUFFIXES = suffixes_of("safetensors", "torch.save as .bin", "HDF5", "msgpack")
FSDP = re.compile(r"pytorch_model_fsdp(?:_[0-9]+)?(?:\.bin)?")

# The last file that accelerate's main process writes. No other process writes the model.
RANDOM_STATES = "random_states_0.pkl"
_ADAPTER = "adapter_config.json"
# Files that only a Trainer or PEFT writes, and weights with the names of `save_pretrained`.
_MARKS = {STATE, ARGUMENTS, _ADAPTER}
_MODEL = re.compile(
    r"(?:model|adapter_model|pytorch_model|diffusion_pytorch_model)(?:-[0-9]+-of-[0-9]+)?\.(?:safetensors|bin)"
    r"|(?:model\.safetensors|pytorch_model\.bin)\.index\.json"
    r"|(?:tf_model(?:-[0-9]+-of-[0-9]+)?\.h5|flax_model(?:-[0-9]+-of-[0-9]+)?\.msgpack)"
)
# OpenVLA uses them to scale actions. They belong to the weights beside them.
_STATISTICS = "dataset_statistics.json"


def find_roots(tree: Tree) -> list[str]:
    """Return the roots of the runs in a tree, sorted."""
    below = subfolders(tree)
    roots: list[str] = []
    alone: set[str] = set()
    for folder, inside in below.items():
        if any(STEP.fullmatch(name) and is_saved(tree, real) for name, real in inside.items()):
            roots.append(folder)
            continue
        roots += _of_openvla(tree, folder, inside)
        names = names_in(tree, folder)
        if "config.json" in names and part_folders(tree, folder):
            roots.append(folder)
            continue
        if not names & _MARKS or not any(map(_MODEL.fullmatch, names)):
            continue
        above, _, name = folder.rpartition("/")
        if not folder or not _is_adapter(tree, folder):
            roots.append(above if FINAL.fullmatch(name) else folder)
        elif has_adapters(tree, above):
            roots.append(above)
        elif FINAL.fullmatch(name):
            alone.add(above)
            roots.append(above)
        # Otherwise the model belongs to another layout: verl saves its shards around lora_adapter/.
        elif step_of(name) is not None and words_of(name) & MODEL_WORDS and not STEP.match(name):
            continue
        elif not any(
            is_weights(other) and not words_of(other) & DATA_WORDS for other in names_in(tree, above)
        ):
            alone.add(folder)
            roots.append(folder)
    roots = topmost(roots)
    if alone.intersection(roots):
        roots = _with_models_beside(tree, roots, alone)
    return roots or _only_model(tree)


def is_saved(tree: Tree, folder: str) -> bool:
    """Tell whether a Trainer, ``save_pretrained`` or OpenVLA saved something into a folder."""
    names = names_in(tree, folder)
    if names & _MARKS or any(_MODEL.fullmatch(name) or OPENVLA_PART.fullmatch(name) for name in names):
        return True
    if part_folders(tree, folder) or _is_state_around_parts(tree, folder, names):
        return True
    return any(
        FSDP.fullmatch(name[:-1]) or name.startswith("global_step")
        for name in tree.children.get(folder, ())
        if name.endswith("/")
    )


def part_folders(tree: Tree, folder: str) -> set[str]:
    """Return the names of the folders that contain the parts of one VILA model; empty: none."""
    below = {name[:-1] for name in tree.children.get(folder, ()) if name.endswith("/")} & _PARTS
    parts = {name for name in below if any(map(_MODEL.fullmatch, names_in(tree, join(folder, name))))}
    return parts if len(parts) > 1 else set()


def _is_state_around_parts(tree: Tree, folder: str, names: set[str]) -> bool:
    """Tell whether accelerate saved its state around a model whose parts have one folder each: ``unet/``.

    The training scripts of diffusers do this with ``save_pretrained`` in a hook of ``save_state``.
    """
    below = (name[:-1] for name in tree.children.get(folder, ()) if name.endswith("/"))
    return RANDOM_STATES in names and any(
        any(map(_MODEL.fullmatch, names_in(tree, join(folder, name)))) for name in below
    )


def is_openvla_step(tree: Tree, name: str, folder: str) -> bool:
    """Tell whether a folder with this name contains what OpenVLA saved at a step."""
    return bool(OPENVLA_STEP.fullmatch(name)) and (is_saved(tree, folder) or bool(adapters_in(tree, folder)))


def has_adapters(tree: Tree, folder: str) -> bool:
    """Tell whether adapters in the subfolders are parts of the model saved here.

    This is not so in a run of the Trainer, which stores adapters where it stores models.
    """
    names = names_in(tree, folder)
    if names & {STATE, ARGUMENTS} or any(STEP.fullmatch(name[:-1]) for name in tree.children.get(folder, ())):
        return False
    return (
        _STATISTICS in names
        or ("config.json" in names and any(map(_is_whole, names)))
        or any(map(OPENVLA_PART.fullmatch, names))
        or bool(OPENVLA_STEP.fullmatch(name_of(tree, folder)))
    )


def adapters_in(tree: Tree, folder: str) -> list[str]:
    """Return the sorted names of the subfolders that contain an adapter and no file of a Trainer."""
    names = [name[:-1] for name in tree.children.get(folder, ()) if name.endswith("/")]
    return sorted(
        name for name in names if _is_adapter(tree, join(folder, name)) and not FINAL.fullmatch(name)
    )


def name_of(tree: Tree, folder: str = "") -> str:
    """Return the name of a folder, including that of the source itself."""
    return (join(tree.root, folder) or tree.source.name).rpartition("/")[2]


def _is_adapter(tree: Tree, folder: str) -> bool:
    names = names_in(tree, folder)
    return _ADAPTER in names and names.isdisjoint({STATE, ARGUMENTS})


def _is_whole(name: str) -> bool:
    return bool(_MODEL.fullmatch(name)) and not name.startswith("adapter_")


def _of_openvla(tree: Tree, folder: str, inside: dict[str, str]) -> list[str]:
    """Return the folder around the steps of one run, or each step if that folder contains anything else.

    That folder contains all runs. If it has another run's weights, its contents cannot be told apart.
    """
    steps = {real: name for name, real in inside.items() if is_openvla_step(tree, name, real)}
    if not steps:
        return []
    runs = {match["run"] for name in steps.values() if (match := OPENVLA_STEP.fullmatch(name))}
    others = (
        path
        for path in tree.walk(folder)
        if is_weights(path) and not any(path.startswith(step + "/") for step in steps)
    )
    return [folder] if len(runs) == 1 and not any(others) else sorted(steps)


def _with_models_beside(tree: Tree, roots: list[str], alone: set[str]) -> list[str]:
    """Add whole models beside adapters that are alone. Either may be the result of the training.

    This excludes adapters in temporary folders, whose result is the merged model, and models that an adapter
    builds on.
    """
    above = {around for root in roots for around in folders_around(root)}
    models = [
        folder
        for folder in tree.folders
        if folder not in above
        and not {folder, *folders_around(folder)}.intersection(roots)
        and not _is_kept_for_others(folder)
        and _is_model(tree, folder)
    ]
    if models:
        bases = {_base_of(tree, root) for root in roots if root in alone}
        models = [folder for folder in models if name_of(tree, folder) not in bases]
    if models or not alone.issuperset(roots):
        roots = [root for root in roots if root not in alone or not _is_temporary(root)]
    return topmost([*roots, *models])


def _base_of(tree: Tree, adapter: str) -> str:
    """Return the last part of the name of the model that an adapter was trained on; empty: unknown."""
    path = join(adapter, _ADAPTER)
    config = read_json(tree, path, []) if tree.has(path) else None
    base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    return re.split(r"[/\\]", base.rstrip("/\\"))[-1] if isinstance(base, str) else ""


def _only_model(tree: Tree) -> list[str]:
    """Return the folder of the only saved model if there is nothing else, here or some levels below."""
    folder = ""
    while len(names := tree.children.get(folder, ())) == 1 and names[0].endswith("/"):
        folder = join(folder, names[0][:-1])
    # A person's choice is accepted as it is. A model found below is checked first.
    if folder and (
        tree.directory_links or _is_kept_for_others(join(tree.source.name, join(tree.root, folder)))
    ):
        return []
    weights = (path for path in tree.files if path.endswith(WEIGHT_SUFFIXES))
    if any(parent(path) != folder for path in weights):
        return []
    return [folder] if _is_model(tree, folder) else []


def _is_kept_for_others(folder: str) -> bool:
    """Tell by its path whether a folder keeps the starting points of trainings: a cache, downloads, data."""
    return _is_temporary(folder) or any(
        part.lower() in DATA_FOLDERS or part.startswith("models--") for part in folder.split("/")
    )


def _is_temporary(folder: str) -> bool:
    return any(TEMPORARY.search(part.lower()) for part in folder.split("/"))


def _is_model(tree: Tree, folder: str) -> bool:
    """Tell whether a folder contains a complete transformers model."""
    names = names_in(tree, folder)
    if "config.json" not in names or not any(map(_MODEL.fullmatch, names)):
        return False
    config = read_json(tree, join(folder, "config.json"), [])
    return isinstance(config, dict) and bool({"architectures", "model_type"} & config.keys())
