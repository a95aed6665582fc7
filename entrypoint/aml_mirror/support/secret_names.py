"""Decides which names say that their value is a credential, and which values look like one."""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import pairwise


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that say that the value is a credential. "token" only counts at the end of a name: `hub_token` is a
# credential, `token_dim` and `pad_token_id` are not.
_SECRET_WORDS = _words("pwd credential credentials sas authorization bearer cookie passphrase secrets")
# A word may be joined to another one: PGPASSWORD, clientsecret.
_SECRET_TAILS = (
    *("password", "passwd", "secret", "apikey", "accesskey", "secretkey", "privatekey", "accountkey"),
    *("authtoken", "accesstoken", "passwords", "apikeys"),
)
_SECRET_ENDS = _words("token auth jwt pat dsn")
_SECRET_PAIRS = frozenset(
    (first, second)
    for second, firsts in (
        ("key", "api access account secret private storage license subscription encryption signing master"),
        ("key", "shared service deploy ssh wandb openai azure comet neptune primary secondary"),
        ("keys", "api access account secret private"),
        ("string", "connection conn"),
        ("str", "connection conn"),
        ("token", "access"),
        ("assertion", "client"),
        ("signature", "access"),
    )
    for first in firsts.split()
)
# For a parameter, these names also say that its value is a credential. In a text they are ordinary words.
_WEAK_ENDS = _words("pass passcode pin pw creds access private session otp totp webhook webhooks")
# Hosts and programs whose "key" is used to log in.
_SERVICES = _words(
    "anthropic aws azure clearml cohere comet databricks datadog docker elevenlabs firebase gcp gcs "
    "gemini github gitlab google groq hf huggingface kaggle mapbox minio mistral mlflow neptune "
    "newrelic ngc nvidia openai pinecone pushover redis replicate resend roboflow s3 sendgrid sentry "
    "slack smtp stripe supabase swanlab telegram together twilio vault wandb weights"
)
# The other meanings of "key" in a training's configuration: the name of an entry.
_ENTRIES = _words(
    "action actions annotation attention batch cache cam camera cond config crop data dataset demo "
    "depth dict embedding embeddings env episode feature features field frame goal group hidden image "
    "images index input instruction item join label lang language lookup map mask metric model monitor "
    "name obs observation observations output past policy pose prompt proprio query reward rgb robot "
    "sample score sensor sort split state states step success table target task text time timestamp "
    "value video view"
)
# The tokens of a vocabulary, which every language model's configuration names.
_VOCABULARY = _words(
    "bos eos pad unk cls sep mask image boi eoi start end special action state img video audio vision "
    "context register latent query readout proprio begin added extra additional prefix middle suffix stop "
    "task language class per max min num"
)
_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")


def names_a_secret(name: str) -> bool:
    """Tell whether a value with this name (``wandb.api_key``, ``hubToken``) is a credential."""
    return any(_segment_is_secret(segment) for segment in re.split(r"[./]", name))


def _segment_is_secret(segment: str) -> bool:
    words = [word.lower() for word in _WORDS.findall(segment)]
    if not words:
        return False
    if any(word in _SECRET_WORDS or word.endswith(_SECRET_TAILS) for word in words):
        return True
    if any(pair in _SECRET_PAIRS for pair in pairwise(words)):
        return True
    return words[-1] in _SECRET_ENDS and not (len(words) > 1 and words[-2] in _VOCABULARY)


def names_a_secret_parameter(name: str) -> bool:
    """Tell whether a run's parameter with this name is a credential. More names count than in a text."""
    if names_a_secret(name):
        return True
    words = [word.lower() for segment in re.split(r"[./]", name) for word in _WORDS.findall(segment)]
    if not words:
        return False
    before = words[-2] if len(words) > 1 else ""
    if before == "3" and words[-3:-2] == ["s"]:
        before = "s3"  # two words by the pattern above
    if words[-1] in ("key", "keys"):
        # x.key, but neither key alone nor rgb_key: those most likely name an entry.
        alone = re.split(r"[./]", name)[-1].lower() == "key"
        return before in _SERVICES or (alone and bool(before) and before not in _ENTRIES)
    if words[-1] in ("url", "uri") and before == "webhook":
        return True
    return words[-1] in _WEAK_ENDS and before not in (
        "no",
        "render",
        "forward",
        "backward",
        "single",
        "multi",
    )


# A random string has letters of both cases and digits throughout. Names, paths, dates, hexadecimal digests
# and compound words do not.
_LEAST_ENTROPY = 3.7  # bits a character; 24 random ones of 62 have 4.2 and more
_LEAST_CHANGES = 6  # between letters and digits


def is_random(run: str) -> bool:
    """Tell whether a string of letters and digits is random, like machine-generated keys."""
    if sum(map(str.isdigit, run)) < 3 or sum(map(str.isupper, run)) < 4 or sum(map(str.islower, run)) < 4:
        return False
    changes = sum(one.isdigit() != other.isdigit() for one, other in pairwise(run))
    if changes < _LEAST_CHANGES or run.count("/") > 2:
        return False
    shares = [count / len(run) for count in Counter(run).values()]
    return -sum(share * math.log2(share) for share in shares) >= _LEAST_ENTROPY
