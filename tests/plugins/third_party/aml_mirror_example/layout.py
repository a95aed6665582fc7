"""Toy RL: ``toy_<step>.pt`` and ``toy_end.pt`` in the run's root, ``toy_top.pt`` the best one.

Its player opens the checkpoint and ``toy.json`` next to it.
"""

from aml_mirror.layouts.kit.file_layout import FileLayout

TOY_RL = FileLayout(
    name="toy_rl",
    numbered=r"toy_(?P<step>\d{1,18})\.pt",
    final=r"toy_end\.pt",
    best=r"toy_top\.pt",
    holds=("toy_policy",),
    companions=("toy.json",),
)
