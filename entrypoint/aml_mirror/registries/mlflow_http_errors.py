"""Translates HTTP errors of an MLflow server, or of a proxy in front of it, into our errors.

Needs no MLflow client. :mod:`.mlflow_errors` adds what MLflow's own exceptions say.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from requests import Response
from requests import exceptions as http

from aml_mirror.core.errors import ConfigurationError, MirrorError, NotAllowed, ServiceUnavailable
from aml_mirror.registries import http_status
from aml_mirror.registries.mlflow_answers import (
    address,
    beginning,
    is_page,
    missing_permission,
    redirected_to,
    without_html,
)
from aml_mirror.support import redaction

_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504, 507})
# OpenSSL's and the system's messages for a peer that disconnects during the handshake.
_DROPPED = ("UNEXPECTED_EOF", "EOF occurred", "Connection reset", "timed out")
AGAIN = "run the same command again: it continues where this one stopped"


def of_answer(answer: Response, where: str) -> MirrorError | None:
    """Interpret an answer that is not MLflow's, or details that MLflow's exceptions lose."""
    status, target = answer.status_code, redirected_to(answer)
    via = f"{where} redirects requests to {target}" if target else where
    if status == 403 and "invalid host header" in beginning(answer).lower():
        host = urlsplit(answer.request.url or "").netloc.rpartition("@")[2]
        return ConfigurationError(
            f"{where} refuses requests for the host {host} (Invalid Host header)",
            f"start the server with --allowed-hosts {host}, or use the name that it allows",
        )
    if status == 503 and "--serve-artifacts" in beginning(answer):
        return ConfigurationError(
            f"{where} does not store artifacts: it runs without --serve-artifacts",
            "start it with --serve-artifacts, or use an experiment whose artifacts are elsewhere",
        )
    if is_page(answer) and status < 400:
        if target:
            return NotAllowed(
                f"{via}, which is a web page, most likely a login page",
                "use an address of the server that accepts a token, and set MLFLOW_TRACKING_TOKEN, or "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
            )
        return ConfigurationError(
            f"{where} answers with a web page, which may be a login page: this is not MLflow's API",
            "check the address and its path, and the login: MLFLOW_TRACKING_TOKEN, or "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        )
    if target and status in (404, 405) and answer.history[0].request.method != answer.request.method:
        # A redirect turns every POST and PUT into a GET.
        return ConfigurationError(
            f"{via}, which only works for reading", "pass that address as --tracking-uri"
        )
    # MLflow's own access control only says "Permission denied".
    denied = status == 403 and beginning(answer).lower().startswith("permission")
    if denied and (missing := missing_permission(answer)):
        return NotAllowed(
            f"{where} does not allow this login to do that: it lacks {redaction.text(missing)}",
            "have the permission granted (mlflow server --app-name basic-auth: PERMISSION on the object), or "
            "use another login",
        )
    return None


def of_request(cause: BaseException, where: str) -> MirrorError | None:
    """Return our error for an exception of requests; None if it is not one."""
    said = redaction.text(first_line(cause))
    if isinstance(cause, http.HTTPError) and cause.response is not None:
        return status_error(cause.response.status_code, said, where)
    if isinstance(cause, http.SSLError) and re.search("wrong.version.number", str(cause), re.IGNORECASE):
        return ConfigurationError(f"{where} does not speak TLS", "use http:// if the server does not use TLS")
    # A connection that is closed while it is established is an SSLError too.
    if isinstance(cause, http.SSLError) and not any(sign in str(cause) for sign in _DROPPED):
        asked = address(getattr(cause.request, "url", None))
        # After a redirect to another host, it is that host's certificate.
        whose = (
            where if not asked or _same_host(asked, where) else f"{_origin(asked)}, where {where} sends us,"
        )
        return ConfigurationError(
            f"the TLS certificate of {whose} is not trusted: {_tls_reason(cause)}",
            "set MLFLOW_TRACKING_SERVER_CERT_PATH (or REQUESTS_CA_BUNDLE) to the file with your "
            "organisation's CA certificate",
        )
    if isinstance(cause, http.TooManyRedirects):
        return ConfigurationError(
            f"{where} redirects in a circle", "check the address and the proxy in front of the server"
        )
    if isinstance(cause, (http.InvalidURL, http.MissingSchema, http.InvalidSchema)):
        return ConfigurationError(
            f"{where} is not a tracking URI: {said}", "for example: http://mlflow.example:5000"
        )
    if isinstance(cause, http.ProxyError):
        return ServiceUnavailable(
            f"the proxy on the way to {where} does not answer: {said}", "check HTTPS_PROXY and NO_PROXY"
        )
    if isinstance(cause, http.RetryError):
        # urllib3 only reports one long address. The status is that of the last answer.
        status = http_status.last()
        why = f"failed with {status}" if status in _TRANSIENT else f"keeps failing: {said}"
        return ServiceUnavailable(f"{where} {why}", AGAIN)
    if isinstance(
        cause, (http.ConnectionError, http.Timeout, http.ChunkedEncodingError, http.ContentDecodingError)
    ):
        return ServiceUnavailable(
            f"{where} does not answer: {_network_reason(cause)}",
            "check the address and the network; " + AGAIN,
        )
    return None


def status_error(status: int, said: str, where: str) -> MirrorError | None:
    """Return our error for an answer with this status; None if the status alone is not enough."""
    if status in (401, 403):
        return NotAllowed(
            f"{where} does not accept the login ({status}): {said}",
            "set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        )
    if status in _TRANSIENT:
        return ServiceUnavailable(f"{where} failed with {status}: {said}", AGAIN)
    if status == 413:
        return ConfigurationError(
            f"{where} refuses a request of this size (413)",
            "raise the limit of the server or of the proxy in front of it (nginx: client_max_body_size)",
        )
    if status == 404 and "RESOURCE_DOES_NOT_EXIST" not in said:
        return ConfigurationError(
            f"{where} is not an MLflow server: {said}", "check the address and its path"
        )
    return None


def _network_reason(cause: BaseException) -> str:
    """Summarise the nested errors of requests, urllib3 and the system in a few words."""
    said = str(cause)
    for sign, words in (
        ("Name or service not known", "its name cannot be resolved"),
        ("Failed to resolve", "its name cannot be resolved"),
        ("nodename nor servname", "its name cannot be resolved"),
        ("Connection refused", "the connection was refused"),
        ("No route to host", "there is no route to it"),
        ("Network is unreachable", "the network is unreachable"),
        ("timed out", "no answer in time"),
        ("IncompleteRead", "the answer was truncated"),
        ("Connection reset", "the connection was dropped"),
        ("Remote end closed", "the connection was dropped"),
        ("Connection aborted", "the connection was dropped"),
        ("EOF", "the connection was dropped"),
    ):
        if sign in said:
            return words
    return redaction.text(first_line(cause))


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line without secrets and pages."""
    text = without_html(str(error)).strip() or type(error).__name__
    return redaction.start(text.splitlines()[0], 300)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _same_host(url: str, other: str) -> bool:
    try:
        return urlsplit(url).netloc == urlsplit(other).netloc.rpartition("@")[2]
    except ValueError:
        return False


def _tls_reason(cause: BaseException) -> str:
    """Return OpenSSL's own words, without those of the three libraries around it."""
    said = re.search(r"certificate verify failed: ([^(\"']+)", str(cause))
    return said[1].strip() if said else redaction.text(first_line(cause))
