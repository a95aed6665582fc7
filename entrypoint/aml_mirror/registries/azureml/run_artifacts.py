"""Small files to the artifacts of an Azure ML run, each whole and verified.

The run-history service registers a path and gives a SAS for its blob; the bytes go to that blob. It
registers a path only once. So a file goes like this:

1. Register the path. It is there already (an earlier, killed try): ask for its SAS instead, and compare
   what lies there; the same bytes are not sent again.
2. Send the bytes with a client of their own for each attempt: a client that sends a stream again after a
   failure may go on where the stream stands. The MLflow plugin does just that, and has been seen to report
   success with half of the bytes.
3. Ask for the size that arrived.

A SAS that ran out on the way is asked for anew. That of a path which is there already may only read; then
our own login writes over the earlier attempt's file, and where that has no right to, the new one gets the
next free name, which is told. A service that refuses as a whole (403; an account that allows no shared keys
refuses every SAS) is :class:`Refused`: the caller keeps the files elsewhere.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import parse_qs, quote, urlsplit

from azure.core import PipelineClient
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline import policies
from azure.core.rest import HttpRequest
from azure.storage.blob import BlobClient

from aml_mirror.core.errors import MirrorError, NotAllowed, ServiceUnavailable
from aml_mirror.registries.azureml.service_client import PATIENCE, AzureML
from aml_mirror.storage import azure_errors as azure_errors
from aml_mirror.storage.azure_login import credential
from aml_mirror.transfer.senders import Call

# The service takes 100 paths (ultralytics#3223), the plugin asks for 50.
BATCH = 50
# A SAS lives for a day; one that is refused as expired this often in a row is refused for another reason.
TRIES = 3
# Next names are tried up to this one.
MOST_NAMES = 50
BLOCK_BYTES = 4 << 20

_EXPIRED = frozenset({"AuthenticationFailed", "InvalidAuthenticationInfo"})


class Refused(Exception):
    """The service as a whole, or every SAS it gives, is refused; ``why`` in words."""

    def __init__(self, failure: MirrorError) -> None:
        super().__init__(failure.message)
        self.why = failure.message


@dataclass(frozen=True, slots=True)
class File:
    """One file to send; ``open`` gives its bytes from the start, as often as it is called."""

    path: str
    bytes: int
    open: Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True)
class Put:
    """What became of a file: the bytes that were sent, and where it stands."""

    sent: int
    path: str


class RunArtifacts:
    """The artifacts of one run.

    Args:
        workspace: its workspace.
        artifact_uri: of the run, from which its experiment is read as the plugin reads it.
        experiment_id: used where the URI does not name an experiment.
        run_id: the run.
        retry: runs each request; by default with the workspace's patience.
    """

    def __init__(
        self,
        workspace: AzureML,
        artifact_uri: str,
        experiment_id: str,
        run_id: str,
        retry: Call | None = None,
    ) -> None:
        self._retry: Call = retry or workspace.retry
        self._where = f"the artifact service of {workspace.shown}"
        named = re.search(r"/experiments/([^/]+)/runs/", urlsplit(artifact_uri).path)
        within = f"experiments/{named[1]}" if named else f"experimentids/{experiment_id}"
        self._url = f"{workspace.history_host}/history/v1.0{workspace.scope}/{within}/runs/{run_id}/artifacts"
        self._client: PipelineClient[HttpRequest, Any] = PipelineClient(
            workspace.history_host,
            policies=[
                policies.RequestIdPolicy(),
                policies.HeadersPolicy(),
                policies.UserAgentPolicy("aml-mirror"),
                policies.RetryPolicy(**PATIENCE),
                policies.BearerTokenCredentialPolicy(credential(), workspace.arm_scope),
            ],
            **PATIENCE,
        )
        self._sas: dict[str, str] = {}
        self._existing: set[str] = set()

    def look(self) -> None:
        """Ask for what the run has; a run that is not there is an answer, too.

        Raises:
            Refused: the service refuses.
        """
        try:
            self.call("GET", "")
        except Refused as refused:
            if not azure_errors.is_missing(refused.__cause__ and refused.__cause__.__cause__):
                raise

    def knows(self, path: str) -> bool:
        """Whether a path was registered here, or is known to be there."""
        return path in self._sas or path in self._existing

    def register(self, paths: list[str]) -> None:
        """Register paths, and note the SAS of each; those that are there already are noted as such.

        Raises:
            Refused: the service refuses.
        """
        for start in range(0, len(paths), BATCH):
            part = paths[start : start + BATCH]
            found = self.call("POST", "/batch/metadata", json={"paths": [{"path": path} for path in part]})
            for path, info in (found.get("artifactContentInformation") or {}).items():
                if uri := (info or {}).get("contentUri"):
                    self._sas[path] = str(uri)
            for path, error in (found.get("errors") or {}).items():
                said = str(((error or {}).get("error") or {}).get("message", ""))
                if "already exists" not in said and "Conflict" not in said:
                    raise ServiceUnavailable(
                        f"{self._where} did not register {path}: {azure_errors.first_line(Exception(said))}",
                        azure_errors.AGAIN,
                    )
            self._existing |= {path for path in part if path not in self._sas}

    def read(self, path: str, limit: int) -> bytes | None:
        """Return the bytes of an artifact; None where there is none, or it is longer than ``limit``.

        Raises:
            Refused: the service refuses.
        """
        try:
            self._sas[path] = self._content_uri(path)
        except Refused as refused:
            if azure_errors.is_missing(refused.__cause__ and refused.__cause__.__cause__):
                return None
            raise
        if not self._sas[path]:
            return None
        try:
            return self._retry(lambda: self._read_once(path, limit, False))
        except NotAllowed:
            # An account without shared keys takes no SAS of them.
            return self._retry(lambda: self._read_once(path, limit, True))

    def _read_once(self, path: str, limit: int, with_login: bool) -> bytes | None:
        with BlobClient.from_blob_url(
            _plain(self._sas[path]) if with_login else self._sas[path],
            credential=credential() if with_login else None,
            retry_total=0,
        ) as blob:
            try:
                if blob.get_blob_properties().size > limit:
                    return None
                return bytes(blob.download_blob().readall())
            except HttpResponseError as error:
                if azure_errors.is_missing(error):
                    return None
                raise

    def put(self, file: File) -> Put:
        """Bring a file to its path, or, where an earlier one there may not be written over, to the next.

        Raises:
            Refused: the service, or every SAS it gives, is refused.
            ServiceUnavailable: it does not arrive whole.
        """
        path = file.path
        for number in range(2, MOST_NAMES + 2):
            if not self.knows(path):
                self.register([path])
            if path not in self._existing and self._send(path, file):
                return Put(file.bytes, path)
            if self._is_there(path, file):
                return Put(0, path)
            if self._send_over(path, file):
                return Put(file.bytes, path)
            path = numbered(file.path, number)
        raise ServiceUnavailable(
            f"{file.path} and {MOST_NAMES} names like it are taken by earlier tries", "look into the run"
        )

    def _send(self, path: str, file: File) -> bool:
        """Send to a path that was registered by us; False where its SAS, the one that may write, ran out."""
        try:
            self._retry(lambda: self._send_once(path, file))
        except NotAllowed as failure:
            if not _is_expired(failure):
                raise Refused(failure) from failure
            # The path is one of those now that are there already.
            self._existing.add(path)
            del self._sas[path]
            return False
        return True

    def _send_over(self, path: str, file: File) -> bool:
        """Write over what an earlier attempt left, with its SAS or our own login; False where neither may."""
        own = "w" not in "".join(parse_qs(urlsplit(self._sas[path]).query).get("sp", ["w"]))
        for with_login in (True,) if own else (False, True):
            try:
                self._retry(lambda: self._send_once(path, file, with_login))  # noqa: B023
            except NotAllowed as failure:
                if _refuses_all(failure):
                    raise Refused(failure) from failure
                continue
            return True
        return False

    def _send_once(self, path: str, file: File, with_login: bool = False) -> None:
        # A client of its own, which sends once: see the module's first lines.
        with BlobClient.from_blob_url(
            _plain(self._sas[path]) if with_login else self._sas[path],
            credential=credential() if with_login else None,
            retry_total=0,
            max_single_put_size=BLOCK_BYTES,
            max_block_size=BLOCK_BYTES,
            connection_timeout=PATIENCE["connection_timeout"],
            read_timeout=PATIENCE["read_timeout"],
        ) as blob:
            with file.open() as stream:
                blob.upload_blob(stream, length=file.bytes, overwrite=True)
            size = blob.get_blob_properties().size
        if size != file.bytes:
            raise ServiceUnavailable(
                f"{path} arrived with {size} of {file.bytes} bytes at {self._where}", azure_errors.AGAIN
            )

    def _is_there(self, path: str, file: File) -> bool:
        """Whether the path holds these very bytes."""
        if path not in self._sas:
            self._sas[path] = self._content_uri(path)
        for number in range(TRIES):
            try:
                return self._retry(lambda: self._holds(path, file))
            except NotAllowed as failure:
                if not _is_expired(failure) or number == TRIES - 1:
                    raise Refused(failure) from failure
                self._sas[path] = self._content_uri(path)
        return False

    def _holds(self, path: str, file: File) -> bool:
        with BlobClient.from_blob_url(self._sas[path], retry_total=0) as blob:
            try:
                if blob.get_blob_properties().size != file.bytes:
                    return False
                there = hashlib.sha256()
                for chunk in blob.download_blob().chunks():
                    there.update(chunk)
            except HttpResponseError as error:
                # Registered by an attempt that was killed before it sent anything.
                if azure_errors.is_missing(error):
                    return False
                raise
        mine = hashlib.sha256()
        with file.open() as stream:
            while chunk := stream.read(BLOCK_BYTES):
                mine.update(chunk)
        return mine.digest() == there.digest()

    def _content_uri(self, path: str) -> str:
        found = self.call("GET", f"/contentinfo?path={quote(path, safe='')}")
        return str(found.get("contentUri", ""))

    def call(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        """As :meth:`send`; only the body of the answer."""
        return self.send(method, path, **body)[1]

    def send(self, method: str, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
        """Send one request; return status and body of the answer, which may be 409.

        Args:
            method: of HTTP.
            path: below the artifacts of the run, or a whole address.
            body: keyword arguments of ``HttpRequest``.

        Raises:
            Refused: 403 or 404.
        """
        url = path if path.startswith("https://") else f"{self._url}{path}"

        def send() -> tuple[int, dict[str, Any]]:
            request = HttpRequest(method, url, headers={"Accept": "application/json"}, **body)
            response = self._client.send_request(request)
            # 409: not one of the paths could be registered; the body tells of each, or of none.
            if response.status_code != 409:
                response.raise_for_status()
            found = response.json()
            return response.status_code, found if isinstance(found, dict) else {}

        try:
            return self._retry(send)
        except MirrorError as failure:
            if azure_errors.status_of(failure.__cause__) in (403, 404):
                raise Refused(failure) from failure
            raise


def numbered(path: str, number: int) -> str:
    """``a/b.txt`` and 2: ``a/b~2.txt``."""
    folder, slash, name = path.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    return folder + slash + (f"{stem}~{number}.{suffix}" if dot and stem else f"{name}~{number}")


def _plain(uri: str) -> str:
    """Return the address without its SAS, for our own login, whose token goes over TLS alone.

    Raises:
        NotAllowed: it is not reached over TLS, as with a storage emulator: the client would not send a token.
    """
    if not uri.lower().startswith("https://"):
        raise NotAllowed(f"no token is sent to {urlsplit(uri).hostname} without TLS", "reach it over https")
    return uri.partition("?")[0]


def _is_expired(failure: MirrorError) -> bool:
    return azure_errors.code_of(failure.__cause__) in _EXPIRED


def _refuses_all(failure: MirrorError) -> bool:
    """Whether it is the account that refuses, not the one SAS that may not write."""
    return azure_errors.code_of(failure.__cause__) in (
        "KeyBasedAuthenticationNotPermitted",
        "AuthorizationFailure",
        "IpAuthorizationFailed",
        "NetworkAclDenied",
        "AccountIsDisabled",
    )
