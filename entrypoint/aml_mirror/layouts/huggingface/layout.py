"""Runs of the Hugging Face ``Trainer``: folders ``checkpoint-<step>``, and often a model in the run's root.

Where they begin, and OpenVLA's, tells :mod:`aml_mirror.layouts.huggingface.model_roots`.

Sources: transformers 5.23 (``trainer.py``: ``_save_checkpoint``, ``_save``, ``_finalize_training``),
accelerate 1.15 (``checkpointing.py``), peft 0.21, DeepSpeed's ``save_checkpoint``; real runs of
transformers 5.23.

- ``checkpoint-<step>/``: the model by ``save_pretrained`` (one file or shards with an index; adapters of
  PEFT), then ``training_args.bin``, then optimizer, scheduler, scaler and random states, and
  ``trainer_state.json`` last, straight into the final folder. Where it is missing, saving had not ended.
- Scripts that train with accelerate save its state (``save_state``) into folders of the same names: the
  model, ``optimizer.bin``, ``scheduler.bin``, then ``random_states_<process>.pkl``, no trainer's state.
- The final one is the highest step. The root's model is written by ``save_model`` after training. With
  ``load_best_model_at_end`` it holds the *best* weights, whatever step the root's ``trainer_state.json``
  says, so it is the final one only where it does not and is newer than every ``checkpoint-<step>``. Many
  scripts save into ``final/`` (``final_model``, ``final_checkpoint``, …) instead, and that is no other model.
- OpenVLA's checkpoints are folders ``<run>--<step>_chkpt``, or the root, without any file of a Trainer; parts
  that were trained beside the model and the adapter that is merged into it lie in them.
- The best one is ``best_model_checkpoint`` in the newest ``trainer_state.json``: an absolute path of the
  machine that trained, of which only the last part is used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from aml_mirror.core.errors import DataError
from aml_mirror.formats.archives import MAX_PICKLE_BYTES, Archive
from aml_mirror.formats.pickle_values import pickled_values
from aml_mirror.layouts.base import Checkpoint, Role, Run
from aml_mirror.layouts.config_files import read_json, read_mapping
from aml_mirror.layouts.huggingface.model_roots import (
    ARGUMENTS,
    FINAL,
    FSDP,
    OPENVLA_PART,
    OPENVLA_STEP,
    STATE,
    STEP,
    WEIGHT_SUFFIXES,
    adapters_in,
    find_roots,
    has_adapters,
    is_openvla_step,
    is_saved,
    name_of,
)
from aml_mirror.layouts.step_folders import names_in, same_files, shard_problem, subfolders, word_set
from aml_mirror.sources.tree import Tree, join

# What accelerate's main process writes last of what it saves: no other one writes the model.
RANDOM_STATES = "random_states_0.pkl"

# transformers 4.36 and 4.37 saved into tmp-checkpoint-N; the rest is what copying tools leave behind.
_TEMPORARY = re.compile(
    r"[._]?tmp[-_.]checkpoint-(?P<step>[0-9]{1,18})|"
    r"\.?checkpoint-(?P<copied>[0-9]{1,18})[-_.~](?:tmp|temp|part|partial|incomplete)(?:[-_.].*)?"
)
# (what a file's or folder's name matches, why it is left out). Held against the first part of a path
# below the checkpoint and against its last.
_TRAINING_ONLY: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?:.+-)?optimizer(?:_[0-9]+)?(?:\.(?:pt|bin))?"), "optimizer state"),
    (re.compile(r"scheduler(?:_[0-9]+)?\.(?:pt|bin)"), "learning-rate scheduler state"),
    (re.compile(r"scaler\.pt"), "gradient scaler state"),
    (re.compile(r"rng_state.*\.pth|random_states_.*\.pkl"), "random generator state"),
    (re.compile(r"training_args\.bin"), "arguments of the training"),
    (re.compile(r"trainer_state\.json"), "progress of the training"),
    # The folder is global_step<N> by the Trainer, pytorch_model by accelerate.
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
# pipelines and of GR00T. Everything else (logs, datasets, other models) is not the model's.
_ROOT_FOLDERS = re.compile(
    r"[0-9]+_[A-Z]\w*|additional_chat_templates|tokenizer(?:_[0-9])?|processor|experiment_cfg|"
    r"text_encoder(?:_[0-9])?|unet|vae|transformer|scheduler|feature_extractor|image_encoder|safety_checker"
)
# Plain values in training_args.bin, found without unpickling, that say how the run was trained.
_ARGUMENT_NAMES = word_set(
    "learning_rate per_device_train_batch_size gradient_accumulation_steps num_train_epochs max_steps "
    "weight_decay warmup_steps warmup_ratio adam_beta1 adam_beta2 adam_epsilon max_grad_norm seed bf16 fp16 "
    "gradient_checkpointing save_steps save_total_limit dataloader_num_workers label_smoothing_factor "
    "load_best_model_at_end metric_for_best_model greater_is_better run_name"
)


@dataclass(frozen=True, slots=True)
class _State:
    """What is used of a ``trainer_state.json``."""

    path: str
    values: dict[str, Any]

    @property
    def step(self) -> int:
        return _number(self.values.get("global_step")) or 0


class HuggingFace:
    """See the module. GR00T's layout builds on this one."""

    name = "huggingface"

    def find(self, tree: Tree) -> list[str]:
        return find_roots(tree)

    def read(self, run: Tree) -> Run:
        warnings: list[str] = []
        checkpoints = self._numbered(run)
        ends = [".", *_final_folders(run)]
        states = _states(run, ends, checkpoints, warnings)
        state = max(states, key=lambda item: item.step, default=None)
        arguments = _arguments(run, ends, checkpoints)
        result = Run(checkpoints, warnings=warnings)
        self._add_best(run, result, state)
        for path in ends:
            self._add_end(run, result, path, state, states, arguments)
        if state is not None:
            result.logs.append(state.path)
        result.params = self._params(run, result, state, arguments)
        return result

    def _numbered(self, run: Tree) -> list[Checkpoint]:
        found: dict[str, tuple[int, bool]] = {}
        for name, real in subfolders(run).get("", {}).items():
            if match := STEP.fullmatch(name):
                if is_saved(run, real) or _has_folder_of_weights(run, real):
                    found[real] = (int(match["step"]), False)
            elif is_openvla_step(run, name, real):
                found[real] = (_step_of(name) or 0, False)
            elif match := _TEMPORARY.fullmatch(name):
                found[real] = (int(match["step"] or match["copied"]), True)
        order = sorted(found, key=lambda path: (-found[path][0], found[path][1], path))
        kept = [path for path in order if not found[path][1]]
        expected = set().union(*(_told(run, path) for path in kept))
        checkpoints = []
        for path in order:
            step, temporary = found[path]
            checkpoint = describe(run, path, step, "periodic")
            if temporary:
                problem = "it is a temporary folder: the save had not ended"
            else:
                problem = checkpoint.problem or _save_problem(run, path, expected)
            checkpoints.append(replace(checkpoint, problem=problem))
        if checkpoints:
            checkpoints[0] = replace(checkpoints[0], role="final")
        return checkpoints

    def _add_best(self, run: Tree, result: Run, state: _State | None) -> None:
        name = _best_name(state)
        if not name:
            return
        for checkpoint in result.checkpoints:
            if checkpoint.path.rpartition("/")[2] == name or checkpoint.path == run.resolve(name):
                result.best = replace(checkpoint, role="best")
                return

    def _add_end(
        self,
        run: Tree,
        result: Run,
        path: str,
        state: _State | None,
        states: list[_State],
        arguments: dict[str, Any],
    ) -> None:
        """Place the model of the root or of ``final/``: as the final one, as the best one, or not at all."""
        root = describe(run, path, None, "periodic")
        if not root.weights:
            return
        numbered = [
            item for item in result.checkpoints if not _TEMPORARY.fullmatch(item.path.rpartition("/")[2])
        ]
        newest = numbered[0] if numbered else None
        loaded_best = arguments.get("load_best_model_at_end")
        is_copy = result.best is not None and same_files(run, root.weights, result.best.weights)
        if (loaded_best is True and _best_name(state)) or (loaded_best is None and is_copy):
            self._add_best_root(result, root, state, newest, is_copy)
            return
        # The root's state is that of the end too where the model was saved into a folder.
        step = next((item.step for item in states if item.path in (join(path, STATE), STATE)), None)
        newest_step = (newest.step if newest else None) or 0
        if newest is not None and same_files(run, root.weights, newest.weights):
            return
        if step is None and state is not None and newest is not None:
            step = _ended_at(state, newest_step)
        if step is None and newest is None and path == ".":
            # One checkpoint passed by itself.
            step = _step_of(name_of(run))
        root = replace(root, step=step)
        if newest is None or (step is not None and step > newest_step):
            place = 0
        elif step is None:
            place = result.checkpoints.index(newest) + 1
            if state is None:
                # Scripts without a Trainer save there at their end too, but nothing keeps the step.
                where = "the run's folder" if path == "." else path
                result.warnings.append(
                    f"{newest.path} has the highest step, but {where} holds another model, maybe a newer "
                    f"one: nothing says its step; --checkpoint {path} takes it"
                )
        else:
            place = sum(1 for item in result.checkpoints if (item.step or 0) >= step)
        result.checkpoints.insert(place, root)
        result.checkpoints[0] = replace(result.checkpoints[0], role="final")
        for number in range(1, len(result.checkpoints)):
            result.checkpoints[number] = replace(result.checkpoints[number], role="periodic")

    def _add_best_root(
        self, result: Run, root: Checkpoint, state: _State | None, newest: Checkpoint | None, is_copy: bool
    ) -> None:
        """Place a root model that is the best one: where its checkpoint is gone or is not the same."""
        step = result.best.step if result.best else _step_of(_best_name(state))
        root = replace(root, step=step)
        last = state.step if state else 0
        if last > ((newest.step if newest else step) or 0):
            result.warnings.append(
                f"training ended at step {last}, but the run keeps no model of it: the one in the run's "
                f"folder is the best one, of step {step}, loaded back at the end"
            )
        if is_copy:
            return
        if result.best is None:
            result.best = replace(root, role="best")
        # Behind the others of its step: it stands in for a damaged one.
        place = sum(1 for item in result.checkpoints if step is None or (item.step or 0) >= step)
        result.checkpoints.insert(place, replace(root, role="periodic" if place else "final"))

    def _params(
        self, run: Tree, result: Run, state: _State | None, arguments: dict[str, Any]
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


def describe(run: Tree, path: str, step: int | None, role: Role) -> Checkpoint:
    """Describe the model saved in a folder: its files, its weights, what is training-only."""
    folder = "" if path == "." else path
    files, left = [], []
    for file in _root_files(run) if path == "." else run.walk(folder):
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
        left += [(file, "FSDP shards; the same weights stand in the model's own files") for file in sharded]
        files = full
    elif sharded:
        weights = sharded
        if any(file.endswith(".distcp") for file in sharded) and not any(
            file.endswith("/.metadata") for file in sharded
        ):
            problem = problem or "its FSDP shards lack .metadata, which is written last"
    elif any(reason.startswith("DeepSpeed") for _, reason in left):
        problem = problem or (
            "it holds DeepSpeed shards only; make weights of them with zero_to_fp32.py in that folder"
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


def _root_files(run: Tree) -> list[str]:
    found = sorted(names_in(run, ""))
    adapters = adapters_in(run, "") if has_adapters(run, "") else []
    for name in (name[:-1] for name in run.children.get("", ()) if name.endswith("/")):
        if _ROOT_FOLDERS.fullmatch(name) or FSDP.fullmatch(name) or name in adapters:
            found += run.walk(name)
    return found


def _why_left(inside: str, is_root: bool) -> str:
    first, last = inside.partition("/")[0], inside.rpartition("/")[2]
    for pattern, reason in (*_TRAINING_ONLY, *(_ROOT_ONLY if is_root else ())):
        # A pipeline's folder scheduler/ or optimizer-like names deeper down are the model's own.
        if pattern.fullmatch(first) or ("/" in inside and "log" in reason and pattern.fullmatch(last)):
            return reason
    return ""


def _has_folder_of_weights(tree: Tree, folder: str) -> bool:
    """Tell of a pipeline saved in parts (diffusers): checkpoint-500/unet/….safetensors."""
    return any(path.endswith(".safetensors") for path in tree.walk(folder))


def _told(run: Tree, path: str) -> set[str]:
    """Return what every checkpoint of a run has if one has it: names, and which of OpenVLA's parts."""
    names = names_in(run, path)
    parts = {match["part"] for name in names if (match := OPENVLA_PART.fullmatch(name))}
    return names & {STATE, RANDOM_STATES, "config.json", "adapter_config.json", "model_index.json"} | parts


def _is_of_accelerate(names: set[str]) -> bool:
    """Tell of a folder that accelerate's ``save_state`` wrote, by itself, to its end."""
    trainers = ARGUMENTS in names or any(name.startswith("rng_state") for name in names)
    return RANDOM_STATES in names and not trainers


def _save_problem(run: Tree, path: str, expected: set[str]) -> str:
    names = names_in(run, path)
    if STATE in names:
        state = join(path, STATE)
        size = run.size(state)
        if run.read(state, max(0, size - 64), 64).rstrip()[-1:] != b"}":
            return f"{STATE}, which is written last, is cut: the save had not ended"
    elif STATE in expected or (
        any(name.startswith(("optimizer.", "scheduler.", "rng_state")) for name in names)
        and not _is_of_accelerate(names)
    ):
        return f"{STATE}, which is written last, is missing: the save had not ended"
    for name in sorted(expected - _told(run, path) - {STATE}):
        return f"{name}, which the run's other checkpoints have, is missing"
    return ""


def _final_folders(run: Tree) -> list[str]:
    below = subfolders(run).get("", {})
    return sorted(real for name, real in below.items() if FINAL.fullmatch(name) and is_saved(run, real))


def _states(run: Tree, ends: list[str], checkpoints: list[Checkpoint], warnings: list[str]) -> list[_State]:
    """Read each ``trainer_state.json`` of the end and that of the newest checkpoint that has a whole one."""
    found = []
    for path in [join(end, STATE) for end in ends]:
        if run.has(path) and isinstance(values := read_json(run, path, warnings), dict):
            found.append(_State(path, values))
    for checkpoint in checkpoints:
        path = join(checkpoint.path, STATE)
        if run.has(path) and isinstance(values := read_json(run, path, warnings), dict):
            found.append(_State(path, values))
            break
    return found


def _arguments(run: Tree, ends: list[str], checkpoints: list[Checkpoint]) -> dict[str, Any]:
    for path in (join(folder, ARGUMENTS) for folder in (*ends, *(item.path for item in checkpoints[:3]))):
        if not run.has(path):
            continue
        try:
            archive = Archive(lambda start, count, path=path: run.read(path, start, count), run.size(path))  # type: ignore[misc]
            data = archive.read(archive.find("data.pkl") or "", MAX_PICKLE_BYTES)
        except (ValueError, DataError):
            continue
        values = pickled_values(data, _ARGUMENT_NAMES)
        if values:
            return {key: values[key] for key in sorted(values) if values[key] is not None}
    return {}


def _best_name(state: _State | None) -> str:
    if state is None:
        return ""
    path = state.values.get("best_model_checkpoint")
    if isinstance(path, str) and path.strip("/\\"):
        return re.split(r"[/\\]", path.rstrip("/\\"))[-1]
    step = _number(state.values.get("best_global_step"))
    return f"checkpoint-{step}" if step else ""


def _step_of(name: str) -> int | None:
    match = STEP.match(name) or OPENVLA_STEP.fullmatch(name)
    return int(match["step"]) if match else None


def _ended_at(state: _State, newest: int) -> int | None:
    """Return the step at which a training ended that saved its model in the root but not its state."""
    callbacks = state.values.get("stateful_callbacks")
    may_stop_early = isinstance(callbacks, dict) and "EarlyStoppingCallback" in callbacks
    planned = _number(state.values.get("max_steps"))
    return planned if planned and planned > newest and not may_stop_early else None


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
