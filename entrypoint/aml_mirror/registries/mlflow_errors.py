"""What MLflow's clients raise, as the one line that a person can act on."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from mlflow.exceptions import ERROR_CODE_TO_HTTP_STATUS as HTTP_STATUS_OF
from mlflow.exceptions import MlflowException, RestException
from requests import Response
from requests import exceptions as http

from aml_mirror.core.errors import ConfigurationError, MirrorError, NotAllowed, ServiceUnavailable
from aml_mirror.registries import http_status, object_store_errors
from aml_mirror.registries.mlflow_answers import (
    address,
    answer_behind,
    beginning,
    is_page,
    missing_permission,
    redirected_to,
    without_html,
)
from aml_mirror.support import redaction

_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504, 507})
# OpenSSL's and the system's words for a peer that is gone in the middle of the handshake.
_DROPPED = ("UNEXPECTED_EOF", "EOF occurred", "Connection reset", "timed out")
_AGAIN = "run the same command again: it goes on where this one ended"


def error_code(error: BaseException | None) -> str:
    """What MLflow calls the error; empty where it is none of MLflow's."""
    return str(getattr(error, "error_code", ""))


def is_missing(error: BaseException | None) -> bool:
    """Whether the server said that what was asked for does not exist."""
    return getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST"


def is_there_already(error: BaseException | None) -> bool:
    """Whether the server said that what was to be made exists."""
    return getattr(error, "error_code", "") == "RESOURCE_ALREADY_EXISTS"


def translate(error: Exception, where: str) -> MirrorError:
    """Return our error for a client's.

    Args:
        error: what the client raised.
        where: the tracking URI, without secrets.
    """
    if isinstance(error, MirrorError):
        return error
    answer = answer_behind(error)
    if answer is not None and (found := _of_answer(answer, where)):
        return found
    for cause in _chain(error):
        if found := _of(cause, where):
            return found
    said = redaction.text(_sentence(error) if isinstance(error, RestException) else _first_line(error))
    if isinstance(error, MlflowException):
        if "registered artifact repository" in str(error):
            return ConfigurationError(
                f"MLflow's client knows no artifact store of this kind: {where}",
                "install the MLflow plugin for it beside this program, or start the server with "
                "--serve-artifacts",
            )
        if "valid JSON" in str(error) or "response body" in str(error):
            return ServiceUnavailable(f"{where} gave an answer that is cut or not MLflow's: {said}", _AGAIN)
        if "too many" in str(error):
            return ServiceUnavailable(f"{where} goes on failing: {said}", _AGAIN)
        if "locked" in str(error) or "OperationalError" in str(error):
            return _database(said, where)
    status = http_status.last() if isinstance(error, MlflowException) else None
    if status and status >= 400 and (found := _status(status, said, where)):
        return found
    return ConfigurationError(f"{where} refused: {said}", "look at the message; --debug shows where it arose")


def _of_answer(answer: Response, where: str) -> MirrorError | None:
    """What an answer says that is not MLflow's, or that MLflow's exceptions lose."""
    status, target = answer.status_code, redirected_to(answer)
    via = f"{where} sends requests on to {target}" if target else where
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
                "use an address of the server that takes a token, and set MLFLOW_TRACKING_TOKEN, or "
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
    # MLflow's own access control says no more than "Permission denied".
    denied = status == 403 and beginning(answer).lower().startswith("permission")
    if denied and (missing := missing_permission(answer)):
        return NotAllowed(
            f"{where} does not allow this login to do that: it lacks {redaction.text(missing)}",
            "have the permission granted (mlflow server --app-name basic-auth: PERMISSION on the object), or "
            "use another login",
        )
    return None


def _sentence(cause: RestException) -> str:
    """What the server says. Azure ML's limits have no top-level message (azure-sdk-for-python#35685)."""
    body = cause.json if isinstance(cause.json, dict) else {}
    inner = body.get("error")
    if body.get("message") or not isinstance(inner, dict) or not inner.get("message"):
        return _first_line(cause)
    code = body.get("error_code") or inner.get("code") or ""
    return f"{code}: {inner['message']}".strip(": ").splitlines()[0]


def _of(cause: BaseException, where: str) -> MirrorError | None:
    said = redaction.text(_first_line(cause))
    if type(cause).__module__.startswith("azure."):
        # Late: an MLflow server seldom keeps its files there.
        from aml_mirror.storage import azure_errors

        return azure_errors.translate(cause, where)
    if found := object_store_errors.translate(cause, where):
        return found
    if isinstance(cause, RestException):
        said = redaction.text(_sentence(cause))
        # What the body calls the error counts only where it is MLflow's own body.
        known = cause.json.get("error_code") in HTTP_STATUS_OF
        return _status(cause.get_http_status_code() if known else http_status.last() or 500, said, where)
    if isinstance(cause, http.HTTPError) and cause.response is not None:
        return _status(cause.response.status_code, said, where)
    if isinstance(cause, http.SSLError) and re.search("wrong.version.number", str(cause), re.IGNORECASE):
        return ConfigurationError(
            f"{where} does not speak TLS", "write http:// where the server is reached without it"
        )
    # A connection that is dropped while it is made is an SSLError as well.
    if isinstance(cause, http.SSLError) and not any(sign in str(cause) for sign in _DROPPED):
        asked = address(getattr(cause.request, "url", None))
        # A redirect may lead to another host, whose certificate it is then.
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
        # What urllib3 says is one long address; the status was that of the last answer.
        status = http_status.last()
        why = f"failed with {status}" if status in _TRANSIENT else f"goes on failing: {said}"
        return ServiceUnavailable(f"{where} {why}", _AGAIN)
    if isinstance(
        cause, (http.ConnectionError, http.Timeout, http.ChunkedEncodingError, http.ContentDecodingError)
    ):
        return ServiceUnavailable(
            f"{where} does not answer: {_network_reason(cause)}",
            "check the address and the network; " + _AGAIN,
        )
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return ServiceUnavailable(
            f"no space is left where {where} keeps its artifacts", "make room, then " + _AGAIN
        )
    if isinstance(cause, PermissionError):
        return NotAllowed(
            f"{cause.filename or where} may not be written: {said}", "give this user write access"
        )
    if isinstance(cause, ModuleNotFoundError):
        store = where.startswith("the artifact store")
        # botocore comes with boto3, which is what people install.
        package = "boto3" if cause.name == "botocore" else cause.name
        return ConfigurationError(
            f"{where} needs the Python package {package}, which is not installed here",
            "install it beside this program, or start the server with --serve-artifacts: then it stores the "
            "files itself"
            if store
            else "pass the address of an MLflow server, or install the full package: pip install mlflow",
        )
    if type(cause).__module__.startswith("sqlalchemy") or type(cause).__module__ == "sqlite3":
        return _database(said, where)
    return None


def _status(status: int, said: str, where: str) -> MirrorError | None:
    if status in (401, 403):
        return NotAllowed(
            f"{where} does not accept the login ({status}): {said}",
            "set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        )
    if status in _TRANSIENT:
        return ServiceUnavailable(f"{where} failed with {status}: {said}", _AGAIN)
    if status == 413:
        return ConfigurationError(
            f"{where} refuses a request of this size (413)",
            "raise the limit of the server or of the proxy in front of it (nginx: client_max_body_size)",
        )
    if status == 404 and "RESOURCE_DOES_NOT_EXIST" not in said:
        return ConfigurationError(f"{where} is no MLflow server: {said}", "check the address and its path")
    return None


def _database(said: str, where: str) -> MirrorError:
    if "locked" in said:
        return ServiceUnavailable(f"the database {where} is in use by another program", _AGAIN)
    return ConfigurationError(
        f"the database {where} cannot be used: {said}", "check its path and that it can be written"
    )


def _network_reason(cause: BaseException) -> str:
    """What the wrapped errors of requests, urllib3 and the system come to, in a few words."""
    said = str(cause)
    for sign, words in (
        ("Name or service not known", "its name cannot be resolved"),
        ("Failed to resolve", "its name cannot be resolved"),
        ("nodename nor servname", "its name cannot be resolved"),
        ("Connection refused", "the connection was refused"),
        ("No route to host", "there is no route to it"),
        ("Network is unreachable", "the network is unreachable"),
        ("timed out", "no answer in time"),
        ("IncompleteRead", "the answer was cut"),
        ("Connection reset", "the connection was dropped"),
        ("Remote end closed", "the connection was dropped"),
        ("Connection aborted", "the connection was dropped"),
        ("EOF", "the connection was dropped"),
    ):
        if sign in said:
            return words
    return redaction.text(_first_line(cause))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _first_line(error: BaseException) -> str:
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
    """OpenSSL's own words, without those of three libraries around them."""
    said = re.search(r"certificate verify failed: ([^(\"']+)", str(cause))
    return said[1].strip() if said else redaction.text(_first_line(cause))
