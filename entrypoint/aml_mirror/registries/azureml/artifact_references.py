"""Registers artifacts of a run that refer to blobs of a datastore, so Azure ML studio shows existing files.

Recorded (promptflow, test_metrics_upload): ``POST artifact/v2.0{workspace}/artifacts/register`` with origin,
container, path and ``dataPath`` answers 200. No bytes are copied and no SAS is needed, so it works in an
account without shared keys. No recording shows the answer for a path that exists already. In that case, the
artifact is requested and accepted if it refers to the same blob. Otherwise the file gets the next free name.
"""

from __future__ import annotations

from urllib.parse import quote

from aml_mirror.core.errors import ConfigurationError, DataError, NotAllowed, ServiceUnavailable
from aml_mirror.registries.azureml.artifact_service import Refused
from aml_mirror.registries.azureml.run_artifacts import MOST_NAMES, RunArtifacts, numbered
from aml_mirror.registries.azureml.service_client import AzureML
from aml_mirror.storage import azure_errors as azure_errors


class NotOffered(Exception):
    """The service does not accept artifacts by reference; ``why`` in words."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class ArtifactReferences:
    """Registers artifacts of one run.

    Args:
        workspace: the workspace of the run.
        service: the artifacts of the run.
        run_id: the run.
    """

    def __init__(self, workspace: AzureML, service: RunArtifacts, run_id: str) -> None:
        self._service = service
        self._url = f"{workspace.history_host}/artifact/v2.0{workspace.coordinates.scope}/artifacts/register"
        self._container = f"dcid.{run_id}"

    def refer(self, path: str, datastore: str, blob: str) -> str:
        """Make an artifact refer to a blob, and return the artifact's path.

        Raises:
            NotOffered: the service does not accept it.
            ServiceUnavailable: a temporary failure.
        """
        for number in range(1, MOST_NAMES + 1):
            name = path if number == 1 else numbered(path, number)
            if self._register(name, datastore, blob) or self._stands_for(name) == (datastore, blob):
                return name
        raise ServiceUnavailable(
            f"{path} and {MOST_NAMES} similar names were used by earlier attempts", "look into the run"
        )

    def _register(self, path: str, datastore: str, blob: str) -> bool:
        """Register an artifact. Return False if the path exists already."""
        asked = {
            "origin": "ExperimentRun",
            "container": self._container,
            "path": path,
            "dataPath": {"dataStoreName": datastore, "relativePath": blob},
        }
        try:
            status, _ = self._service.send("POST", self._url, json=asked)
        except Refused as refused:
            raise NotOffered(refused.why) from refused
        except (ConfigurationError, DataError, NotAllowed) as failure:
            if "already exists" in str(failure.__cause__):
                return False
            raise NotOffered(failure.message) from failure
        return status != 409

    def _stands_for(self, path: str) -> tuple[str, str] | None:
        """Return datastore and blob of an artifact; None if it has its own bytes or does not exist."""
        try:
            found = self._service.call("GET", f"/metadata?path={quote(path, safe='')}")
        except Refused as refused:
            if azure_errors.is_missing(refused.__cause__ and refused.__cause__.__cause__):
                return None
            raise NotOffered(refused.why) from refused
        place = found.get("dataPath") or {}
        return str(place.get("dataStoreName")), str(place.get("relativePath"))
