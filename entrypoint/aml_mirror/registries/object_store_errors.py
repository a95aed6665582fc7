"""Translates errors of S3's and Google's clients into one line that a person can act on.

The classes are recognised by module and name, because their packages are not part of this program.
"""

from __future__ import annotations

from aml_mirror.core.errors import ConfigurationError, MirrorError, NotAllowed, ServiceUnavailable
from aml_mirror.support import redaction

_AGAIN = "run the same command again: it continues where this one stopped"
_AWS_LOGIN = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role of this machine that may read, "
    "write and list there"
)
_GOOGLE_LOGIN = (
    "set GOOGLE_APPLICATION_CREDENTIALS, or use a service account of this machine that may write there"
)
# Codes of S3 (Amazon S3 API Reference, Error responses).
_S3_LOGIN = frozenset(
    {"AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
)
_S3_LATER = frozenset(
    {"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "500", "502", "503"}
)


def translate(cause: BaseException, where: str) -> MirrorError | None:
    """Return our error for one of theirs; None: it is not one.

    Args:
        cause: what the client raised.
        where: the store, without secrets.
    """
    module, name = type(cause).__module__, type(cause).__name__
    if module.startswith(("botocore", "boto3")):
        return _of_s3(cause, name, where)
    if module.startswith(("google.auth", "google.api_core", "google.cloud")):
        return _of_google(cause, name, where)
    return None


def _of_s3(cause: BaseException, name: str, where: str) -> MirrorError | None:
    said = _first_line(cause)
    if name in (
        "NoCredentialsError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "CredentialRetrievalError",
    ):
        return NotAllowed(f"{where} needs a login, but there is none: {said}", _AWS_LOGIN)
    if name in (
        "EndpointConnectionError",
        "ConnectTimeoutError",
        "ReadTimeoutError",
        "ConnectionClosedError",
    ):
        return ServiceUnavailable(
            f"{where} does not answer", "check the network and MLFLOW_S3_ENDPOINT_URL; " + _AGAIN
        )
    response = getattr(cause, "response", None)
    code = str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
    if code in _S3_LOGIN:
        return NotAllowed(f"{where} does not accept the login ({code}): {said}", _AWS_LOGIN)
    if code in ("NoSuchBucket", "PermanentRedirect", "IllegalLocationConstraintException"):
        return ConfigurationError(
            f"{where} cannot be used ({code}): {said}",
            "check the bucket's name, AWS_DEFAULT_REGION and MLFLOW_S3_ENDPOINT_URL",
        )
    if code in _S3_LATER:
        return ServiceUnavailable(f"{where} failed with {code}: {said}", _AGAIN)
    return None


def _of_google(cause: BaseException, name: str, where: str) -> MirrorError | None:
    said = _first_line(cause)
    if name in ("DefaultCredentialsError", "RefreshError", "Forbidden", "Unauthorized"):
        return NotAllowed(f"{where} does not accept the login: {said}", _GOOGLE_LOGIN)
    if name == "NotFound":
        return ConfigurationError(f"{where} does not exist: {said}", "check the bucket's name")
    if name in (
        "TooManyRequests",
        "InternalServerError",
        "BadGateway",
        "ServiceUnavailable",
        "TransportError",
    ):
        return ServiceUnavailable(f"{where} failed: {said}", _AGAIN)
    return None


def _first_line(cause: BaseException) -> str:
    text = str(cause).strip() or type(cause).__name__
    return redaction.start(redaction.text(text.splitlines()[0]), 300)
