"""Everything that a maintained list recognises as a credential is masked. The list is Yelp's detect-secrets.

The list is an oracle, not a part of the program. Its size (120 KB and one package) would be acceptable. But
its rules for names and entropy mask ordinary parameters, and it finds lines, while we must find the end of
each value.
"""

from __future__ import annotations

import re
import warnings

import pytest
from detect_secrets.plugins import (
    aws,
    discord,
    github_token,
    gitlab_token,
    openai,
    pypi_token,
    sendgrid,
    stripe,
    telegram_token,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aml_mirror.support import redaction

# Rules that recognise a credential by its shape. Left out are rules that need a name (test_redaction.py tests
# our rules for names), public addresses, and shapes that no provider issues.
RULES = [
    (detector.__name__, rule)
    for detector in (
        aws.AWSKeyDetector,
        discord.DiscordBotTokenDetector,
        github_token.GitHubTokenDetector,
        gitlab_token.GitLabTokenDetector,
        openai.OpenAIDetector,
        pypi_token.PypiTokenDetector,
        sendgrid.SendGridDetector,
        stripe.StripeDetector,
        telegram_token.TelegramBotTokenDetector,
    )
    for rule in detector.denylist
    if not rule.pattern.startswith("aws")
]
# These rules accept more than the provider issues: fewer or other letters, a backslash.
NARROWED = {
    "azure": "[A-Za-z0-9+/]{85}[AQgw]==",
    "npm": "npm_[A-Za-z0-9]{36}",
    "slack": "xox[abpors]-[0-9]{10,12}-[0-9]{10,12}-[A-Za-z0-9]{24}",
    "square": "sq0csp-[0-9A-Za-z_-]{43}",
    "twilio account": "AC[0-9a-f]{32}",
    "twilio key": "SK[0-9a-f]{32}",
}


def _is_masked_everywhere(rule: re.Pattern[str]) -> None:
    # A key has digits. A word that only starts like a key is a word.
    made = st.from_regex(rule, fullmatch=True, alphabet=st.characters(min_codepoint=33, max_codepoint=126))

    @settings(max_examples=15, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
    @given(made.filter(lambda token: re.search("[0-9]", token[8:]) is not None))
    def check(token: str) -> None:
        for text in (f"the token {token} is read", f"'{token}'", f'{{"a": "{token}"}}', token):
            assert token[8:] not in redaction.text(text), text

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check()


@pytest.mark.parametrize(("name", "rule"), RULES, ids=[f"{name}-{at}" for at, (name, _) in enumerate(RULES)])
def test_what_others_recognise_is_masked(name: str, rule: re.Pattern[str]) -> None:
    # A case-insensitive rule accepts texts that no provider issues.
    _is_masked_everywhere(re.compile(rule.pattern, re.ASCII))


@pytest.mark.parametrize("name", NARROWED)
def test_what_providers_make_of_it_is_masked(name: str) -> None:
    _is_masked_everywhere(re.compile(NARROWED[name]))
