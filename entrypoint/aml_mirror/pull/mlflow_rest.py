"""Finds a version and reads its files over MLflow's REST API, with requests alone.

The login is MLflow's: ``MLFLOW_TRACKING_TOKEN``, ``MLFLOW_TRACKING_USERNAME`` with ``…_PASSWORD``, the file
``~/.mlflow/credentials``, or user and password in the URI. ``MLFLOW_TRACKING_SERVER_CERT_PATH``,
``MLFLOW_TRACKING_CLIENT_CERT_PATH`` and ``MLFLOW_TRACKING_INSECURE_TLS`` apply too
(mlflow/utils/credentials.py and rest_utils.py, 3.15).
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter

from aml_mirror.core.errors import ConfigurationError, MirrorError, ServiceUnavailable
from aml_mirror.registries.mlflow_answers import answer_behind
from aml_mirror.registries.mlflow_http_errors import AGAIN, first_line, of_answer, of_request
from aml_mirror.support import redaction
from aml_mirror.support.retry import Retry, asked_pause

T = TypeVar("T")

CONNECT_SECONDS = 20
# Between two packets.
STALL_SECONDS = 60
CONNECTIONS = 16
_API = "/api/2.0/mlflow"
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


class MlflowRest:
    """One server. A method sends one request, or one per page, with retries.

    Args:
        uri: its address.
        retry_seconds: how long an operation may keep failing for temporary reasons.
        notice: called with messages for the user while waiting.
    """

    def __init__(self, uri: str, retry_seconds: float, notice: Callable[[str], None]) -> None:
        parts = urlsplit(uri)
        self.uri = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
        self.shown = redaction.text(self.uri)
        self.retry = Retry(retry_seconds, self.translate, notice)
        self.session = _session(parts.username, parts.password)

    def translate(self, error: Exception) -> MirrorError:
        """Return our error for an error of requests."""
        answer = answer_behind(error)
        if answer is not None and (found := of_answer(answer, self.shown)):
            return found
        for cause in (error, error.__cause__):
            if cause is not None and (found := of_request(cause, self.shown)):
                if isinstance(found, ServiceUnavailable) and answer is not None:
                    found.retry_after = asked_pause(answer.headers)
                return found
        if isinstance(error, (ValueError, KeyError, TypeError)):
            return ServiceUnavailable(f"{self.shown} sent an answer that is cut or not MLflow's", AGAIN)
        return ConfigurationError(
            f"{self.shown} refused: {first_line(error)}", "look at the message; --debug shows where it arose"
        )

    def version(self, model: str, number: str) -> dict[str, Any] | None:
        """Return a version, or None where there is none."""
        return self._one("model-versions/get", "model_version", name=model, version=number)

    def by_alias(self, model: str, alias: str) -> dict[str, Any] | None:
        """Return the version that has an alias, or None where there is none."""
        return self._one("registered-models/alias", "model_version", name=model, alias=alias)

    def search(self, where: str) -> list[dict[str, Any]]:
        """Return the versions that a filter finds."""
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            page = self._get("model-versions/search", filter=where, page_token=token)
            found += page.get("model_versions") or ()
            token = page.get("next_page_token") or ""
            if not token:
                return found

    def download_uri(self, model: str, number: str) -> str:
        """Return where the files of a version are."""
        found = self._get("model-versions/get-download-uri", name=model, version=number)
        return str(found.get("artifact_uri") or "")

    def run(self, run_id: str) -> dict[str, Any] | None:
        """Return a run's ``info``, or None where there is none."""
        found = self._one("runs/get", "run", run_id=run_id)
        info: dict[str, Any] | None = found.get("info") if found else None
        return info

    def _one(self, path: str, key: str, **query: str) -> dict[str, Any] | None:
        def ask() -> dict[str, Any] | None:
            answer = self._send(path, query)
            if answer.status_code in (400, 404) and _code(answer) in _MISSING:
                return None
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()[key]
            return found

        return self.retry(ask)

    def _get(self, path: str, **query: str) -> dict[str, Any]:
        def ask() -> dict[str, Any]:
            answer = self._send(path, query)
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
            return found

        return self.retry(ask)

    def _send(self, path: str, query: dict[str, str]) -> requests.Response:
        asked = {name: text for name, text in query.items() if text}
        answer = self.session.get(f"{self.uri}{_API}/{path}", params=asked)
        if found := of_answer(answer, self.shown):
            raise found
        return answer


def _code(answer: requests.Response) -> str:
    try:
        body = answer.json()
    except ValueError:
        return ""
    return str(body.get("error_code", "")) if isinstance(body, dict) else ""


class _Adapter(HTTPAdapter):
    """Closes a connection that stalls."""

    def send(self, request: Any, **options: Any) -> Any:  # type: ignore[override]
        options["timeout"] = options.get("timeout") or (CONNECT_SECONDS, STALL_SECONDS)
        return super().send(request, **options)


def _session(user: str | None, password: str | None) -> requests.Session:
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(pool_connections=4, pool_maxsize=CONNECTIONS + 2))
    session.headers["User-Agent"] = "aml-mirror"
    # A compressed answer does not have the bytes and length of the file.
    session.headers["Accept-Encoding"] = "identity"
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        session.headers["Authorization"] = f"Bearer {token}"
        # Otherwise requests would replace it with the entry of ~/.netrc for the host.
        session.auth = lambda request: request
    else:
        name, secret = _credentials()
        if user or name:
            session.auth = (user or name, password or secret)
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        session.verify = False
    elif path := os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"):
        session.verify = path
    if path := os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"):
        session.cert = path
    return session


def _credentials() -> tuple[str, str]:
    """Return user and password, from the environment or from MLflow's credentials file."""
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    parsed = configparser.ConfigParser(interpolation=None)
    try:
        parsed.read(Path.home() / ".mlflow" / "credentials", encoding="utf-8")
        kept = dict(parsed["mlflow"]) if "mlflow" in parsed else {}
    except (configparser.Error, OSError, RuntimeError, UnicodeDecodeError):
        kept = {}
    user, password = (os.environ.get(name) or kept.get(name.lower(), "") for name in names)
    return user, password
