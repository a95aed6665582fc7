"""A request without an answer: which of name, certificate, way and connection it was."""

from __future__ import annotations

import re

from aml_mirror.core.errors import ConfigurationError, MirrorError, NameNotFound, ServiceUnavailable

AGAIN = "run the same command again: it continues where this one stopped"
_CA_HINT = "set REQUESTS_CA_BUNDLE to your organisation's CA bundle (SSL_CERT_FILE alone is not enough)"

# getaddrinfo's words for EAI_NONAME and EAI_NODATA (Linux, musl, macOS): the name service answered.
_NO_SUCH_NAME = (
    "Name or service not known",
    "No address associated with hostname",
    "Name does not resolve",
    "nodename nor servname",
)
_NAME_HINT = (
    "check the account's or workspace's name, and behind a private endpoint that this network uses its "
    "private DNS zone"
)
# What http.client says of a proxy that refuses CONNECT, and the answers of one that may do it later.
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")
_PROXY_DOWN = ("500", "502", "503", "504")
# What the system and urllib3 say of a request without an answer -> (in words, the fix).
_NETWORK = (
    (("Temporary failure in name", "Failed to resolve"), "the name service does not answer", _NAME_HINT),
    (("Connection refused",), "the connection was refused", "check the address, HTTPS_PROXY and NO_PROXY"),
    (
        ("Network is unreachable", "No route to host"),
        "there is no way to it from this network",
        "check the network: a private endpoint needs a route from here",
    ),
    (
        ("timed out",),
        "no answer in time",
        "a firewall that drops packets looks like this too; on a slow line a smaller --concurrency or "
        "--block-size helps",
    ),
)


def translate(said: str, where: str) -> MirrorError:
    """Return our error for what a client said of a request that nobody answered.

    Args:
        said: the client's words, those of the system and of urllib3 among them.
        where: what was being talked to, in words.
    """
    if tunnel := _TUNNEL.search(said):
        refused = f"the proxy on the way to {where} refuses to connect ({tunnel[1]})"
        if tunnel[1] in _PROXY_DOWN:
            return ServiceUnavailable(refused, f"check HTTPS_PROXY and NO_PROXY; {AGAIN}")
        return ConfigurationError(
            refused,
            "allow the host in the proxy, give HTTPS_PROXY the proxy's user, or name the host in NO_PROXY",
        )
    if "CERTIFICATE_VERIFY_FAILED" in said or "certificate verify failed" in said:
        return ConfigurationError(f"the TLS certificate of {where} is not trusted", _CA_HINT)
    if "doesn't match" in said and "certificate" in said:
        return ConfigurationError(f"the TLS certificate of {where} is for another name", _CA_HINT)
    if any(sign in said for sign in _NO_SUCH_NAME):
        return NameNotFound(f"{where} does not answer: its name cannot be resolved", _NAME_HINT)
    for signs, words, hint in _NETWORK:
        if any(sign in said for sign in signs):
            return ServiceUnavailable(f"{where} does not answer: {words}", f"{hint}; {AGAIN}")
    return ServiceUnavailable(f"{where} does not answer: the connection was dropped", AGAIN)


def is_of_the_network(said: str) -> bool:
    """Whether a client's words are about a request that nobody answered."""
    signs = (
        "Max retries exceeded",
        "Tunnel connection failed",
        "Connection",
        "CERTIFICATE_VERIFY_FAILED",
        "resolve",
        "timed out",
        "Name or service not known",
        "RemoteDisconnected",
        "IncompleteRead",
    )
    return any(sign in said for sign in signs)
