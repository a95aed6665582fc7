"""Recognises, by its name, a model that is only a part of a policy: an encoder, a critic, a VAE.

The last such word decides, as in any compound: ``policy_encoder_200`` is an encoder, but ``vae_policy_200``
is a policy. An actor-critic is a policy. The name of a folder counts only if it contains no other word:
``critic_training`` counts, but ``go2_asymmetric_critic`` is the name of an experiment.
"""

from __future__ import annotations

import re

from aml_mirror.layouts.generic.name_words import CONTAINERS, ENDS, MODEL_WORDS, RUN_WORDS, stem_of
from aml_mirror.layouts.generic.weight_files import Candidate, described
from aml_mirror.layouts.step_folders import word_set
from aml_mirror.sources.tree import Tree, join

_ACTS = word_set("policy policies actor actors agent agents student teacher expert controller")
_PARTS = word_set(
    "encoder encoders decoder decoders critic critics value values disc discriminator discriminators "
    "tokenizer tokenizers detokenizer vae vqvae cvae vq fsq rvq autoencoder quantizer codebook classifier "
    "classifiers projector projectors embedder embedders normalizer normalizers preprocessor preprocessors "
    "postprocessor optimizer optimizers estimator estimators dynamics rnd icm curiosity featurizer"
)
# Only together with a second word, because "reward" alone may be the score of a policy.
_COMPOUNDS = {
    **dict.fromkeys(
        ("reward", "world", "latent", "forward", "inverse", "actuator"), word_set("model net network")
    ),
    "action": word_set("head heads"),
    "adaptation": word_set("module model net network"),
    "feature": word_set("extractor"),
    "vision": word_set("tower backbone"),
}
# "value" before one of these words is a score.
_SCORES = word_set("loss losses error mean std")
_OF_A_TRAINING = word_set("training train trained pretrain pretraining pretrained stage phase")
_NEUTRAL = (MODEL_WORDS | RUN_WORDS | CONTAINERS | frozenset(ENDS) | _OF_A_TRAINING) - _ACTS


def is_part(run: Tree, candidate: Candidate) -> bool:
    """Tell whether the names in a candidate mention a part of a policy, and none mentions a policy."""
    if candidate.members:
        names = [stem_of(candidate.members[0])]
    else:
        start = len(candidate.path) + 1
        names = [stem_of_path(path[start:]) for path in described(run, candidate).weights]
    kinds = [kind_of(name) for name in names]
    if "part" in kinds:
        return all(kind == "part" for kind in kinds)
    if "policy" in kinds or not all(_says_nothing(name) for name in names):
        return False
    around = join(run.root, candidate.folder)
    folders = around.split("/") if around else []
    if not candidate.members:
        folders.append(candidate.name)
    for folder in reversed(folders):
        if not _says_nothing(folder):
            words = _words(folder)
            return kind_of(folder) == "part" and not {*words} - _ALONE
    return False


def stem_of_path(path: str) -> str:
    """Return a path without the file's suffix."""
    folder, slash, _ = path.rpartition("/")
    return folder + slash + stem_of(path)


_ALONE = _PARTS | _NEUTRAL | {*_COMPOUNDS, *(word for words in _COMPOUNDS.values() for word in words)}


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())


def _says_nothing(name: str) -> bool:
    return not {*_words(name)} - _NEUTRAL


def kind_of(name: str) -> str:
    """Return ``policy`` or ``part``, whichever the name mentions last, or an empty string."""
    kind = ""
    words = _words(name)
    for at, word in enumerate(words):
        before = words[at - 1] if at else ""
        behind = words[at + 1] if at + 1 < len(words) else ""
        if word in _ACTS or (word == "critic" and before == "actor"):
            kind = "policy"
        elif (word in _PARTS and behind not in _SCORES) or behind in _COMPOUNDS.get(word, ()):
            kind = "part"
    return kind
