"""Runs of OpenPI: folders named by their step, written by Orbax (JAX) or by ``train_pytorch.py`` (torch).

Sources: Physical-Intelligence/openpi of June 2026 (``training/checkpoints.py``, ``scripts/train_pytorch.py``,
``policies/policy_config.py``), orbax-checkpoint 0.11.13 (which it pins) and 0.12.8: real checkpoints of both,
written in the same way as ``checkpoints.py`` does.

- JAX: ``<step>/{params,train_state,assets}`` and ``_CHECKPOINT_METADATA``. People delete ``train_state`` to
  save space. A composite of Orbax with other items (``{params,opt_state}``) is not OpenPI's. Orbax writes
  into ``<step>.orbax-checkpoint-tmp[-<time>]`` and renames it. On object storage, and everywhere since 0.12,
  it adds ``commit_success.txt`` last. ``params`` is an OCDBT store: ``manifest.ocdbt`` names the tree in
  ``d/``, which names the data in ``ocdbt.process_<n>/d/``. All of them are needed.
- torch: ``<step>/{model.safetensors,optimizer.pt,metadata.pt,assets}``, written into ``tmp_<step>`` and
  renamed.
- The final one is the highest step (``num_train_steps - 1``). There is no best one, and no event file.

What inference loads: ``params/`` or ``model.safetensors``, and ``assets/<id>/norm_stats.json``
(``create_trained_policy`` in ``policies/policy_config.py``, ``scripts/serve_policy.py``). The configuration
is code, and is selected with the flag ``--policy.config``.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from aml_mirror.core.errors import DataError
from aml_mirror.formats.archives import MAX_PICKLE_BYTES, Archive
from aml_mirror.formats.ocdbt import store_problem
from aml_mirror.formats.pickle_values import pickled_values
from aml_mirror.layouts.base import Checkpoint, RunDraft
from aml_mirror.layouts.config_files import read_json
from aml_mirror.layouts.kit.other_ends import ask_about_other_ends
from aml_mirror.layouts.run_roots import topmost
from aml_mirror.layouts.step_folders import names_in, subfolders, word_set
from aml_mirror.sources.tree import Tree, join

_STEP = re.compile(r"[0-9]{1,18}")
_TEMPORARY = re.compile(r"tmp_(?P<torch>[0-9]{1,18})|(?P<jax>[0-9]{1,18})\.orbax-checkpoint-tmp.*")
_UNFINISHED = ".orbax-checkpoint-tmp"
_TORCH_WEIGHTS = "model.safetensors"
_METADATA = "_CHECKPOINT_METADATA"
_COMMITTED = "commit_success.txt"
_TRAINING_ONLY = {
    "train_state": "state of the training",
    "optimizer.pt": "optimizer state",
    "metadata.pt": "progress and configuration of the training",
}
# Files of other frameworks that may have an assets folder beside model.safetensors.
_FOREIGN = frozenset({"trainer_state.json", "training_args.bin", "train_config.json"})
_CONFIG_NAMES = word_set(
    "name exp_name project_name global_step batch_size num_train_steps save_interval keep_period seed "
    "num_workers log_interval ema_decay peak_lr warmup_steps decay_steps decay_lr clip_gradient_norm "
    "weight_decay pytorch_training_precision repo_id asset_id action_dim action_horizon"
)


class OpenPi:
    """See the module's docstring."""

    name = "openpi"

    def find(self, tree: Tree) -> list[str]:
        roots = []
        for folder, below in subfolders(tree).items():
            if any(_is_named(name) and _is_checkpoint(tree, real) for name, real in below.items()):
                roots.append(folder)
        # One step, passed by itself.
        if not roots and _is_checkpoint(tree, ""):
            return [""]
        return topmost(roots)

    def read(self, run: Tree) -> RunDraft:
        result = RunDraft([])
        found: dict[str, tuple[int, bool]] = {}
        for name, real in subfolders(run).get("", {}).items():
            if _STEP.fullmatch(name):
                found[real] = (int(name), False)
            elif match := _TEMPORARY.fullmatch(name):
                found[real] = (int(match["torch"] or match["jax"]), True)
        whole = [path for path, (_, temporary) in found.items() if not temporary]
        committed = any(run.has(join(path, _COMMITTED)) for path in whole)
        with_assets = [path for path in whole if run.has_folder(join(path, "assets"))]
        for path in sorted(found, key=lambda item: (-found[item][0], found[item][1], item)):
            step, temporary = found[path]
            checkpoint = _describe(run, path, step)
            if temporary:
                problem = "it is a temporary folder: the save was not finished"
            else:
                problem = checkpoint.problem
                if committed and not run.has(join(path, _COMMITTED)):
                    problem = problem or f"{_COMMITTED}, which is written last, is missing"
                if with_assets and path not in with_assets:
                    problem = problem or "assets, which the run's other checkpoints have, is missing"
            result.checkpoints.append(replace(checkpoint, problem=problem))
        if not found and _is_checkpoint(run, ""):
            name = (run.root or run.source.name).rpartition("/")[2]
            result.checkpoints.append(_describe(run, "", int(name) if _STEP.fullmatch(name) else None))
        if result.checkpoints:
            result.checkpoints[0] = replace(result.checkpoints[0], role="final")
            result.params = _params(run, result.checkpoints)
        ask_about_other_ends(run, result, lambda path: _describe(run, path, None))
        return result


def _is_named(name: str) -> bool:
    return bool(_STEP.fullmatch(name) or _TEMPORARY.fullmatch(name))


def _is_checkpoint(tree: Tree, folder: str) -> bool:
    names = names_in(tree, folder)
    has_assets = any(path.endswith("/norm_stats.json") for path in tree.walk(join(folder, "assets")))
    if _TORCH_WEIGHTS in names or {"optimizer.pt", "metadata.pt"} <= names:
        # Many frameworks write numbers with a model.safetensors. The other files are OpenPI's own.
        return "metadata.pt" in names or (has_assets and _FOREIGN.isdisjoint(names))
    parts = names_in(tree, join(folder, "params"))
    if not parts & {"_METADATA", "manifest.ocdbt"} and not tree.has_folder(join(folder, "params/d")):
        return False
    if has_assets or tree.has_folder(join(folder, "train_state")):
        return True
    # Any composite of Orbax may have an item with that name. One with other items beside it is not OpenPI's.
    items = {name[:-1].partition(_UNFINISHED)[0] for name in tree.children.get(folder, ()) if name[-1] == "/"}
    return _METADATA in names and items <= {"params", "train_state", "assets"}


def _describe(run: Tree, path: str, step: int | None) -> Checkpoint:
    files, left = [], []
    for file in run.walk(path):
        inside = file[len(path) + 1 :] if path else file
        reason = _TRAINING_ONLY.get(inside.partition("/")[0])
        if reason:
            left.append((file, reason))
        else:
            files.append(file)
    torch = join(path, _TORCH_WEIGHTS)
    params = join(path, "params")
    if torch in files:
        weights, problem = [torch], ""
    else:
        inside_params = [file for file in files if file.startswith(params + "/")]
        weights = [file for file in inside_params if "/d/" in file or file.endswith("manifest.ocdbt")]
        problem = _params_problem(run, params, inside_params, weights)
        problem = problem or _metadata_problem(run, join(path, _METADATA))
    return Checkpoint(
        path or ".",
        step,
        "periodic",
        tuple(sorted(files)),
        tuple(sorted(weights)),
        tuple(sorted(left)),
        problem,
    )


def _params_problem(run: Tree, params: str, files: list[str], weights: list[str]) -> str:
    if not files:
        return "it contains no weights: neither model.safetensors nor params"
    if any(_UNFINISHED in file for file in files):
        return "params contains a temporary folder: the save was not finished"
    if join(params, "_METADATA") not in files:
        return "params/_METADATA is missing"
    manifest = join(params, "manifest.ocdbt")
    if manifest not in files:
        # Without OCDBT each array is its own folder, with its shape in .zarray or zarr.json.
        if any(file.endswith(("/.zarray", "/zarr.json")) for file in files):
            weights += [file for file in files if file not in weights and not file.endswith("_METADATA")]
            return ""
        return "params/manifest.ocdbt is missing"
    for file in files:
        inside = file[len(params) + 1 :]
        if inside.startswith("array_metadatas/process_"):
            store = "ocdbt." + inside.partition("/")[2]
            if not any(other.startswith(join(params, f"{store}/d/")) for other in files):
                return f"params/{store}, the arrays of one process, is missing"
    problem = store_problem(run, params)
    return f"params/{problem}" if problem else ""


def _metadata_problem(run: Tree, path: str) -> str:
    if not run.has(path):
        return ""
    values = read_json(run, path, [])
    if not isinstance(values, dict):
        return f"{_METADATA} is damaged"
    if "commit_timestamp_nsecs" in values and not values["commit_timestamp_nsecs"]:
        return f"{_METADATA} says that the save was not finished"
    return ""


def _params(run: Tree, checkpoints: list[Checkpoint]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for checkpoint in checkpoints:
        if checkpoint.problem:
            continue
        assets = join(checkpoint.path, "assets") + "/"
        ids = [
            file[len(assets) : -len("/norm_stats.json")]
            for file in checkpoint.files
            if file.startswith(assets) and file.endswith("/norm_stats.json")
        ]
        if ids:
            params["asset_id"] = ids[0] if len(ids) == 1 else ids
        metadata = join(checkpoint.path, "metadata.pt")
        if run.has(metadata):
            params |= {"config": values} if (values := _torch_config(run, metadata)) else {}
        break
    return params


def _torch_config(run: Tree, path: str) -> dict[str, Any]:
    """Find the plain values of the training's configuration in metadata.pt, without unpickling it."""
    try:
        archive = Archive(lambda start, count: run.read(path, start, count), run.size(path))
        data = archive.read(archive.find("data.pkl") or "", MAX_PICKLE_BYTES)
    except (ValueError, DataError):
        return {}
    values = pickled_values(data, _CONFIG_NAMES)
    return {key: values[key] for key in sorted(values) if values[key] is not None}
