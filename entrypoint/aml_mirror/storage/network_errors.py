"""Explains a request without an answer: the name, the certificate, the route or the connection."""

from __future__ import annotations

import re

from aml_mirror.core.errors import ConfigurationError, MirrorError, NameNotFound, ServiceUnavailable

AGAIN = "run the same command again: it continues where this one stopped"
_CA_HINT = "set REQUESTS_CA_BUNDLE to your organisation's CA bundle (SSL_CERT_FILE alone is not enough)"

# getaddrinfo's messages for EAI_NONAME and EAI_NODATA (Linux, musl, macOS): the name service answered.
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
# http.client's message for a proxy that refuses CONNECT, and the statuses of a proxy that may allow it later.
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")
_PROXY_DOWN = ("500", "502", "503", "504")
# Messages of the system and of urllib3 for a request without an answer -> (explanation, fix).
_NETWORK = (
    (("Temporary failure in name", "Failed to resolve"), "the name service does not answer", _NAME_HINT),
    (("Connection refused",), "the connection was refused", "check the address, HTTPS_PROXY and NO_PROXY"),
    (
        ("Network is unreachable", "No route to host"),
        "there is no route to it from this network",
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
    """Return our error for a client's message about a request without an answer.

    Args:
        said: the client's message, including those of the system and of urllib3.
        where: the contacted service, in words.
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
    """Tell whether a client's message is about a request without an answer."""
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
