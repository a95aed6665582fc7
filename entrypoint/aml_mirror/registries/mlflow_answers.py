"""Finds out who sent an HTTP answer: a login page, a proxy, or MLflow refusing a permission.

MLflow's exceptions contain neither the answer nor the request, but the frames of their tracebacks do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from types import FrameType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from requests import Response

# Where HTML begins in a text that quotes an answer, including the words before it.
_HTML = re.compile(
    r"[\s.:;]*(?:response (?:body|text):)?\s*['\"]?\s*"
    r"<(?:!doctype|\?xml|!--|html|head|body|title|center|meta|script|style|h[1-6]|p|div)\b.*",
    re.IGNORECASE | re.DOTALL,
)

# The permission that MLflow's basic-auth requires, by the end of a request's path (mlflow/server/auth).
_PERMISSIONS = (
    (r"runs/create|experiments/(update|set-experiment-tag)", "EDIT", "experiment"),
    (r"experiments/(delete|restore)", "MANAGE", "experiment"),
    (r"experiments/create", "permission to create", "experiment"),
    (r"experiments/", "READ", "experiment"),
    (r"runs/(get|search)|metrics/get-history", "READ", "run"),
    (r"runs/(delete|restore)", "MANAGE", "run"),
    (r"runs/", "EDIT", "run"),
    (r"registered-models/create", "permission to create", "model"),
    (r"registered-models/(get|search)|model-versions/(get|search)", "READ", "model"),
    (r"(registered-models|model-versions)/delete(?!-tag)", "MANAGE", "model"),
    (r"(registered-models|model-versions)/", "EDIT", "model"),
)
_NAMES = {
    "experiment": ("experiment_name", "name", "experiment_id"),
    "run": ("run_id", "run_uuid"),
    "model": ("name",),
}


def answer_behind(error: BaseException) -> Response | None:
    """Return the answer that made a client raise, or None if there was no answer."""
    for link in _chain(error):
        answer = getattr(link, "response", None)
        if isinstance(answer, Response):
            return answer
        for frame in _frames(link):
            for name in ("response", "resp", "answer"):
                answer = frame.f_locals.get(name)
                if isinstance(answer, Response):
                    return answer
    return None


def beginning(answer: Response) -> str:
    """Return the first characters of an answer; "" if they can no longer be read."""
    try:
        return answer.text[:1000]
    except (RuntimeError, OSError):
        # The body was read in parts, or its connection was closed. requests' errors are OSErrors.
        return ""


def is_page(answer: Response) -> bool:
    """Whether the answer is a page for a browser."""
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return kind in ("text/html", "application/xhtml+xml")


def redirected_to(answer: Response) -> str:
    """Return the address that the request was redirected to, or "" if there was no redirect."""
    if not answer.history:
        return ""
    return address(answer.url)


def address(url: str | None) -> str:
    """Return a URL without user, query and fragment, which may contain secrets."""
    parts = urlsplit(url or "")
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if host else ""


def without_html(text: str) -> str:
    """Return the text up to the HTML that it quotes."""
    return _HTML.sub("", text).rstrip()


def missing_permission(answer: Response) -> str:
    """Return what MLflow's access control denied: permission and object, in words; or ""."""
    request = answer.request
    parts = urlsplit(request.url or "")
    where = parts.path
    if "mlflow-artifacts" in where:
        folder = where.partition("/artifacts/")[2] or dict(parse_qsl(parts.query)).get("path", "")
        permission = "READ" if request.method == "GET" else "EDIT"
        return f"{permission} on the experiment {folder.partition('/')[0]}".rstrip()
    operation = where.partition("/mlflow/")[2]
    for pattern, permission, kind in _PERMISSIONS:
        if re.match(pattern, operation):
            given = {**dict(parse_qsl(parts.query)), **_fields(request.body)}
            name = next((str(given[key]) for key in _NAMES[kind] if given.get(key)), "")
            the = "" if permission.startswith("permission") else "on "
            return f"{permission} {the}the {kind} {name}".rstrip()
    return ""


def _fields(body: bytes | str | None) -> dict[str, Any]:
    try:
        fields = json.loads(body or "{}")
    except (ValueError, TypeError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _frames(error: BaseException) -> Iterator[FrameType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
