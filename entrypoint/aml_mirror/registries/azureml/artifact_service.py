"""Requests to the run-history service about the artifacts of one run.

It registers a path and returns a SAS for its blob. If the service refuses everything, :class:`Refused` is
raised.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlsplit

from azure.core import PipelineClient
from azure.core.pipeline import policies
from azure.core.rest import HttpRequest

from aml_mirror.core.errors import MirrorError, ServiceUnavailable
from aml_mirror.registries.azureml.service_client import PATIENCE, AzureML
from aml_mirror.storage import azure_errors as azure_errors
from aml_mirror.storage.azure_login import credential
from aml_mirror.transfer.senders import Call

# The service accepts 100 paths (ultralytics#3223); the plugin requests 50.
BATCH = 50


class Refused(Exception):
    """The service refuses everything, or every SAS that it returns is refused; ``why`` in words."""

    def __init__(self, failure: MirrorError) -> None:
        super().__init__(failure.message)
        self.why = failure.message


class ArtifactService:
    """The service for one run.

    ``sas`` has the address of each path's blob, as far as it is known. ``existing`` are the paths that an
    earlier attempt registered.

    Args:
        workspace: the workspace of the run.
        artifact_uri: the run's; its experiment is read from it in the same way as the plugin does.
        experiment_id: used if the URI does not name an experiment.
        run_id: the run.
        retry: runs each request; by default with the workspace's retries.
    """

    def __init__(
        self,
        workspace: AzureML,
        artifact_uri: str,
        experiment_id: str,
        run_id: str,
        retry: Call | None = None,
    ) -> None:
        self.retry: Call = retry or workspace.retry
        self.where = f"the artifact service of {workspace.shown}"
        named = re.search(r"/experiments/([^/]+)/runs/", urlsplit(artifact_uri).path)
        scope = workspace.coordinates.scope
        within = f"experiments/{named[1]}" if named else f"experimentids/{experiment_id}"
        self._url = f"{workspace.history_host}/history/v1.0{scope}/{within}/runs/{run_id}/artifacts"
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
        self.sas: dict[str, str] = {}
        self.existing: set[str] = set()

    def look(self) -> None:
        """List the artifacts of the run. A run that does not exist is also an answer.

        Raises:
            Refused: the service refuses.
        """
        try:
            self.call("GET", "")
        except Refused as refused:
            if not azure_errors.is_missing(refused.__cause__ and refused.__cause__.__cause__):
                raise

    def knows(self, path: str) -> bool:
        """Tell whether a path was registered here, or is known to exist."""
        return path in self.sas or path in self.existing

    def register(self, paths: list[str]) -> None:
        """Register paths, and store the SAS of each. Paths that already exist are recorded as such.

        Raises:
            Refused: the service refuses.
        """
        for start in range(0, len(paths), BATCH):
            part = paths[start : start + BATCH]
            found = self.call("POST", "/batch/metadata", json={"paths": [{"path": path} for path in part]})
            for path, info in (found.get("artifactContentInformation") or {}).items():
                if uri := (info or {}).get("contentUri"):
                    self.sas[path] = str(uri)
            for path, error in (found.get("errors") or {}).items():
                said = str(((error or {}).get("error") or {}).get("message", ""))
                if "already exists" not in said and "Conflict" not in said:
                    raise ServiceUnavailable(
                        f"{self.where} did not register {path}: {azure_errors.first_line(Exception(said))}",
                        azure_errors.AGAIN,
                    )
            self.existing |= {path for path in part if path not in self.sas}

    def content_uri(self, path: str) -> str:
        found = self.call("GET", f"/contentinfo?path={quote(path, safe='')}")
        return str(found.get("contentUri", ""))

    def call(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        """Like :meth:`send`, but return only the body of the answer."""
        return self.send(method, path, **body)[1]

    def send(self, method: str, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
        """Send one request; return status and body of the answer, which may be 409.

        Args:
            method: the HTTP method.
            path: below the artifacts of the run, or a complete address.
            body: keyword arguments of ``HttpRequest``.

        Raises:
            Refused: 403 or 404.
        """
        url = path if path.startswith("https://") else f"{self._url}{path}"

        def send() -> tuple[int, dict[str, Any]]:
            request = HttpRequest(method, url, headers={"Accept": "application/json"}, **body)
            response = self._client.send_request(request)
            # 409: none of the paths could be registered. The body describes all of them, or none.
            if response.status_code != 409:
                response.raise_for_status()
            found = response.json()
            return response.status_code, found if isinstance(found, dict) else {}

        try:
            return self.retry(send)
        except MirrorError as failure:
            if azure_errors.status_of(failure.__cause__) in (403, 404):
                raise Refused(failure) from failure
            raise
