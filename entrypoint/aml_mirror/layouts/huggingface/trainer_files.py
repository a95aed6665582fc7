"""What the Trainer's own files say about a training: its state in JSON, its arguments without unpickling."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aml_mirror.core.errors import DataError
from aml_mirror.formats.archives import MAX_PICKLE_BYTES, Archive
from aml_mirror.formats.pickle_values import pickled_values
from aml_mirror.layouts.base import Checkpoint
from aml_mirror.layouts.config_files import read_json
from aml_mirror.layouts.huggingface.model_roots import ARGUMENTS, OPENVLA_STEP, STATE, STEP
from aml_mirror.layouts.step_folders import word_set
from aml_mirror.sources.tree import Tree, join

# The largest real training_args.bin has some KB. Larger files are not compared.
_MAX_ARGUMENTS_BYTES = 1 << 20
# Plain values in training_args.bin that describe the training, found without unpickling.
_ARGUMENT_NAMES = word_set(
    "learning_rate per_device_train_batch_size gradient_accumulation_steps num_train_epochs max_steps "
    "weight_decay warmup_steps warmup_ratio adam_beta1 adam_beta2 adam_epsilon max_grad_norm seed bf16 fp16 "
    "gradient_checkpointing save_steps save_total_limit dataloader_num_workers label_smoothing_factor "
    "load_best_model_at_end metric_for_best_model greater_is_better run_name"
)


@dataclass(frozen=True, slots=True)
class TrainerState:
    """The values used from a ``trainer_state.json``."""

    path: str
    values: dict[str, Any]

    @property
    def step(self) -> int:
        """The step at which it was saved."""
        return whole(self.values.get("global_step")) or 0

    @property
    def planned(self) -> int | None:
        """The step at which the training was planned to end."""
        return whole(self.values.get("max_steps")) or None

    @property
    def ended(self) -> bool:
        """Whether the training had reached the planned end."""
        return self.planned is not None and self.step >= self.planned

    @property
    def may_stop_early(self) -> bool:
        """Whether the training may end before the planned step."""
        callbacks = self.values.get("stateful_callbacks")
        return isinstance(callbacks, dict) and "EarlyStoppingCallback" in callbacks

    @property
    def best_name(self) -> str:
        """The folder name of the best checkpoint; empty: not stated."""
        path = self.values.get("best_model_checkpoint")
        if isinstance(path, str) and path.strip("/\\"):
            return re.split(r"[/\\]", path.rstrip("/\\"))[-1]
        step = whole(self.values.get("best_global_step"))
        return f"checkpoint-{step}" if step else ""

    def history(self, until: int) -> dict[int, Any]:
        """Map each logged step up to ``until`` to its loss."""
        entries = self.values.get("log_history")
        return {
            step: entry["loss"]
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, dict) and "loss" in entry
            if (step := whole(entry.get("step"))) is not None and step <= until
        }

    def is_of_same_training(self, other: TrainerState) -> bool | None:
        """Return whether one training continues the other, by the losses that both logged. None: unknown."""
        until = min(self.step, other.step)
        one, two = self.history(until), other.history(until)
        shared = one.keys() & two.keys()
        return all(one[step] == two[step] for step in shared) if shared else None


def state_in(run: Tree, folder: str, warnings: list[str]) -> TrainerState | None:
    """Read the state in a folder; None if there is none, or if it is damaged (with a warning)."""
    path = join(folder, STATE)
    if run.has(path) and isinstance(values := read_json(run, path, warnings), dict):
        return TrainerState(path, values)
    return None


def arguments_in(run: Tree, folders: Iterable[str]) -> dict[str, Any]:
    """Return plain values of the first ``training_args.bin`` in these folders that contains any."""
    for path in (join(folder, ARGUMENTS) for folder in folders):
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


def has_arguments(run: Tree, checkpoint: Checkpoint) -> bool:
    """Tell whether the arguments of the training were saved with a checkpoint."""
    return run.has(join(checkpoint.path, ARGUMENTS))


def same_arguments(run: Tree, one: Checkpoint, other: Checkpoint) -> bool:
    """Tell whether two checkpoints were saved with the same arguments, byte by byte."""
    paths = join(one.path, ARGUMENTS), join(other.path, ARGUMENTS)
    if not all(map(run.has, paths)):
        return False
    sizes = {run.size(path) for path in paths}
    if len(sizes) > 1 or max(sizes) > _MAX_ARGUMENTS_BYTES:
        return False
    (size,) = sizes
    return run.read(paths[0], 0, size) == run.read(paths[1], 0, size)


def step_in_name(name: str) -> int | None:
    """Return the step at the beginning of a folder's name, as the Trainer or OpenVLA writes it."""
    match = STEP.match(name) or OPENVLA_STEP.fullmatch(name)
    return int(match["step"]) if match else None


def whole(value: Any) -> int | None:
    """Return the value if it is an integer that is not negative."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
