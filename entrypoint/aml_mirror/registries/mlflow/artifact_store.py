"""Accesses the place where an MLflow server stores the files of a run, for every release from 2.9 on.

MLflow's own ``list_artifacts(run_id)`` and ``runs:/…`` also request logged models, which MLflow 2 servers do
not have (404). Here the run's own ``artifact_uri`` is read, and the repository behind it is used.

If a server returns a path or a ``file:`` URI, it means the *server's* disk. MLflow's client would write to
the same path on this machine, and the files would be lost with it (mlflow#212, mlflow#810).
"""

from __future__ import annotations

import os
import posixpath
import socket
from typing import Any
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.request_utils import augmented_raise_for_status
from mlflow.utils.rest_utils import http_request
from mlflow.utils.uri import add_databricks_profile_info_to_artifact_uri, append_to_uri_path

from aml_mirror.core.errors import ConfigurationError, NotAllowed
from aml_mirror.registries.artifact_folder import ask_for
from aml_mirror.registries.mlflow_errors import translate
from aml_mirror.support import redaction
from aml_mirror.support.retry import Retry

_WEB = ("http", "https")
# Of MLflow's REST API, since 1.24.
_LISTING = "/mlflow-artifacts/artifacts"
_NOBODYS = "aml-mirror-check"
FLAG = "--artifacts-on-this-host"
# The variables that MLflow's client takes before any identity.
_AZURE_LOGIN = {
    "wasbs": "AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_ACCESS_KEY",
    "abfss": "AZURE_STORAGE_SAS_TOKEN",
}


class ArtifactStores:
    """Opens the artifact stores of one MLflow server.

    Args:
        client: the server's client.
        tracking_uri: its address.
        on_this_host: whether the user states that this program runs on the server's host.
        retry: retries the server's requests.
    """

    def __init__(self, client: MlflowClient, tracking_uri: str, on_this_host: bool, retry: Retry) -> None:
        self._retry = retry
        self._client = client
        self._uri = tracking_uri
        self._on_this_host = on_this_host

    def open(self, uri: str) -> Any:
        """Return MLflow's repository for an artifact URI with any scheme except ``runs``.

        Raises:
            ConfigurationError: the URI is a path on another host's disk.
        """
        self.require_reachable(uri)
        full = add_databricks_profile_info_to_artifact_uri(uri, self._uri)
        return get_artifact_repository(full, tracking_uri=self._uri)

    def of_run(self, run_id: str) -> Any:
        """Return the repository of a run's artifacts."""
        return self.open(str(self._client.get_run(run_id).info.artifact_uri))

    def of_version(self, model: str, number: str) -> Any:
        """Return the repository of a version's files."""
        uri = str(self._client.get_model_version_download_uri(model, number))
        parts = urlsplit(uri)
        if parts.scheme != "runs":
            return self.open(uri)
        run_id, _, path = parts.path.lstrip("/").partition("/")
        root = str(self._client.get_run(run_id).info.artifact_uri)
        return self.open(append_to_uri_path(root, path) if path else root)

    def retry_for(self, uri: str) -> Retry:
        """Return the retries for requests to an artifact store, whose errors name the store."""
        if is_path(uri) or _scheme(uri) in (*_WEB, "mlflow-artifacts"):
            return self._retry
        where = f"the artifact store {redaction.text(uri)}"
        return self._retry.with_translation(lambda error: translate(error, where))

    def check(self, uri: str) -> None:
        """Check that the store can be used from here: its package, its login, its address.

        Raises:
            MirrorError: it cannot.
        """
        self.require_reachable(uri)
        if is_path(uri):
            _require_writable(local_file_uri_to_path(uri))
            return
        try:
            self.retry_for(uri)(lambda: _ask(self.open(uri)))
        except (ConfigurationError, NotAllowed) as error:
            where = redaction.text(uri)
            if where in error.message or _scheme(uri) not in _AZURE_LOGIN:
                raise
            # A failed login to Azure only names the identity.
            raise type(error)(
                f"the artifact store {where} needs a login: {error.message}",
                f"set {_AZURE_LOGIN[_scheme(uri)]}, or {error.hint}",
            ) from error

    def require_reachable(self, uri: str) -> None:
        """Check that files written to an artifact URI arrive in the server's store.

        Raises:
            ConfigurationError: the URI is a path, and it is not known to be on this host.
        """
        if not is_path(uri) or _scheme(self._uri) in ("sqlite", "file", ""):
            return
        where = redaction.text(self._uri)
        what = f"{where} keeps its artifacts in {uri}, a path on the server's own disk"
        if not self._on_this_host:
            raise ConfigurationError(
                f"{what}, which this program cannot reach",
                "start the server with --serve-artifacts, or with a --default-artifact-root in object "
                "storage, and use an experiment that is created after that; if this program runs on the "
                f"server's host, pass {FLAG}",
            )
        host = urlsplit(self._uri).hostname or ""
        if not is_this_host(host):
            raise ConfigurationError(
                f"{what}, and {host} is not this host, although {FLAG} says so",
                "run this program on the server's host, or start the server with --serve-artifacts",
            )


def _ask(repository: Any) -> None:
    """Request a folder that nobody writes: a small answer, with the same login as a write."""
    place, listing, root = str(repository.artifact_uri).partition(_LISTING)
    if not isinstance(repository, HttpArtifactRepository) or not listing:
        ask_for(repository, _NOBODYS)
        return
    # The same request as its own listing. The client's retries would lose what the server says about a 503.
    answer = http_request(
        get_default_host_creds(place),
        _LISTING,
        "GET",
        max_retries=0,
        raise_on_status=False,
        params={"path": posixpath.join(root.lstrip("/"), _NOBODYS)},
    )
    augmented_raise_for_status(answer)


def _require_writable(path: str) -> None:
    place = os.path.abspath(path)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place) or not os.access(place, os.W_OK | os.X_OK):
        raise NotAllowed(
            f"the artifacts go to {path}, but {place} is not writable", "give this user write access"
        )


def is_path(uri: str) -> bool:
    """Tell whether an artifact URI is a path on a disk."""
    return _scheme(uri) in ("", "file")


def is_this_host(host: str) -> bool:
    """Tell whether a name is one of this host's own addresses: only those can be bound."""
    try:
        addresses = socket.getaddrinfo(host or "localhost", 0, type=socket.SOCK_DGRAM)
    except OSError:
        return False
    for family, kind, protocol, _, address in addresses:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(address)
        except OSError:
            continue
        return True
    return False


def _scheme(uri: str) -> str:
    return urlsplit(uri).scheme.partition("+")[0].lower()
