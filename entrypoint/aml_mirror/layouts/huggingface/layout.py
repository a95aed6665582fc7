"""Runs of the Hugging Face ``Trainer``: folders ``checkpoint-<step>``, and often a model in the run's root.

:mod:`aml_mirror.layouts.huggingface.model_roots` finds their roots, and those of OpenVLA.

Sources: transformers 5.23 (``trainer.py``: ``_save_checkpoint``, ``_save``, ``_finalize_training``),
accelerate 1.15 (``checkpointing.py``), peft 0.21, DeepSpeed's ``save_checkpoint``; real runs of transformers
5.23.

- ``checkpoint-<step>/``: the model, written by ``save_pretrained`` (one file, or shards with an index;
  adapters of PEFT), then ``training_args.bin``, then optimizer, scheduler, scaler and random states.
  ``trainer_state.json`` is written last, straight into the final folder. If it is missing, the save was not
  finished.
- Scripts that train with accelerate save its state (``save_state``) into folders with the same names: the
  model, ``optimizer.bin``, ``scheduler.bin``, then ``random_states_<process>.pkl``. They write no trainer's
  state.
- The final checkpoint is the highest step. After training, ``save_model`` writes a model to the root; many
  scripts save into ``final/`` (``final_model``, ``checkpoint-final``, …) instead.
  :mod:`aml_mirror.layouts.huggingface.ends` decides whether that is newer. With ``load_best_model_at_end`` it
  contains the *best* weights, whatever step the root's ``trainer_state.json`` says, and is never the end.
- OpenVLA's checkpoints are folders ``<run>--<step>_chkpt``, or the root, without any file of a Trainer. Parts
  that were trained beside the model, and the adapter that is merged into it, are inside them.
- The best one is ``best_model_checkpoint`` in the newest ``trainer_state.json``. It is an absolute path on
  the training machine; only its last part is used.

What inference loads: the checkpoint's folder, with ``from_pretrained``: weights, ``config.json``, tokenizers,
processors and custom code, and for OpenVLA ``dataset_statistics.json``. Optimizer, scheduler and random
states, ``training_args.bin`` and ``trainer_state.json`` are left out. So are shards of FSDP or DeepSpeed that
repeat weights which are also stored whole. An adapter also needs its base model, which
``adapter_config.json`` names. The folder of VILA and NaVILA (``load_pretrained_model`` in
``llava/model/builder.py``) contains ``config.json`` and the parts, with the tokenizer in ``llm/`` and the
image processor in ``vision_tower/``. After a LoRA training it also contains ``non_lora_trainables.bin``, and
``--model-base`` names the base model. A flag (``--conv-mode``) sets the form of the conversation.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from aml_mirror.layouts.base import Checkpoint, RunDraft
from aml_mirror.layouts.config_files import read_mapping
from aml_mirror.layouts.huggingface.ends import add_ends
from aml_mirror.layouts.huggingface.model_roots import FINAL, STEP, find_roots, is_openvla_step, is_saved
from aml_mirror.layouts.huggingface.same_model import same_model
from aml_mirror.layouts.huggingface.saved_files import common_names, describe, has_weights_below, save_problem
from aml_mirror.layouts.huggingface.trainer_files import TrainerState, arguments_in, state_in, step_in_name
from aml_mirror.layouts.kit.roles import newest_first
from aml_mirror.layouts.step_folders import subfolders
from aml_mirror.sources.tree import Tree, join

# transformers 4.36 and 4.37 saved into tmp-checkpoint-N. Copying tools leave the other names behind.
_TEMPORARY = re.compile(
    r"[._]?tmp[-_.]checkpoint-(?P<step>[0-9]{1,18})|"
    r"\.?checkpoint-(?P<copied>[0-9]{1,18})[-_.~](?:tmp|temp|part|partial|incomplete)(?:[-_.].*)?"
)


class HuggingFace:
    """See the module's docstring. GR00T's layout builds on this one."""

    name = "huggingface"

    def find(self, tree: Tree) -> list[str]:
        return find_roots(tree)

    def read(self, run: Tree) -> RunDraft:
        warnings: list[str] = []
        checkpoints = self._numbered(run)
        ends = [".", *_final_folders(run)]
        newest_state = _newest_state(run, checkpoints, warnings)
        states = [*(state_in(run, end, warnings) for end in ends), newest_state]
        state = max((item for item in states if item), key=lambda item: item.step, default=None)
        folders = [*ends, *(item.path for item in checkpoints[:3])]
        arguments = arguments_in(run, folders)
        result = RunDraft(checkpoints, warnings=warnings)
        numbered = [item for item in checkpoints if not _TEMPORARY.fullmatch(item.path.rpartition("/")[2])]
        self._add_best(run, result, state)
        # Best first: it shows which candidates are not the end.
        others = [
            path for path in ends if not self._add_best_end(run, result, path, state, numbered, arguments)
        ]
        add_ends(run, result, others, newest_state, numbered)
        if state is not None:
            result.logs.append(state.path)
        result.params = self._params(run, result, state, arguments)
        return result

    def _numbered(self, run: Tree) -> list[Checkpoint]:
        found: dict[str, tuple[int, bool]] = {}
        for name, real in subfolders(run).get("", {}).items():
            if match := STEP.fullmatch(name):
                if is_saved(run, real) or has_weights_below(run, real):
                    found[real] = (int(match["step"]), False)
            elif is_openvla_step(run, name, real):
                found[real] = (step_in_name(name) or 0, False)
            elif match := _TEMPORARY.fullmatch(name):
                found[real] = (int(match["step"] or match["copied"]), True)
        order = sorted(found, key=lambda path: (-found[path][0], found[path][1], path))
        kept = [path for path in order if not found[path][1]]
        expected = set().union(*(common_names(run, path) for path in kept))
        checkpoints = []
        for path in order:
            step, temporary = found[path]
            checkpoint = describe(run, path, step, "periodic")
            if temporary:
                problem = "it is a temporary folder: the save was not finished"
            else:
                problem = checkpoint.problem or save_problem(run, path, expected)
            checkpoints.append(replace(checkpoint, problem=problem))
        return newest_first(checkpoints)

    def _add_best(self, run: Tree, result: RunDraft, state: TrainerState | None) -> None:
        name = state.best_name if state else ""
        if not name:
            return
        for checkpoint in result.checkpoints:
            if checkpoint.path.rpartition("/")[2] == name or checkpoint.path == run.resolve(name):
                result.best = replace(checkpoint, role="best")
                return

    def _add_best_end(
        self,
        run: Tree,
        result: RunDraft,
        path: str,
        state: TrainerState | None,
        numbered: list[Checkpoint],
        arguments: dict[str, Any],
    ) -> bool:
        """Place a model that is the best one, loaded back at the end; False: this is not one.

        It is listed if its checkpoint no longer exists or is different.
        """
        root = describe(run, path, None, "periodic")
        if not root.weights:
            return False
        loaded_best = arguments.get("load_best_model_at_end")
        is_copy = result.best is not None and same_model(run, root, result.best)
        name = state.best_name if state else ""
        if not (loaded_best is True and name) and not (loaded_best is None and is_copy):
            return False
        newest = numbered[0] if numbered else None
        step = result.best.step if result.best else step_in_name(name)
        root = replace(root, step=step)
        last = state.step if state else 0
        if last > ((newest.step if newest else step) or 0):
            result.warnings.append(
                f"training ended at step {last}, but the run has no model of that step: the model in the "
                f"run's folder is the best one, from step {step}"
            )
        if is_copy:
            return True
        if result.best is None:
            result.best = replace(root, role="best")
        # Behind the others of its step: it replaces a damaged one.
        place = sum(1 for item in result.checkpoints if step is None or (item.step or 0) >= step)
        result.checkpoints.insert(place, replace(root, role="periodic" if place else "final"))
        return True

    def _params(
        self, run: Tree, result: RunDraft, state: TrainerState | None, arguments: dict[str, Any]
    ) -> dict[str, Any]:
        params: dict[str, Any] = {}
        if arguments:
            params["training_args"] = arguments
        if state is not None:
            kept = ("num_train_epochs", "max_steps", "train_batch_size", "best_metric", "total_flos")
            said = {key: state.values[key] for key in kept if state.values.get(key) is not None}
            if said:
                params["trainer_state"] = said
        for name in ("config.json", "adapter_config.json"):
            for checkpoint in result.checkpoints[:3]:
                path = join(checkpoint.path, name)
                if path in checkpoint.files:
                    params[name.removesuffix(".json")] = read_mapping(run, path, result.warnings)
                    break
        return params


def _final_folders(run: Tree) -> list[str]:
    below = subfolders(run).get("", {})
    return sorted(real for name, real in below.items() if FINAL.fullmatch(name) and is_saved(run, real))


def _newest_state(run: Tree, checkpoints: list[Checkpoint], warnings: list[str]) -> TrainerState | None:
    """Read the state of the newest checkpoint that has a complete one."""
    for checkpoint in checkpoints:
        if state := state_in(run, checkpoint.path, warnings):
            return state
    return None
