"""Translates errors of Azure's clients into one line that a person can act on.

The clients wrap each other: a refused token arrives as a failed storage request, an unresolvable name as a
failed credential. So the whole chain of causes is examined, from the outside in, and the first specific error
decides. Temporary errors (the service is busy, or a connection was dropped, also to the token service) become
:class:`ServiceUnavailable`. Only these are retried.

This module handles answers of a service. :mod:`.entra_errors` handles failed logins, :mod:`.network_errors`
requests without an answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from azure.core import exceptions as core
from requests import exceptions as http

from aml_mirror.core.errors import ConfigurationError, DataError, MirrorError, NotAllowed, ServiceUnavailable
from aml_mirror.storage import entra_errors, network_errors
from aml_mirror.storage.network_errors import AGAIN as AGAIN
from aml_mirror.support import redaction
from aml_mirror.support.retry import asked_pause

_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})

_ROLE_HINT = (
    "grant it 'Storage Blob Data Contributor' on the account ('Storage Blob Data Reader' is enough to read a "
    "run); a new assignment takes up to ten minutes to work"
)
_NO_CODE_HINT = (
    "an answer without an Azure error code may come from a proxy or a firewall: check HTTPS_PROXY. Otherwise "
    + _ROLE_HINT
)
_NETWORK_RULES_HINT = (
    "the account's network rules may not let this network in: add it there, or reach the account through "
    "its private endpoint"
)


# The most characters of a service's message, and the most levels of causes, that are read.
_MOST_SAID = 300
_MOST_DETAILS = 5


def translate(error: BaseException, where: str) -> MirrorError:
    """Return our error for an error of an Azure client.

    Args:
        error: the client's error.
        where: the contacted service, in words without a secret: ``container runs of account lab``.
    """
    if isinstance(error, MirrorError):
        return error
    for cause in chain(error):
        if isinstance(cause, MirrorError):
            return cause
        if found := _of(cause, where):
            return found
    return ConfigurationError(
        f"{where} refused: {first_line(error)}", "look at the message; --debug shows where it arose"
    )


def code_of(error: BaseException | None) -> str:
    """Return the service's own error code (``BlobNotFound``), or ``""``."""
    code = getattr(error, "error_code", None) or getattr(getattr(error, "error", None), "code", None)
    if not code:
        response = getattr(error, "response", None)
        code = getattr(response, "headers", {}).get("x-ms-error-code", "")
    return str(getattr(code, "value", code) or "")


def status_of(error: BaseException | None) -> int:
    """Return the HTTP status of an error, or 0 if there was no answer."""
    return int(getattr(error, "status_code", None) or 0)


def is_missing(error: BaseException | None) -> bool:
    """Tell whether the service said that the requested object does not exist."""
    return status_of(error) == 404


def is_there_already(error: BaseException | None) -> bool:
    """Tell whether the service said that the object to create exists, or is being changed."""
    return status_of(error) == 409


def is_changed(error: BaseException | None) -> bool:
    """Tell whether the service said that a condition on the ETag does not hold."""
    return status_of(error) == 412 or code_of(error) in ("ConditionNotMet", "SourceConditionNotMet")


def is_conflict(error: BaseException | None) -> bool:
    """Tell whether a write was refused because the blob changed since it was read."""
    code = code_of(error)
    if code in ("BlobAlreadyExists", "ConditionNotMet", "TargetConditionNotMet"):
        return True
    return status_of(error) == 412 and not code.startswith(("Source", "Lease"))


def is_unauthenticated(error: BaseException | None) -> bool:
    """Tell whether the service rejected the token: expired by its clock, or revoked."""
    return status_of(error) == 401


def is_damage(error: BaseException | None) -> bool:
    """Tell whether the service received other bytes than those of the checksum."""
    if code_of(error) in ("Md5Mismatch", "Crc64Mismatch", "InvalidMd5"):
        return True
    # Azurite's message for it, under a code with many meanings.
    return code_of(error) == "InvalidOperation" and "contentMD5 doesn't match" in str(error)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, outermost first."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        inner = getattr(current, "inner_exception", None) or getattr(current, "exc_value", None)
        pending += [inner if isinstance(inner, BaseException) else None]
        pending += [current.__cause__ or current.__context__]


def first_line(error: BaseException) -> str:
    """Return an error's message, in one line without secrets."""
    said = str(getattr(error, "message", "") or error).strip() or type(error).__name__
    # The storage client appends RequestId, Time and ErrorCode on lines of their own.
    line = said.splitlines()[0]
    shown = redaction.start(line, _MOST_SAID)
    # Never in the middle of a word, which may be an error code.
    return shown if len(line) <= _MOST_SAID else shown.rsplit(" ", 1)[0] + " …"


def reason_of(error: BaseException | None) -> tuple[str, str]:
    """Return code and message of the cause below an error, or two empty strings.

    Azure ML's services put a generic message on top ("The request is invalid.") and the cause into
    ``error.details`` (recorded in azure-sdk-assets, azure-ai-ml, model tests).
    """
    found = getattr(error, "error", None)
    reason = ("", "")
    for _ in range(_MOST_DETAILS):
        details = getattr(found, "details", None)
        found = details[0] if isinstance(details, list) and details else None
        if found is None:
            break
        reason = (str(getattr(found, "code", "") or ""), str(getattr(found, "message", "") or ""))
    return reason


def _of(cause: BaseException, where: str) -> MirrorError | None:
    said = first_line(cause)
    if isinstance(cause, core.ClientAuthenticationError) and not status_of(cause):
        return entra_errors.translate(cause, where)
    # Whatever the status is: the body would have explained it.
    if isinstance(cause, (core.IncompleteReadError, core.DecodeError, json.JSONDecodeError)):
        return ServiceUnavailable(f"an answer of {where} was truncated or is not from Azure: {said}", AGAIN)
    if isinstance(cause, core.HttpResponseError) and status_of(cause):
        # Entra answers a token request with 400 or 401. The message contains its code.
        if "AADSTS" in str(cause):
            return entra_errors.translate(cause, where)
        return _status(cause, where)
    if isinstance(cause, http.HTTPError) and cause.response is not None:
        if cause.response.status_code in (*_TRANSIENT, 507):
            return ServiceUnavailable(f"{where} failed with {cause.response.status_code}: {said}", AGAIN)
        return ConfigurationError(
            f"{where} answers {cause.response.status_code}: {said}", "check the address"
        )
    if isinstance(cause, http.RetryError):
        return ServiceUnavailable(f"{where} keeps failing: {said}", AGAIN)
    if "Tunnel connection failed" in str(cause):
        return network_errors.translate(str(cause), where)
    if isinstance(cause, (http.ProxyError,)) or "ProxyError" in said:
        return ServiceUnavailable(
            f"the proxy on the way to {where} does not answer: {said}", "check HTTPS_PROXY and NO_PROXY"
        )
    if isinstance(
        cause,
        (
            core.ServiceRequestError,
            core.ServiceResponseError,
            http.ConnectionError,
            http.Timeout,
            http.ChunkedEncodingError,
            http.ContentDecodingError,
        ),
    ):
        return network_errors.translate(str(cause), where)
    if isinstance(cause, core.HttpResponseError):
        return ServiceUnavailable(f"{where} failed: {said}", AGAIN)
    if isinstance(cause, (http.InvalidURL, http.MissingSchema, http.InvalidSchema)):
        return ConfigurationError(f"{where} has no valid address: {said}", "check the address")
    if isinstance(cause, (ConnectionError, TimeoutError)):
        return network_errors.translate(str(cause) or type(cause).__name__, where)
    return None


def _status(cause: core.HttpResponseError, where: str) -> MirrorError:
    status, code, said = status_of(cause), code_of(cause), first_line(cause)
    below, reason = reason_of(cause)
    if reason:
        said = first_line(Exception(reason))
    named = f"{status} {below or code}".strip()
    host = _host(cause)
    at = f"{where} ({host})" if host and host.split(".")[0] not in where else where
    if is_private_link(cause):
        return private_link(at, named)
    if status == 401:
        return NotAllowed(
            f"{at} rejected the token of this identity ({named}): {said}",
            "check that AZURE_TENANT_ID is the tenant of the account, and this machine's clock",
        )
    if status == 403:
        return _forbidden(code, named, at, said)
    if status == 404:
        return _missing(
            code, named, _container_of(cause) or at if code == "ContainerNotFound" else at, reason
        )
    if status == 507 or code in ("InsufficientStorage", "AccountFull"):
        return ServiceUnavailable(
            f"{at} has no space left ({named})", "free some space or raise the limit, then " + AGAIN
        )
    if status in _TRANSIENT:
        failure = ServiceUnavailable(f"{at} failed with {named}", AGAIN)
        failure.retry_after = asked_pause(getattr(getattr(cause, "response", None), "headers", None) or {})
        return failure
    if code in ("BlobImmutableDueToPolicy", "BlobImmutableDueToLegalHold"):
        return ConfigurationError(
            f"{at} does not allow blobs to be changed or deleted: a retention policy or legal hold forbids "
            f"it ({code})",
            "ask the owner of the account to exempt the folder aml-mirror, or use another default datastore",
        )
    if status in (409, 412):
        if code in ("LeaseIdMissing", "LeaseIdMismatchWithBlobOperation", "LeaseAlreadyPresent"):
            return ServiceUnavailable(f"another program holds a lease on {at} ({code})", AGAIN)
        if code in (
            "ContainerBeingDeleted",
            "AccountBeingCreated",
            "PendingCopyOperation",
            "OperationPending",
        ):
            return ServiceUnavailable(f"{at} is busy ({code})", AGAIN)
        return DataError(f"{at} was changed by another program ({named})", AGAIN)
    if is_damage(cause):
        # Damaged on the way. The same bytes arrive if they are sent again.
        return ServiceUnavailable(f"bytes were damaged on the way to {at} ({code})", AGAIN)
    if status == 413 or code in ("RequestBodyTooLarge", "BlockCountExceedsLimit"):
        return ConfigurationError(
            f"{at} refuses a request of this size ({named})", "pass a smaller --block-size"
        )
    if 300 <= status < 400:
        return ConfigurationError(f"{at} redirects elsewhere ({named})", "check the address and HTTPS_PROXY")
    return ConfigurationError(
        f"{at} refused ({named}): {said}", "look at the message; --debug shows where it arose"
    )


def _forbidden(code: str, named: str, at: str, said: str) -> MirrorError:
    if code == "AuthorizationPermissionMismatch":
        return NotAllowed(f"this identity has no data role on {at} ({named})", _ROLE_HINT)
    if code in ("AuthorizationFailure", "IpAuthorizationFailed", "NetworkAclDenied"):
        return NotAllowed(f"{at} refuses this network or identity ({named})", _NETWORK_RULES_HINT)
    if code == "AuthorizationFailed":
        # ARM says who may not do what on which scope. Storage uses AuthorizationFailed for roles too.
        what = re.search(r"perform action '([^']+)'", said)
        who = re.search(r"object id '([^']+)'", said)
        return NotAllowed(
            f"AuthorizationFailed at {at}: the identity{' ' + who[1] if who else ''} may not "
            f"{what[1] if what else 'do this'}",
            "grant it 'AzureML Data Scientist' on the workspace, and 'Storage Blob Data Contributor' on its "
            "storage account",
        )
    if code == "KeyBasedAuthenticationNotPermitted":
        return NotAllowed(
            f"{at} refuses shared keys and their SAS ({named})",
            "grant this identity 'Storage Blob Data Contributor' on the account: its token is used instead",
        )
    if code == "AccountIsDisabled":
        return NotAllowed(f"{at} is disabled ({named})", "ask the owner of the account")
    if code in ("CannotVerifyCopySource", "UnauthorizedCopySource", "CopyAcrossAccountsNotAllowed"):
        return NotAllowed(
            f"{at} may not copy from there ({named})", "the bytes are sent through this program"
        )
    if "tenant" in said.lower() and "not match" in said.lower():
        return NotAllowed(f"{at} belongs to another tenant ({named})", "check AZURE_TENANT_ID")
    if not code:
        return NotAllowed(f"{at} refused ({named}): {said}", _NO_CODE_HINT)
    return NotAllowed(f"{at} refused ({named}): {said}", _ROLE_HINT)


def is_private_link(error: BaseException) -> bool:
    """Tell whether a service says, with 502 or 403, that it only answers through a private endpoint."""
    return any("private link" in str(cause).lower() for cause in chain(error))


def private_link(at: str, named: str) -> MirrorError:
    """Return the error for a workspace that only answers through its private endpoint (azure-docs#90426)."""
    return ConfigurationError(
        f"{at} can only be reached through its private endpoint ({named}), and this network has no route to "
        "it",
        "run in a network that is linked to the private endpoint and its DNS zone, or allow access to the "
        "workspace from public networks; neither roles nor waiting will help",
    )


def _container_of(cause: core.HttpResponseError) -> str:
    """Return which container a request was about; empty if unknown."""
    request = getattr(getattr(cause, "response", None), "request", None)
    parts = urlsplit(str(getattr(request, "url", "") or ""))
    name = parts.path.strip("/").partition("/")[0]
    account = (parts.hostname or "").partition(".")[0]
    return f"container {name} of storage account {account}" if name and account else ""


def _missing(code: str, named: str, at: str, reason: str = "") -> MirrorError:
    if code == "ResourceGroupNotFound":
        return ConfigurationError(
            f"{at}: there is no such resource group ({code})", "check AZURE_RESOURCE_GROUP"
        )
    if code == "SubscriptionNotFound":
        return ConfigurationError(
            f"{at}: this identity sees no such subscription ({code})",
            "check AZURE_SUBSCRIPTION_ID and its roles",
        )
    if code == "ContainerNotFound":
        return ConfigurationError(
            f"{at} does not exist ({code})",
            "check the container's name; if it is that of the workspace's default datastore, create it, or "
            "choose another default datastore",
        )
    if reason:
        return ConfigurationError(
            f"{at} refused ({named}): {first_line(Exception(reason))}", "check the names"
        )
    return ConfigurationError(f"{at} does not exist ({named})", "check the names")


def _host(cause: core.HttpResponseError) -> str:
    request = getattr(getattr(cause, "response", None), "request", None)
    return urlsplit(str(getattr(request, "url", ""))).hostname or ""
