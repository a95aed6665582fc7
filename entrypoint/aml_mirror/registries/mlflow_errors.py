"""Translates errors of MLflow's clients into one line that a person can act on."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from mlflow.exceptions import ERROR_CODE_TO_HTTP_STATUS as HTTP_STATUS_OF
from mlflow.exceptions import MlflowException, RestException

from aml_mirror.core.errors import ConfigurationError, MirrorError, NotAllowed, ServiceUnavailable
from aml_mirror.registries import http_status, object_store_errors
from aml_mirror.registries.mlflow_answers import answer_behind
from aml_mirror.registries.mlflow_http_errors import (
    AGAIN,
    first_line,
    of_answer,
    of_request,
    status_error,
)
from aml_mirror.support import redaction


def error_code(error: BaseException | None) -> str:
    """Return MLflow's error code; empty if the error is not MLflow's."""
    return str(getattr(error, "error_code", ""))


def is_missing(error: BaseException | None) -> bool:
    """Tell whether the server said that the requested object does not exist."""
    return getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST"


def is_there_already(error: BaseException | None) -> bool:
    """Tell whether the server said that the object to create exists already."""
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
    if answer is not None and (found := of_answer(answer, where)):
        return found
    for cause in _chain(error):
        if found := _of(cause, where):
            return found
    said = redaction.text(_sentence(error) if isinstance(error, RestException) else first_line(error))
    if isinstance(error, MlflowException):
        if "registered artifact repository" in str(error):
            return ConfigurationError(
                f"MLflow's client does not know this kind of artifact store: {where}",
                "install the MLflow plugin for it beside this program, or start the server with "
                "--serve-artifacts",
            )
        if "Databricks credential" in str(error):
            return ConfigurationError(
                f"{where} needs a login to Databricks, but there is none",
                "install databricks-sdk beside this program, and set DATABRICKS_HOST and DATABRICKS_TOKEN",
            )
        if "valid JSON" in str(error) or "response body" in str(error):
            return ServiceUnavailable(f"{where} sent an answer that is cut or not MLflow's: {said}", AGAIN)
        if "too many" in str(error):
            return ServiceUnavailable(f"{where} keeps failing: {said}", AGAIN)
        if "locked" in str(error) or "OperationalError" in str(error):
            return _database(said, where)
    status = http_status.last() if isinstance(error, MlflowException) else None
    if status and status >= 400 and (found := status_error(status, said, where)):
        return found
    return ConfigurationError(f"{where} refused: {said}", "look at the message; --debug shows where it arose")


def _sentence(cause: RestException) -> str:
    """Return the server's message. Azure ML's limits have none at the top (azure-sdk-for-python#35685)."""
    body = cause.json if isinstance(cause.json, dict) else {}
    inner = body.get("error")
    if body.get("message") or not isinstance(inner, dict) or not inner.get("message"):
        return first_line(cause)
    code = body.get("error_code") or inner.get("code") or ""
    return f"{code}: {inner['message']}".strip(": ").splitlines()[0]


def _of(cause: BaseException, where: str) -> MirrorError | None:
    said = redaction.text(first_line(cause))
    if type(cause).__module__.startswith("azure."):
        # Imported late: an MLflow server seldom stores its files there.
        from aml_mirror.storage import azure_errors

        return azure_errors.translate(cause, where)
    if found := object_store_errors.translate(cause, where):
        return found
    if isinstance(cause, RestException):
        said = redaction.text(_sentence(cause))
        # The error code in the body counts only if the body is MLflow's.
        known = cause.json.get("error_code") in HTTP_STATUS_OF
        return status_error(cause.get_http_status_code() if known else http_status.last() or 500, said, where)
    if found := of_request(cause, where):
        return found
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return ServiceUnavailable(
            f"there is no space left for the artifacts of {where}", "make room, then " + AGAIN
        )
    if isinstance(cause, PermissionError):
        return NotAllowed(f"{cause.filename or where} is not writable: {said}", "give this user write access")
    if isinstance(cause, ModuleNotFoundError):
        store = where.startswith("the artifact store")
        # botocore comes with boto3, which is the package that people install.
        package = "boto3" if cause.name == "botocore" else cause.name
        return ConfigurationError(
            f"{where} needs the Python package {package}, which is not installed here",
            "install it beside this program, or start the server with --serve-artifacts: then it stores the "
            "files itself"
            if store
            else "pass the address of an MLflow server, or install aml-mirror[local], which has the database",
        )
    if type(cause).__module__.startswith("sqlalchemy") or type(cause).__module__ == "sqlite3":
        return _database(said, where)
    return None


def _database(said: str, where: str) -> MirrorError:
    if "locked" in said:
        return ServiceUnavailable(f"the database {where} is in use by another program", AGAIN)
    return ConfigurationError(
        f"the database {where} cannot be used: {said}", "check its path and whether it is writable"
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
