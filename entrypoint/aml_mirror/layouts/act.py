"""ACT and ALOHA: ``policy_epoch_<epoch>_seed_<seed>.ckpt``, ``policy_last.ckpt`` and ``policy_best.ckpt``.

Mobile ALOHA's (MarkFzp/act-plus-plus) counts steps: ``policy_step_<step>_seed_<seed>.ckpt``.

``imitate_episodes.py`` of tonyzhaozh/act (main; Mobile ALOHA and other forks kept it) saves every 100 epochs,
``policy_last.ckpt`` when training ends, then the best epoch once more under its number, and
``policy_best.ckpt``, by validation loss. Only the numbered names have the seed: where two seeds share a
folder, the later training wrote over the other's last and best.

What its player opens: the checkpoint (``--eval`` takes ``policy_best.ckpt``, Mobile ALOHA's
``policy_last.ckpt``) and ``dataset_stats.pkl`` beside it, by which joints are scaled (``eval_bc``). With
``--use_vq`` Mobile ALOHA's also opens ``latent_model_last.ckpt``, which ``train_latent_model.py`` trains on
the policy's codes and saves beside it. The network is built from the flags of the training. ``config.pkl`` is
written but not read.
"""

from __future__ import annotations

from aml_mirror.layouts.kit.file_layout import FileLayout

ACT = FileLayout(
    name="act",
    numbered=r"policy_(?:epoch|step)_(?P<step>\d{1,18})_seed_(?P<seed>\d{1,18})\.ckpt",
    final=r"policy_last\.ckpt",
    best=r"policy_best\.ckpt",
    beside=("dataset_stats.pkl",),
    companions=("dataset_stats.pkl", "latent_model_last.ckpt"),
)
