"""Azure Container Registry: its exchange of Entra's tokens, and the parts of an OCI registry that a push
needs.

Documented: the challenge, ``/oauth2/exchange`` and ``/oauth2/token`` (Azure/acr, docs/AAD-OAuth.md, and what
azure-containerregistry 1.2 sends); uploads in the OCI distribution specification 1.1. Assumed: the texts of
the errors. A token of the registry is valid for ``token_seconds["registry"]`` seconds.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from multidict import CIMultiDict

from . import entra
from .names import REGISTRY_AUDIENCES
from .web import Refused, Reply, Request, answer

_PATH = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs|blobs/uploads)/(?P<rest>[^/]*)")


@dataclass
class ContainerRegistry:
    """One registry of one scope."""

    host: str
    blobs: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], bytes] = field(default_factory=dict)
    refresh: set[str] = field(default_factory=set)
    # Token -> (what it allows, when it expires).
    access: dict[str, tuple[str, float]] = field(default_factory=dict)


def registry_of(request: Request) -> ContainerRegistry:
    """Return the registry of the request's host. Each one belongs to one scope."""
    found = request.scope.container_registries
    return found.setdefault(request.host, ContainerRegistry(request.host))


async def serve(request: Request) -> Reply:
    """Answer a request to a registry's host."""
    registry = registry_of(request)
    if request.path.startswith("/oauth2/"):
        form = dict(parse_qsl((await request.body()).decode()))
        return (
            _exchange(request, registry, form)
            if request.path == "/oauth2/exchange"
            else _token(request, registry, form)
        )
    _judge(request, registry)
    match = _PATH.fullmatch(request.decoded_path)
    if match is None:
        return Reply(200 if request.path == "/v2/" else 404)
    name, kind, rest = match["name"], match["kind"], match["rest"]
    if kind == "manifests":
        return await _manifest(request, registry, (name, rest))
    if kind == "blobs":
        return Reply(200 if rest in registry.blobs else 404)
    return await _upload(request, registry, name, rest)


def _error(status: int, code: str, message: str, **headers: str) -> Refused:
    return Refused(answer({"errors": [{"code": code, "message": message}]}, status, **headers))


def _exchange(request: Request, registry: ContainerRegistry, form: dict[str, str]) -> Reply:
    if form.get("grant_type") != "access_token" or form.get("service") != registry.host:
        raise _error(400, "UNSUPPORTED", "grant_type or service is wrong")
    claims = entra.claims_of(form.get("access_token", ""))
    if claims is None or claims["aud"].rstrip("/") not in REGISTRY_AUDIENCES or claims["exp"] < time.time():
        raise _error(401, "UNAUTHORIZED", "authentication required, the token is not one for this registry")
    token = f"refresh-{secrets.token_hex(16)}"
    registry.refresh.add(token)
    return answer({"refresh_token": token})


def _token(request: Request, registry: ContainerRegistry, form: dict[str, str]) -> Reply:
    if form.get("refresh_token") not in registry.refresh or form.get("service") != registry.host:
        raise _error(401, "UNAUTHORIZED", "authentication required")
    token = f"access-{secrets.token_hex(16)}"
    registry.access[token] = (form.get("scope", ""), time.time() + request.scope.token_seconds["registry"])
    return answer({"access_token": token})


def _judge(request: Request, registry: ContainerRegistry) -> None:
    match = _PATH.fullmatch(request.decoded_path)
    scope = f"repository:{match['name']}:pull,push" if match else ""
    allowed, until = registry.access.get(
        request.headers.get("Authorization", "").removeprefix("Bearer "), ("", 0)
    )
    if until < time.time() or allowed != scope:
        challenge = f'Bearer realm="https://{registry.host}/oauth2/token",service="{registry.host}"'
        raise _error(
            401, "UNAUTHORIZED", "authentication required",
            WWW_Authenticate=f'{challenge},scope="{scope}"',
        )  # fmt: skip


async def _manifest(request: Request, registry: ContainerRegistry, key: tuple[str, str]) -> Reply:
    if request.method == "GET":
        found = registry.manifests.get(key)
        return Reply(404) if found is None else Reply(200, body=found)
    data = await request.body()
    named: dict[str, Any] = json.loads(data)
    lacks = [
        one["digest"] for one in (named["config"], *named["layers"]) if one["digest"] not in registry.blobs
    ]
    if lacks:
        raise _error(400, "MANIFEST_BLOB_UNKNOWN", f"blob unknown to registry: {lacks[0]}")
    registry.manifests[key] = data
    return Reply(201)


async def _upload(request: Request, registry: ContainerRegistry, name: str, number: str) -> Reply:
    if request.method == "POST":
        number = str(uuid.uuid4())
        registry.uploads[number] = b""
    elif number not in registry.uploads:
        raise _error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
    registry.uploads[number] += await request.body()
    if request.method == "PUT":
        data = registry.uploads.pop(number)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if digest != request.query.get("digest"):
            raise _error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        registry.blobs[digest] = data
        return Reply(201)
    return Reply(202, CIMultiDict({"Location": f"/v2/{name}/blobs/uploads/{number}?_state=x"}))
