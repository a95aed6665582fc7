"""Asks OSMO's REST API, for a watcher outside OSMO, where there is no ``osmo`` program.

The program itself uses this API (NVIDIA/OSMO, ``src/lib/utils/client.py`` and ``login.py``, 6.2 to 6.4). An
access token, made with ``osmo token set``, is exchanged for a token of five minutes by ``POST
/api/auth/jwt/access_token``. That token goes into ``Authorization: Bearer``. A refusal is a JSON object with
``message``, ``error_code`` and ``workflow_id``.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from aml_mirror.core.errors import (
    ConfigurationError,
    DataError,
    MirrorError,
    NotAllowed,
    ServiceUnavailable,
    SourceNotFound,
)
from aml_mirror.osmo.client import MAX_ANSWER_BYTES, checked, no_spec
from aml_mirror.osmo.workflow_list import ListQuery
from aml_mirror.support import redaction
from aml_mirror.support.retry import Retry, asked_pause

# The time-out in seconds for the connection, and between two parts of an answer. OSMO's own client waits 60
# for both.
TIMEOUTS = (20, 60)
# A token that is about to expire is not used. OSMO's tokens are valid for 300 seconds.
SPARE_SECONDS = 60.0
_MAX_MESSAGE = 300
_PART_BYTES = 1 << 16


class OsmoRestClient:
    """Asks OSMO's REST API. :class:`aml_mirror.osmo.client.OsmoClient` describes the answers.

    Args:
        url: the address of the service, as in ``osmo login URL``.
        token_file: contains an access token. It is read for each exchange, because it may be rotated.
        retry_seconds: how long a question may keep failing for temporary reasons.
        notice: called with messages for the user while waiting.

    Raises:
        ConfigurationError: the address or the file cannot be used.
    """

    # OSMO refuses more in one request.
    page_size = 1000

    def __init__(
        self, url: str, token_file: str, retry_seconds: float, notice: Callable[[str], None]
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ConfigurationError(
                f"the OSMO address {redaction.text(url)!r} is not an http:// or https:// URL",
                "for example: --osmo-url https://osmo.example.com",
            )
        if not token_file:
            raise ConfigurationError(
                "--osmo-url needs an access token",
                "make one with `osmo token set`, keep it in a file that others cannot read, and pass it with "
                "--osmo-token-file",
            )
        self._url = url.rstrip("/")
        self._host = parts.netloc
        self._file = token_file
        self._retry = Retry(retry_seconds, _unexpected, notice)
        self._session = requests.Session()
        # Otherwise requests would replace the token with a login from ~/.netrc.
        self._session.auth = _no_auth
        self._token = ""
        self._expires = 0.0

    def query(self, run_id: str, patient: bool = True) -> str:
        """Return a workflow as JSON. Raises the errors of :meth:`OsmoClient.query`."""
        path = f"/api/workflow/{checked(run_id)}"
        if not patient:
            return self._get(path, run_id)
        return self._retry(lambda: self._get(path, run_id))

    def spec(self, run_id: str) -> str:
        """Return the YAML of a workflow as it was submitted. Raises the errors of :meth:`OsmoClient.spec`."""
        text = self._retry(lambda: self._get(f"/api/workflow/{checked(run_id)}/spec", run_id))
        if not text.strip():
            raise no_spec(run_id, "it is empty")
        return text

    def list_page(self, query: ListQuery, offset: int, count: int) -> str:
        """Return a page of the list, the newest submission first. Raises the errors of :meth:`query`."""
        asked: list[tuple[str, str]] = [("limit", str(count)), ("offset", str(offset)), ("order", "DESC")]
        if query.submitted_since:
            asked.append(("submitted_after", f"{query.submitted_since.isoformat()}T00:00:00"))
        asked += [("users", user) for user in query.users] or [("all_users", "true")]
        asked += [("pools", pool) for pool in query.pools] or [("all_pools", "true")]
        return self._retry(lambda: self._get("/api/workflow", "", asked))

    def _get(self, path: str, run_id: str, asked: list[tuple[str, str]] | None = None) -> str:
        # A token may have been revoked, or this clock may be slow: try once more with a new one.
        for fresh in (False, True):
            headers = {"Authorization": f"Bearer {self._access(fresh)}", "User-Agent": "aml-mirror"}
            status, text, pause = self._send("GET", path, headers=headers, params=asked)
            if status != 401:
                break
        if status >= 300:
            raise self._failure(path, run_id, status, text, pause)
        return text

    def _access(self, fresh: bool) -> str:
        if fresh or time.time() > self._expires - SPARE_SECONDS:
            try:
                token = Path(self._file).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                why = error.strerror if isinstance(error, OSError) else "it is not text"
                raise ConfigurationError(
                    f"the OSMO token file {self._file} cannot be read: {why}",
                    "pass a file that contains only the token: --osmo-token-file FILE",
                ) from error
            redaction.learn({"OSMO_TOKEN": token})
            path = "/api/auth/jwt/access_token"
            status, text, pause = self._send("POST", path, json={"token": token})
            if status >= 300:
                raise self._failure(path, "", status, text, pause)
            found = _object(text)
            if not isinstance(found.get("token"), str):
                raise NotAllowed(
                    f"OSMO at {self._host} did not exchange the token in {self._file}",
                    "make a new one with `osmo token set`",
                )
            self._token = found["token"]
            self._expires = float(found.get("expires_at") or 0.0)
        return self._token

    def _send(self, method: str, path: str, **more: Any) -> tuple[int, str, float]:
        """Return status and text, and for how many seconds a busy service asked us to pause."""
        try:
            # No redirect: the token is only for this host.
            with self._session.request(
                method, self._url + path, timeout=TIMEOUTS, allow_redirects=False, stream=True, **more
            ) as answer:
                data = bytearray()
                for part in answer.iter_content(_PART_BYTES):
                    data += part
                    if len(data) > MAX_ANSWER_BYTES:
                        raise DataError(
                            f"the answer of OSMO at {self._host} is larger than {MAX_ANSWER_BYTES >> 20} MiB",
                            "narrow the list with --since or --pool",
                        )
                text = bytes(data).decode("utf-8", "replace")
                return answer.status_code, text, asked_pause(answer.headers)
        except requests.exceptions.SSLError as error:
            raise ConfigurationError(
                f"the TLS certificate of {self._host} is not trusted: {_first_line(error)}",
                "set REQUESTS_CA_BUNDLE to the CA that signed it",
            ) from error
        except (requests.RequestException, OSError) as error:
            raise ServiceUnavailable(
                f"OSMO at {self._host} cannot be reached: {_first_line(error)}",
                "check --osmo-url and the network; run the same command again later",
            ) from error

    def _failure(self, path: str, run_id: str, status: int, text: str, pause: float) -> MirrorError:
        message = _object(text).get("message")
        said = redaction.text(" ".join((message if isinstance(message, str) else text).split()))[
            :_MAX_MESSAGE
        ]
        where = f"OSMO at {self._host}"
        if run_id and re.search(r"\bWorkflow\b.*\bis not found\b", said, re.I):
            return SourceNotFound(
                f"OSMO knows no run {run_id}", "pass the id that `osmo workflow list` shows, with its number"
            )
        if path.startswith("/api/auth") and 400 <= status < 500 and status not in (408, 429):
            return NotAllowed(
                f"{where} rejected the token in {self._file} ({said})",
                "make a new one with `osmo token set`: tokens expire",
            )
        if status == 401:
            return NotAllowed(f"{where} rejected our login ({said})", "check the token and its user")
        if status == 403:
            return NotAllowed(
                f"{where} does not let the token's user see {f'run {run_id}' if run_id else 'workflows'} "
                f"({said})",
                "give the user the role osmo-user, or use another user's token",
            )
        if path.endswith("/spec") and status == 500:
            return no_spec(run_id, said)
        if status in (408, 425, 429) or status >= 500:
            failure = ServiceUnavailable(
                f"{where} does not answer at the moment ({status}: {said})",
                "run the same command again later",
            )
            failure.retry_after = pause
            return failure
        if status < 400 or status == 404:
            return ConfigurationError(
                f"{where} answers {status} for {path}",
                "check --osmo-url: use the address of `osmo login URL`",
            )
        return ConfigurationError(f"{where} refused {path} with {status}: {said}", "check OSMO's own log")


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _first_line(error: Exception) -> str:
    return redaction.text(str(error).splitlines()[0] if str(error) else type(error).__name__)[:_MAX_MESSAGE]


def _unexpected(error: Exception) -> MirrorError:
    return ConfigurationError(f"OSMO's REST API cannot be used: {error}", "check --osmo-url")
