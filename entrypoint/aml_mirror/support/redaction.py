"""Keeps secrets out of everything that leaves the program: parameters, tags, logs, receipts.

There are three rules, because none is enough alone. A value is masked if its name suggests a credential. A
text is masked wherever it looks like a credential, or like a name followed by one. And the credentials that
this program itself was given are masked wherever they appear, because a server may repeat them.

Texts can be long and hostile, so every repetition in a pattern is bounded or begins at a fixed mark. They can
also be lines of JSON, and must remain valid: a masked value never extends beyond a quotation mark or a
backslash.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Mapping
from urllib.parse import quote, unquote, urlsplit

from aml_mirror.support.secret_names import is_random, names_a_secret, names_a_secret_parameter

MASK = "***"
# Shorter values of variables are words ("true", "none") that a text may contain for other reasons.
_SHORTEST_KNOWN = 8


# "<pad>", "[MASK]", "<|im_start|>": tokens of a vocabulary look like this, credentials never do.
_MARKER = re.compile(r"\W{0,3}(?:<\S{0,60}>|\[\S{0,60}\])")
_NO_SECRET = frozenset(("none", "null", "true", "false", MASK, "Bearer", "Basic"))

_BLANK = r"(?:\s|\\{1,8}[nrt]){1,8}"
_VALUE = r"[^&;\s\"'\\]+"
_PATTERNS = (
    # Signatures in URLs (Azure SAS, AWS presigned), even if the URL is quoted inside another one.
    (
        re.compile(
            r"(?i)(?<![a-z_])(sig|x-(?:amz|goog)-(?:signature|credential|security-token))(=|%(?:25){0,4}3D)"
            + _VALUE,
        ),
        r"\1\2" + MASK,
    ),
    # The same if its query was parsed.
    (re.compile(r"(\bsig\\?[\"']\s?[:,]\s?\[?\\?[\"'])[A-Za-z0-9+/=%_-]{20,}"), r"\1" + MASK),
    (re.compile(r"(?i)([?&](?:code|key|signature)=)" + _VALUE), r"\1" + MASK),
    (
        re.compile(
            r"(?i)(AccountKey|SharedAccessSignature|SharedAccessKey|InstrumentationKey|Password|Pwd)"
            r"=[^;\s\"'\\]+"
        ),
        r"\1=" + MASK,
    ),
    # "basic architecture" does not match: credentials have digits or mixed case.
    (
        re.compile(
            r"\b([Bb]earer|[Bb]asic|BEARER|BASIC)(\s{1,3})"
            r"(?=[A-Za-z+/._~-]{0,512}(?:[0-9=]|[a-z][A-Z])|[A-Za-z+/._~-]{32})[A-Za-z0-9+/=._~-]{8,}"
        ),
        r"\1\2" + MASK,
    ),
    # user:password@ in a URL.
    (
        re.compile(
            r"(?i)(?<![a-z0-9+.-])([a-z][a-z0-9+.-]{0,30}://[^\s/:@\"'\\]{0,256}):[^\s/?#\"'\\]{1,1024}@"
        ),
        r"\1:" + MASK + "@",
    ),
    # A token without a password: of a repository host, of Sentry.
    (
        re.compile(r"(?i)(?<![a-z0-9+.-])(https?://)(?=[\w.~-]{0,256}[0-9])[\w.~-]{20,256}@"),
        r"\1" + MASK + "@",
    ),
    (
        re.compile(
            r"(hooks\.slack\.com/services/|\.webhook\.office\.com/webhookb2/|discord\.com/api/webhooks/)"
            r"[A-Za-z0-9/@_-]+"
        ),
        r"\1" + MASK,
    ),
    # JSON web tokens, and the tokens of the hosts that are most common in training configurations.
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*){0,3}"), MASK),
    # The same without its dots: tokens of Neptune, Grafana, 1Password.
    (re.compile(r"\b(?:glc_|ops_)?eyJ(?=[A-Za-z0-9+/_-]{0,400}[0-9])[A-Za-z0-9+/_-]{40,4096}={0,2}"), MASK),
    # A .netrc file, and the command that writes one.
    (
        re.compile(
            rf"(\bmachine{_BLANK}[^\s\"'\\]{{1,256}}{_BLANK}login{_BLANK}[^\s\"'\\]{{1,256}}{_BLANK}"
            rf"password{_BLANK})[^\s\"'\\]+"
        ),
        r"\1" + MASK,
    ),
    (re.compile(r"(\bwandb\s{1,4}login\s{1,4}(?:--\S{1,64}\s{1,4}){0,4})[A-Za-z0-9_-]{30,}"), r"\1" + MASK),
    (
        re.compile(
            r"\b(?:(?:hf_|npm_)[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9_]{16,}|github_pat_[A-Za-z0-9_]{16,}|dapi[0-9a-f]{16,}"
            r"|(?:glpat-|sk-|xox[abeoprs]-|xapp-|nvapi-|pypi-)(?=[A-Za-z_-]{0,64}[0-9])[A-Za-z0-9_-]{16,}"
            r"|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{35})"
        ),
        MASK,
    ),
    # More hosts, by the documented prefixes of their tokens: Stripe, SendGrid, Mapbox, Docker, Vault, age,
    # Google, DigitalOcean, Replicate, Groq, Pinecone, Shopify, Figma, Linear, Atlassian, Tailscale, New
    # Relic, Pulumi, Brevo, Telegram, Sentry, GitLab.
    (
        re.compile(
            r"(?<![\w.-])(?:[sr]k_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9]{16,}"
            r"|SG\.[\w-]{16,64}\.[\w-]{16,64}|[ps]k\.eyJ[\w-]{16,512}(?:\.[\w-]{8,64})?"
            r"|dckr_pat_[\w-]{16,}"
            r"|hv[sb]\.[\w-]{16,}|AGE-SECRET-KEY-1[A-Z0-9]{16,}|ya29\.[\w-]{16,}|do[por]_v1_[0-9a-f]{32,}"
            r"|r8_[A-Za-z0-9]{24,}|gsk_[A-Za-z0-9]{24,}|pcsk_\w{24,}|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{24,}"
            r"|figd_[\w-]{24,}|lin_api_[A-Za-z0-9]{24,}|ATATT3x[\w=-]{24,}|tskey-[\w-]{16,}|NRAK-[A-Z0-9]{20,}"
            r"|pul-[0-9a-f]{32,}|xkeysib-[\w-]{32,}|[0-9]{8,10}:AA[\w-]{32,34}|sntry[su]_[\w=+/]{24,}"
            r"|gl(?:rt|dt|ft|soat|cbt|ptt|imt|agent|oas)-[\w-]{16,}|GR1348941[\w-]{20,}"
            # Artifactory, Square, Mailchimp, Twilio, AWS, Discord, OpenAI, Telegram
            r"|AKC(?=[A-Za-z]{0,40}[0-9])[A-Za-z0-9]{20,}|sq0csp-[\w-]{43}|[0-9a-f]{32}-us[0-9]{1,2}(?![\w-])|(?:AC|SK)[0-9a-f]{32}(?!\w)"
            r"|(?:A3T[A-Z0-9]|ABIA|ACCA)(?=[A-Z]{0,15}[0-9])[A-Z0-9]{16}(?!\w)"
            r"|[MNO](?=[a-zA-Z_-]{0,24}[0-9])[\w-]{23,25}\.[\w-]{6}\.[\w-]{27,38}(?![\w-])"
            r"|[0-9]{8,10}:(?=[a-zA-Z_-]{0,34}[0-9])[\w-]{35}(?![\w-]))"
        ),
        MASK,
    ),
    # More of them: Weights & Biases, Google, xAI, Perplexity, Fireworks, LangSmith, Hugging Face, Kaggle,
    # RunPod, Anyscale, Docker, Terraform, Doppler, Grafana, Airtable, Notion, Supabase, PlanetScale, Heroku,
    # Fly, Vercel, Modal, AWS's session tokens.
    (
        re.compile(
            r"(?<![\w.-])(?:wandb_v1_\w{24,}|GOCSPX-[\w-]{20,}|xai-[A-Za-z0-9]{40,}|pplx-[A-Za-z0-9]{32,}"
            r"|fw_(?=[A-Za-z]{0,40}[0-9])[A-Za-z0-9]{20,}|lsv2_(?:pt|sk)_\w{24,}|KGAT_[0-9a-f]{24,}"
            r"|api_org_[A-Za-z0-9]{30,}|rpa_[A-Za-z0-9]{32,}|esecret_[A-Za-z0-9]{20,}|dckr_oat_[\w-]{16,}"
            r"|[A-Za-z0-9]{14}\.atlasv1\.[\w-]{40,}|dp\.(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9.]{32,}"
            r"|glsa_[A-Za-z0-9]{24,}_[0-9a-f]{8}|pat[A-Za-z0-9]{14}\.[0-9a-f]{64}|ntn_[A-Za-z0-9]{32,}"
            r"|secret_(?=[A-Za-z]{0,60}[0-9])[A-Za-z0-9]{30,}(?:\.[A-Za-z0-9]{20,})?|sbp_[0-9a-f]{32,}|sb_secret_[\w-]{20,}"
            r"|pscale_(?:tkn|oauth|pw)_[\w=.-]{32,}|HRKU-[\w-]{32,}|fm[12]r?_[\w+/=-]{40,}"
            r"|vercel_blob_rw_\w{24,}|a[ks]-(?=[A-Za-z]{0,21}[0-9])[A-Za-z0-9]{22}(?![\w-])|IQoJb3JpZ2lu[\w+/=%-]{40,})"
        ),
        MASK,
    ),
    # Azure: keys that name their service, the secret of an application, the key of a storage account.
    (
        re.compile(
            r"(?<![A-Za-z0-9/+])(?:[A-Za-z0-9]{52}JQQJ9[9D][A-Za-z0-9]{20,40}"
            r"|[A-Za-z0-9/+]{32,80}(?:AzSe|AzFu|AzCa|AzEG|AIoT|AZDO|ACDb|APIM|ACOG|\+A(?:St|CR|Ba|Eh|SB|Rm|IoT))"
            r"[A-Za-z0-9/+]{4,10}={0,2})(?![A-Za-z0-9/+=])"
        ),
        MASK,
    ),
    (re.compile(r"(?<![\w~.-])[A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,40}"), MASK),
    (re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{86}==(?![A-Za-z0-9+/=])"), MASK),
    (
        re.compile(
            r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:[^\"'\\]|\\{1,8}[nr])*?"
            r"(?:-----END [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----|(?=[\"']|\\{1,8}[^nr\\])|\Z)"
        ),
        MASK,
    ),
    (
        re.compile(
            r"(\bPrivate-Lines: [0-9]{1,3}(?:\\{1,8}[nr]|[\r\n]){1,2})"
            r"(?:[A-Za-z0-9+/=\s]|\\{1,8}[nr]){16,65536}"
        ),
        r"\1" + MASK,
    ),
)

_NAME = r"(?<![\w.-])(?P<name>-{0,2}[A-Za-z_][\w.-]{0,99})"
_SCHEME = r"(?:(?:[Bb]earer|[Bb]asic|[Tt]oken|SharedKey(?:Lite)?|ApiKey|Negotiate)\s{1,3})?"
# The beginning of something else: a word with a colon.
_NO_SECTION = r"(?![^\s:]{1,256}:(?:\s|\Z))"
_BESIDE = rf"(?:\s?=>?\s?|:(?:[ \t]{{1,2}}|\r?\n{_NO_SECTION}))"
# A value indented on the line after its name, like in YAML.
_BELOW = rf":[ \t]{{0,4}}(?:[|>][+-]?[ \t]{{0,4}})?\r?\n[ \t]{{1,40}}(?=\S){_NO_SECTION}"
_NAMED = (
    # name:, or name: |, and the value indented below it, to the end of its line
    re.compile(rf"(?P<lead>{_NAME}{_BELOW}(?:\\?[\"'])?)(?P<value>[^\r\n\"'\\]{{1,4096}})"),
    # "name": "value" in JSON that is not nested in JSON: the value may contain escaped quotation marks
    re.compile(rf"(?P<lead>{_NAME}\"\s?:\s?\")(?P<value>(?:[^\"\\]|\\[^\n]){{1,4096}})(?=\")"),
    # name="some words"
    re.compile(rf"(?P<lead>{_NAME}{_BESIDE}(?P<quote>\\?[\"']))(?P<value>[^\"'\\]{{1,4096}})(?=(?P=quote))"),
    # name=value, name: value, --name=value
    re.compile(rf"(?P<lead>{_NAME}{_BESIDE}(?:\\?[\"'])?)(?P<value>{_SCHEME}{_VALUE})"),
    # "name": "value", like in JSON, in Python's dictionaries, and in nested JSON
    re.compile(rf"(?P<lead>{_NAME}(?P<quote>\\?[\"'])\s?:\s?(?P=quote))(?P<value>[^\"'\\]+)"),
    # --name value, also as a list of arguments
    re.compile(
        r"(?P<lead>(?<![\w.-])(?P<name>--[A-Za-z_][\w.-]{0,99})(?:\s{1,3}|\\?[\"'],\s?\\?[\"']))"
        r"(?P<value>(?!-)[^\s\"'\\]+)"
    ),
)


# Variables with names like secrets: our location, and which of azure-identity's credentials to try.
_NO_SECRETS = frozenset({"PWD", "OLDPWD", "AZURE_TOKEN_CREDENTIALS"})

_known: set[str] = set()


def learn(environment: Mapping[str, str]) -> None:
    """Record the credentials among variables: those with such names, and passwords in addresses.

    From now on they are masked, in all forms in which a server or a client may repeat them.
    """
    for name, value in environment.items():
        found = [value] if names_a_secret(name) and name not in _NO_SECRETS else []
        try:
            parts = urlsplit(value) if "@" in value and "://" in value else None
            password = parts.password if parts else None
        except ValueError:
            password = None
        if parts is not None and password:
            user = unquote(parts.username or "")
            found += [password, unquote(password)]
            found.append(base64.b64encode(f"{user}:{unquote(password)}".encode()).decode())
        for secret in found:
            if len(secret) >= _SHORTEST_KNOWN:
                _known.update({secret, quote(secret, safe="")})
    user, password = (environment.get(f"MLFLOW_TRACKING_{part}", "") for part in ("USERNAME", "PASSWORD"))
    if password:
        _known.add(base64.b64encode(f"{user}:{password}".encode()).decode())


def text(value: str) -> str:
    """Return the text with everything that is or looks like a credential replaced by ``***``."""
    for secret in sorted(_known, key=len, reverse=True):
        value = value.replace(secret, MASK)
    for pattern, replacement in _PATTERNS:
        value = pattern.sub(replacement, value)
    for pattern in _NAMED:
        value = pattern.sub(_mask_named, value)
    return value


def start(value: str, length: int) -> str:
    """Return the first ``length`` characters of a text, masked before it is cut.

    A cut might leave an unrecognisable part of a secret. Only a part of a long text is masked, because
    masking takes time.
    """
    return text(value[: 8 * length])[:length]


class MaskedRecord(logging.LogRecord):
    """Masks the records of every library, wherever they go: azure-identity logs what Entra answered."""

    def getMessage(self) -> str:
        if self.exc_info and self.exc_info[0] and not self.exc_text:
            self.exc_text = text(logging.Formatter().formatException(self.exc_info))
        return text(super().getMessage())


def _mask_named(match: re.Match[str]) -> str:
    found = match["value"]
    if found.lower() in _NO_SECRET or _MARKER.fullmatch(found) or not names_a_secret(match["name"]):
        return match[0]
    return match["lead"] + MASK


# The older keys of Weights & Biases look like the digest of a commit.
_HEX_KEY = re.compile(r"[0-9a-f]{40}")
_NO_KEY = re.compile(r"commit|sha|hash|rev|git|digest|version", re.I)
_RUN = re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{20,200}={0,2}(?![A-Za-z0-9+/=])")


def _mask_random(match: re.Match[str]) -> str:
    return MASK if is_random(match[0]) else match[0]


def value(name: str, found: object) -> object:
    """Return the value of a parameter, or ``***`` if its name says that it is a credential.

    Booleans and None only say whether there is a credential, so they stay. So do the numbers and markers
    (``<pad>``) that a vocabulary has under names ending in "token".
    """
    if isinstance(found, bool) or found is None or found == "":
        return found
    if names_a_secret_parameter(name):
        number = isinstance(found, (int, float)) and name.lower().endswith("token")
        marker = isinstance(found, str) and _MARKER.fullmatch(found)
        return found if number or marker else MASK
    if not isinstance(found, str):
        return found
    if "wandb" in name.lower() and _HEX_KEY.fullmatch(found.strip()) and not _NO_KEY.search(name):
        return MASK
    return _RUN.sub(_mask_random, text(found))
