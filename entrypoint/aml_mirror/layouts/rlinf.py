"""RLinf: ``checkpoints/global_step_<step>/`` with the actor's weights.

``save_checkpoint`` of RLinf/RLinf (``rlinf/hybrid_engines/fsdp/strategy/base.py``, the runners in
``rlinf/runners/``; main branch of 2026) saves ``actor/dcp_checkpoint/``, where torch.distributed stores
weights, optimizer and scheduler. With ``save_full_model_weights`` it also saves
``actor/model_state_dict/full_weights.pt``. ``best_model/`` is kept for its score.

What inference loads: ``full_weights.pt``, and for OpenPI's policies the statistics
``<asset>/norm_stats.json`` in the checkpoint. Without ``full_weights.pt`` it needs ``dcp_checkpoint/``. Its
configuration says which base model the weights are loaded into (``actor.model.model_path``). Tokenizer and
processor are in that model's folder, which is not part of the run.
"""

from __future__ import annotations

from dataclasses import replace

from aml_mirror.layouts.base import Checkpoint, RunDraft
from aml_mirror.layouts.kit.folder_layout import FolderLayout
from aml_mirror.sources.tree import Tree

_WHOLE = "/model_state_dict/full_weights.pt"
_SHARDS = "/dcp_checkpoint/"


def _without_shards(checkpoint: Checkpoint) -> Checkpoint:
    """Leave out the shards of a model if its whole weights exist too."""
    models = {path.removesuffix(_WHOLE) for path in checkpoint.weights if path.endswith(_WHOLE)}
    shards = [path for path in checkpoint.files if _SHARDS in path and path.partition(_SHARDS)[0] in models]
    reason = "repeats full_weights.pt, with the state of the optimizer"
    return replace(
        checkpoint,
        files=tuple(path for path in checkpoint.files if path not in shards),
        weights=tuple(path for path in checkpoint.weights if path not in shards),
        left_out=tuple(sorted({*checkpoint.left_out, *((path, reason) for path in shards)})),
    )


def _refined(run: Tree, result: RunDraft) -> RunDraft:
    result.checkpoints = [_without_shards(item) for item in result.checkpoints]
    result.best = _without_shards(result.best) if result.best else None
    return result


RLINF = FolderLayout(
    name="rlinf",
    folder="checkpoints",
    optional_folder=True,
    numbered=r"global_step_(?P<step>\d{1,18})",
    best=r"best_model",
    inside=("*model_state_dict/full_weights.pt", "actor/dcp_checkpoint/*"),
    refine=_refined,
)
