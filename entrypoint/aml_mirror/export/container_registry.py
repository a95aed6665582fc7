"""Pushes to a repository of a container registry over the OCI distribution API.

The specification is https://github.com/opencontainers/distribution-spec, 1.1. The login is Docker's:
``config.json`` with its entries and credential helpers, in ``DOCKER_CONFIG`` or ``~/.docker``. For
``*.azurecr.io`` without such an entry, this program's Azure login is exchanged for a login of the registry
(Azure/acr, docs/AAD-OAuth.md). If a token expires between two requests of an upload, it is renewed and the
upload starts again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import requests

from aml_mirror.core.errors import (
    ConfigurationError,
    MirrorError,
    NotAllowed,
    ServiceUnavailable,
    UsageError,
)
from aml_mirror.export.image_layout import MANIFEST_TYPE
from aml_mirror.support import redaction
from aml_mirror.support.retry import Retry, asked_pause

T = TypeVar("T")

_SECONDS = (20, 120)  # to connect, and between two packets
_AGAIN = "run the same command again"
_REFERENCE = re.compile(
    r"(?P<host>[A-Za-z0-9.-]+(?::[0-9]+)?)/(?P<repository>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r":(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127})"
)
_LOCAL = ("localhost", "127.0.0.1")


@dataclass(frozen=True, slots=True)
class ImageName:
    """``host/repository:tag``."""

    host: str
    repository: str
    tag: str

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}:{self.tag}"


def parse(text: str) -> ImageName:
    """Parse the name of an image.

    Raises:
        UsageError: host, repository or tag is missing.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None or not ("." in match["host"] or ":" in match["host"] or match["host"] == "localhost"):
        raise UsageError(
            f"{text!r} does not name an image" if text else "no image is named",
            "pass REGISTRY/REPOSITORY:TAG, for example lab.azurecr.io/policies/act:3",
        )
    return ImageName(match["host"], match["repository"], match["tag"])


class ContainerRegistry:
    """Pushes blobs and manifests to one repository.

    Args:
        name: the image.
        retry_seconds: how long an operation may keep failing for temporary reasons.
        notice: called with messages for the user while waiting.
    """

    def __init__(self, name: ImageName, retry_seconds: float, notice: Callable[[str], None]) -> None:
        self._name = name
        # Like Docker: no TLS, but only on this host.
        scheme = "http" if urlsplit(f"//{name.host}").hostname in _LOCAL else "https"
        self._root = f"{scheme}://{name.host}"
        self._base = f"{self._root}/v2/{name.repository}"
        self._session = requests.Session()
        self._session.headers["User-Agent"] = "aml-mirror"
        self._retry = Retry(retry_seconds, self._translate, notice)

    def manifest(self) -> bytes | None:
        """Return the manifest that has the tag; None if there is none."""

        def get() -> bytes | None:
            url = f"{self._base}/manifests/{self._name.tag}"
            answer = self._send("GET", url, headers={"Accept": MANIFEST_TYPE})
            if answer.status_code == 404:
                return None
            self._require(answer, 200)
            return answer.content

        return self._retry(get)

    def put_blob(self, open_parts: Callable[[], Iterator[bytes]]) -> tuple[str, int]:
        """Upload a blob whose digest is known only at the end; return ``sha256:…`` and the number of bytes
        sent.

        Args:
            open_parts: yields the bytes from the beginning, and is called again for each attempt. If it
                raises, the upload ends and the registry keeps nothing.
        """

        def put() -> tuple[str, int]:
            begun = self._send("POST", f"{self._base}/blobs/uploads/")
            self._require(begun, 202)
            digest, size = hashlib.sha256(), 0

            def hashed() -> Iterator[bytes]:
                nonlocal size
                for part in open_parts():
                    digest.update(part)
                    size += len(part)
                    yield part

            location = self._location(begun)
            headers = {"Content-Type": "application/octet-stream"}
            sent = self._session.patch(
                location, data=hashed(), headers={**headers, **self._login()}, timeout=_SECONDS
            )
            if sent.status_code == 401:
                # The next attempt begins with a request that obtains a new token.
                self._authorization = ""
                raise ServiceUnavailable(
                    f"the login of the container registry {self._name.host} ran out", _AGAIN
                )
            self._require(sent, 202)
            named = f"sha256:{digest.hexdigest()}"
            location = self._location(sent)
            ended = self._send("PUT", location + ("&" if "?" in location else "?") + f"digest={named}")
            self._require(ended, 201)
            return named, size

        return self._retry(put)

    def put_small_blob(self, data: bytes) -> str:
        """Upload a blob that fits into memory; return its digest."""
        named = f"sha256:{hashlib.sha256(data).hexdigest()}"
        there = self._retry(lambda: self._send("HEAD", f"{self._base}/blobs/{named}"))
        return named if there.status_code == 200 else self.put_blob(lambda: iter([data]))[0]

    def put_manifest(self, data: bytes) -> str:
        """Assign the tag to an image; return the image's digest."""

        def put() -> None:
            url = f"{self._base}/manifests/{self._name.tag}"
            self._require(self._send("PUT", url, data=data, headers={"Content-Type": MANIFEST_TYPE}), 201)

        self._retry(put)
        return f"sha256:{hashlib.sha256(data).hexdigest()}"

    def _location(self, answer: requests.Response) -> str:
        return urljoin(self._root, answer.headers["Location"])

    def _send(
        self, method: str, url: str, data: bytes | None = None, headers: dict[str, str] | None = None
    ) -> requests.Response:
        for is_last in (False, True):
            answer = self._session.request(
                method, url, data=data, headers={**(headers or {}), **self._login()}, timeout=_SECONDS
            )
            if answer.status_code != 401 or is_last:
                break
            self._authorization = self._authorized(answer)
        return answer

    _authorization = ""

    def _login(self) -> dict[str, str]:
        return {"Authorization": self._authorization} if self._authorization else {}

    def _authorized(self, refused: requests.Response) -> str:
        """Return the authorization header that the registry asks for."""
        challenge = refused.headers.get("WWW-Authenticate", "")
        user, secret = _docker_login(self._name.host)
        if challenge.lower().startswith("basic") and user:
            return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()
        fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        if not challenge.lower().startswith("bearer") or "realm" not in fields:
            return ""
        query = {
            "service": fields.get("service", ""),
            "scope": f"repository:{self._name.repository}:pull,push",
        }
        if not user and _is_azure(self._name.host):
            return self._by_azure(query)
        login = (user, secret) if user else None
        answer = self._session.get(fields["realm"], params=query, auth=login, timeout=_SECONDS)
        self._require(answer, 200)
        found = answer.json()
        return f"Bearer {found.get('token') or found['access_token']}"

    def _by_azure(self, query: dict[str, str]) -> str:
        # Late: most registries are not Azure's.
        from aml_mirror.storage.azure_login import credential

        token = credential().get_token("https://containerregistry.azure.net/.default").token
        form = {"grant_type": "access_token", "service": self._name.host, "access_token": token}
        exchanged = self._session.post(f"{self._root}/oauth2/exchange", data=form, timeout=_SECONDS)
        self._require(exchanged, 200)
        form = {**query, "grant_type": "refresh_token", "refresh_token": exchanged.json()["refresh_token"]}
        answer = self._session.post(f"{self._root}/oauth2/token", data=form, timeout=_SECONDS)
        self._require(answer, 200)
        return f"Bearer {answer.json()['access_token']}"

    def _require(self, answer: requests.Response, status: int) -> None:
        if answer.status_code == status:
            return
        said = redaction.start(" ".join(answer.text.split()), 200)
        where = f"the container registry {self._name.host}"
        if answer.status_code in (401, 403):
            raise NotAllowed(
                f"{where} does not let this login push to {self._name.repository} "
                f"({answer.status_code}): {said}",
                f"log in with: docker login {self._name.host}; for Azure grant AcrPush",
            )
        if answer.status_code in (408, 425, 429) or answer.status_code >= 500:
            failure = ServiceUnavailable(f"{where} failed with {answer.status_code}: {said}", _AGAIN)
            failure.retry_after = asked_pause(answer.headers)
            raise failure
        raise ConfigurationError(
            f"{where} refused ({answer.status_code}): {said}", "check the name of the image"
        )

    def _translate(self, error: Exception) -> MirrorError:
        for cause in (error, error.__cause__, error.__context__):
            if isinstance(cause, MirrorError):
                return cause
        where = f"the container registry {self._name.host}"
        if isinstance(error, requests.exceptions.SSLError) and "CERTIFICATE" in str(error).upper():
            return ConfigurationError(
                f"the TLS certificate of {where} is not trusted", "set REQUESTS_CA_BUNDLE to your CA's file"
            )
        if isinstance(error, requests.RequestException):
            said = redaction.start(str(error), 200)
            return ServiceUnavailable(f"{where} does not answer: {said}", _AGAIN)
        return ConfigurationError(
            f"{where} sent an answer that is not from a container registry: {error}", "check the address"
        )


def _is_azure(host: str) -> bool:
    # Late: most registries are not Azure's.
    from aml_mirror.storage.azure_cloud import is_container_registry

    return is_container_registry(host)


def _docker_login(host: str) -> tuple[str, str]:
    """Return the user and secret that ``docker login`` stored for a host; two empty strings: none."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        found = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return "", ""
    helper = found.get("credHelpers", {}).get(host) or found.get("credsStore")
    entry = found.get("auths", {}).get(host) or {}
    if text := entry.get("auth"):
        user, _, secret = base64.b64decode(text).decode().partition(":")
        return user, secret
    if helper and re.fullmatch(r"[\w-]+", helper):
        command = [f"docker-credential-{helper}", "get"]
        try:
            done = subprocess.run(command, input=host, capture_output=True, text=True, timeout=30)  # noqa: S603
            answer = json.loads(done.stdout) if done.returncode == 0 else {}
        except (OSError, ValueError, subprocess.TimeoutExpired):
            answer = {}
        return str(answer.get("Username", "")), str(answer.get("Secret", ""))
    return "", ""
