"""Decides which files form one policy: the same name in several formats, and parts that are saved separately.

Two files whose names differ in a number, a date or a word are two policies. The exceptions are the rules of
training scripts that are known to save one policy in several files:

- An actor, with its critic, target networks, value function or decoder under the same name. Only the actor
  acts. TD3.py of sfujim/TD3 (``NAME_actor``, ``NAME_critic``), sac_ae.py of denisyarats/pytorch_sac_ae
  (``actor_STEP.pt``, ``critic_STEP.pt``, ``decoder_STEP.pt``), curl_sac.py of MishaLaskin/curl
  (``curl_STEP.pt``), runner of marlbenchmark/on-policy (``actor.pt``, ``critic.pt``).
- Statistics for scaling observations, saved with each policy: ``policy_STEP.pt``, ``normalizer_STEP.pt``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from aml_mirror.layouts.generic.name_words import stem_of
from aml_mirror.layouts.step_folders import word_set

_ACTS = word_set("actor policy agent model")
# Names that are not a policy by themselves, in any algorithm.
_BESIDE = word_set(
    "critic critics value target decoder curl normalizer normalization vecnormalize obs_rms rms qf qf1 qf2"
)

_STATISTICS = re.compile(
    r"(?<![a-z])(?:(?:obs?|observation|state|action|act|input)[-_]?(?:rms|norm|normalizer|normalization|stats|statistics)"
    r"|vec_?norm(?:alize)?|running_mean_std)(?![a-z])"
)


def joined(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Group the names of weight files in one folder into policies. The acting file comes first in each."""
    whole: dict[str, list[str]] = {}
    for name in sorted(names):
        whole.setdefault(stem_of(name), []).append(name)
    policies: dict[tuple[str, ...], list[str]] = {}
    for stem in whole:
        words = _parts(stem)
        acts = [word for word in words if word in _ACTS]
        if len(acts) == 1 and not _BESIDE.intersection(words):
            policies.setdefault(_shape(words), []).append(stem)
    added: dict[str, list[str]] = {}
    for stem in whole:
        words = _parts(stem)
        if not _BESIDE.intersection(words):
            continue
        # If two policies could own it, nobody knows which one does.
        owners = policies.get(_shape(words), [])
        if len(owners) == 1:
            added.setdefault(owners[0], []).append(stem)
    taken = {stem for stems in added.values() for stem in stems}
    return [
        tuple(name for each in (stem, *added.get(stem, ())) for name in whole[each])
        for stem in whole
        if stem not in taken
    ]


def _parts(stem: str) -> list[str]:
    # The first word of the statistics does not matter for the match: obs_rms_500 belongs to actor_500.
    low = _STATISTICS.sub("normalizer", stem.lower())
    return re.findall(r"[a-z]+[0-9]?(?![a-z0-9])|[a-z]+|[0-9]+", low)


def _shape(words: list[str]) -> tuple[str, ...]:
    """Return the name without the words that say which part of a policy it is."""
    return tuple("*" if word in _ACTS or word in _BESIDE else word for word in words)
