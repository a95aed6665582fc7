"""ProtoMotions: ``last.ckpt``, ``epoch_<epoch>.ckpt`` and ``score_based.ckpt`` in the run's root.

``BaseAgent.save`` of NVlabs/ProtoMotions (``protomotions/agents/base_agent/agent.py``, main branch of 2026)
writes ``last.ckpt`` every few epochs, at each new best score and when training ends. It writes
``epoch_<epoch>.ckpt`` at its own interval, and ``score_based.ckpt`` at each new best score of the evaluator.
Each contains its ``epoch``, which decides what is newest. ``env_<task>.ckpt`` is the state of the
environment, needed only for further training.

What inference loads: the checkpoint and ``resolved_configs_inference.pt`` beside it
(``protomotions/inference_agent.py``); scripts fall back to ``resolved_configs.pt``.
"""

from __future__ import annotations

from aml_mirror.layouts.kit.file_layout import FileLayout

PROTO_MOTIONS = FileLayout(
    name="protomotions",
    numbered=r"epoch_(?P<step>\d{1,18})\.ckpt",
    final=r"last\.ckpt",
    best=r"score_based\.ckpt",
    beside=("resolved_configs*",),
    step_key="epoch",
    companions=("resolved_configs_inference.pt", "resolved_configs.pt", "resolved_configs.yaml"),
    left_out=(("env_*.ckpt", "state of the environment, needed only for further training"),),
)
