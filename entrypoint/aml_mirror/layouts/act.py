"""ACT and ALOHA: ``policy_epoch_<epoch>_seed_<seed>.ckpt``, ``policy_last.ckpt`` and ``policy_best.ckpt``.

Mobile ALOHA (MarkFzp/act-plus-plus) counts steps: ``policy_step_<step>_seed_<seed>.ckpt``.

``imitate_episodes.py`` of tonyzhaozh/act (main branch; Mobile ALOHA and other forks kept it) saves a
numbered file every 100 epochs. When training ends it saves ``policy_last.ckpt``, then the best epoch again
under its number, and ``policy_best.ckpt``, chosen by validation loss. Only the numbered names contain the
seed. If two seeds share a folder, the later training overwrote the last and best files of the earlier one.

What inference loads: the checkpoint (``--eval`` takes ``policy_best.ckpt``, with Mobile ALOHA
``policy_last.ckpt``) and ``dataset_stats.pkl`` beside it, which is used to scale the joints (``eval_bc``).
With ``--use_vq``, Mobile ALOHA also loads ``latent_model_last.ckpt``, which ``train_latent_model.py`` trains
on the policy's codes and saves beside it. The network is built from the training's flags. ``config.pkl`` is
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
