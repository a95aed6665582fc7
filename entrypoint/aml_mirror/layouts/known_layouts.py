"""The layouts that the program knows, in the order in which they are asked."""

from __future__ import annotations

import functools

from aml_mirror.layouts.act import ACT
from aml_mirror.layouts.base import Layout
from aml_mirror.layouts.brax import BRAX
from aml_mirror.layouts.diffusion_policy import DiffusionPolicy
from aml_mirror.layouts.fasttd3 import FAST_TD3
from aml_mirror.layouts.generic.layout import Generic
from aml_mirror.layouts.groot import Groot
from aml_mirror.layouts.huggingface.layout import HuggingFace
from aml_mirror.layouts.lerobot import LeRobot
from aml_mirror.layouts.lightning import Lightning
from aml_mirror.layouts.octo import OCTO
from aml_mirror.layouts.openpi import OpenPi
from aml_mirror.layouts.prismatic import PRISMATIC
from aml_mirror.layouts.protomotions import PROTO_MOTIONS
from aml_mirror.layouts.rl_games import RlGames
from aml_mirror.layouts.rlinf import RLINF
from aml_mirror.layouts.rllib import RLLIB
from aml_mirror.layouts.robomimic import Robomimic
from aml_mirror.layouts.rsl_rl import RSL_RL
from aml_mirror.layouts.skrl import Skrl
from aml_mirror.layouts.stable_baselines3.layout import StableBaselines3
from aml_mirror.layouts.tdmpc2 import TD_MPC2
from aml_mirror.layouts.tianshou import TIANSHOU
from aml_mirror.support import plugins

# Special layouts come first: every GR00T run is also a Hugging Face run. Generic is asked last, and only if
# no other layout found anything.
BUILT_IN: tuple[Layout, ...] = (
    LeRobot(),
    Groot(),
    OpenPi(),
    HuggingFace(),
    RSL_RL,
    Skrl(),
    RlGames(),
    Robomimic(),
    FAST_TD3,
    ACT,
    PRISMATIC,
    PROTO_MOTIONS,
    TIANSHOU,
    TD_MPC2,
    RLLIB,
    RLINF,
    OCTO,
    BRAX,
    DiffusionPolicy(),
    Lightning(),
    StableBaselines3(),
    Generic(),
)


@functools.cache
def known_layouts() -> tuple[Layout, ...]:
    """Return every layout: first those of other packages, which somebody installed on purpose, then the
    built-in ones.

    Raises:
        ConfigurationError: a package's layout cannot be loaded, or its name is already used.
    """
    layouts = (*plugins.load(plugins.LAYOUTS), *BUILT_IN)
    plugins.require_unique("layouts", (layout.name for layout in layouts))
    return layouts


def layout_names() -> tuple[str, ...]:
    """Return the names that ``--framework`` takes.

    Raises:
        ConfigurationError: as :func:`known_layouts`.
    """
    return tuple(layout.name for layout in known_layouts())
