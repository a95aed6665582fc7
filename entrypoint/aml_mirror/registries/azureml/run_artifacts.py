"""Sends small files to the artifacts of an Azure ML run, each complete and verified.

The run-history service registers a path and returns a SAS for its blob. The bytes are sent to that blob. It
registers a path only once. So a file is sent like this:

1. Register the path. If it already exists (from an earlier, killed attempt), request its SAS instead, and
   compare the contents. The same bytes are not sent again.
2. Send the bytes with a new client for each attempt. A client that sends a stream again after a failure may
   continue at the stream's current position. The MLflow plugin does that, and has been seen to report success
   with half of the bytes.
3. Request the size that arrived.

If a SAS expires meanwhile, another one is requested. The SAS of an existing path may only read. Then our own
login overwrites the earlier attempt's file. If it is not allowed to, the new file gets the next free name,
which is reported. If the service refuses everything (403; an account without shared keys refuses every SAS),
:class:`Refused` is raised and the caller stores the files elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import parse_qs, urlsplit

from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobClient

from aml_mirror.core.errors import MirrorError, NotAllowed, ServiceUnavailable
from aml_mirror.registries.azureml.artifact_service import ArtifactService, Refused
from aml_mirror.registries.azureml.service_client import PATIENCE
from aml_mirror.storage import azure_errors as azure_errors
from aml_mirror.storage.azure_login import credential

# A SAS is valid for a day. If one is refused as expired this often in a row, there is another reason.
TRIES = 3
# The highest number that is tried for a name.
MOST_NAMES = 50
BLOCK_BYTES = 4 << 20

_EXPIRED = frozenset({"AuthenticationFailed", "InvalidAuthenticationInfo"})


@dataclass(frozen=True, slots=True)
class File:
    """One file to send. ``open`` returns its bytes from the start, as often as it is called."""

    path: str
    bytes: int
    open: Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True)
class Put:
    """The result for a file: the number of bytes sent, and its path."""

    sent: int
    path: str


class RunArtifacts(ArtifactService):
    """Writes and reads the artifacts of one run."""

    def read(self, path: str, limit: int) -> bytes | None:
        """Return the bytes of an artifact; None if there is none, or it is longer than ``limit``.

        Raises:
            Refused: the service refuses.
        """
        try:
            self.sas[path] = self.content_uri(path)
        except Refused as refused:
            if azure_errors.is_missing(refused.__cause__ and refused.__cause__.__cause__):
                return None
            raise
        if not self.sas[path]:
            return None
        try:
            return self.retry(lambda: self._read_once(path, limit, False))
        except NotAllowed:
            # An account without shared keys accepts no SAS made with them.
            return self.retry(lambda: self._read_once(path, limit, True))

    def _read_once(self, path: str, limit: int, with_login: bool) -> bytes | None:
        with BlobClient.from_blob_url(
            _plain(self.sas[path]) if with_login else self.sas[path],
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
        """Send a file to its path, or to the next free one if an earlier file may not be overwritten.

        Raises:
            Refused: the service, or every SAS that it returns, is refused.
            ServiceUnavailable: it does not arrive completely.
        """
        path = file.path
        for number in range(2, MOST_NAMES + 2):
            if not self.knows(path):
                self.register([path])
            if path not in self.existing and self._send(path, file):
                return Put(file.bytes, path)
            if self._is_there(path, file):
                return Put(0, path)
            if self._send_over(path, file):
                return Put(file.bytes, path)
            path = numbered(file.path, number)
        raise ServiceUnavailable(
            f"{file.path} and {MOST_NAMES} similar names were used by earlier attempts", "look into the run"
        )

    def _send(self, path: str, file: File) -> bool:
        """Send to a path that we registered; False if its SAS, the one that may write, expired."""
        try:
            self.retry(lambda: self._send_once(path, file))
        except NotAllowed as failure:
            if not _is_expired(failure):
                raise Refused(failure) from failure
            # The path is now one of those that exist already.
            self.existing.add(path)
            del self.sas[path]
            return False
        return True

    def _send_over(self, path: str, file: File) -> bool:
        """Overwrite an earlier attempt's file with its SAS or our login; False if neither may write."""
        own = "w" not in "".join(parse_qs(urlsplit(self.sas[path]).query).get("sp", ["w"]))
        for with_login in (True,) if own else (False, True):
            try:
                self.retry(lambda: self._send_once(path, file, with_login))  # noqa: B023
            except NotAllowed as failure:
                if _refuses_all(failure):
                    raise Refused(failure) from failure
                continue
            return True
        return False

    def _send_once(self, path: str, file: File, with_login: bool = False) -> None:
        # Its own client, which sends once: see the module's docstring.
        with BlobClient.from_blob_url(
            _plain(self.sas[path]) if with_login else self.sas[path],
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
                f"{path} arrived with {size} of {file.bytes} bytes at {self.where}", azure_errors.AGAIN
            )

    def _is_there(self, path: str, file: File) -> bool:
        """Tell whether the path contains exactly these bytes."""
        if path not in self.sas:
            self.sas[path] = self.content_uri(path)
        for number in range(TRIES):
            try:
                return self.retry(lambda: self._holds(path, file))
            except NotAllowed as failure:
                if not _is_expired(failure) or number == TRIES - 1:
                    raise Refused(failure) from failure
                self.sas[path] = self.content_uri(path)
        return False

    def _holds(self, path: str, file: File) -> bool:
        with BlobClient.from_blob_url(self.sas[path], retry_total=0) as blob:
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


def numbered(path: str, number: int) -> str:
    """Return ``a/b~2.txt`` for ``a/b.txt`` and 2."""
    folder, slash, name = path.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    return folder + slash + (f"{stem}~{number}.{suffix}" if dot and stem else f"{name}~{number}")


def _plain(uri: str) -> str:
    """Return the address without its SAS, for our own login, whose token is only sent over TLS.

    Raises:
        NotAllowed: it is not reached over TLS, as with a storage emulator: the client would not send a token.
    """
    if not uri.lower().startswith("https://"):
        raise NotAllowed(f"no token is sent to {urlsplit(uri).hostname} without TLS", "reach it over https")
    return uri.partition("?")[0]


def _is_expired(failure: MirrorError) -> bool:
    return azure_errors.code_of(failure.__cause__) in _EXPIRED


def _refuses_all(failure: MirrorError) -> bool:
    """Tell whether the account refuses, not just this SAS, which may not write."""
    return azure_errors.code_of(failure.__cause__) in (
        "KeyBasedAuthenticationNotPermitted",
        "AuthorizationFailure",
        "IpAuthorizationFailed",
        "NetworkAclDenied",
        "AccountIsDisabled",
    )
