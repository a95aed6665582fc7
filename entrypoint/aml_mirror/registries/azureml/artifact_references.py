"""Artifacts of a run that stand for blobs of a datastore: Azure ML studio shows files that are there already.

Recorded (promptflow, test_metrics_upload): ``POST artifact/v2.0{workspace}/artifacts/register`` with origin,
container, path and ``dataPath`` answers 200. No byte moves and no SAS is needed, so an account without shared
keys does not matter. What is answered for a path that is there already is not recorded: the artifact is asked
for then, and counts if it stands for the same blob. Else the file gets the next free name.
"""

from __future__ import annotations

from urllib.parse import quote

from aml_mirror.core.errors import ConfigurationError, DataError, NotAllowed, ServiceUnavailable
from aml_mirror.registries.azureml.artifact_service import Refused
from aml_mirror.registries.azureml.run_artifacts import MOST_NAMES, RunArtifacts, numbered
from aml_mirror.registries.azureml.service_client import AzureML
from aml_mirror.storage import azure_errors as azure_errors


class NotOffered(Exception):
    """The service does not take artifacts by reference; ``why`` in words."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class ArtifactReferences:
    """Registers artifacts of one run.

    Args:
        workspace: its workspace.
        service: the artifacts of the run.
        run_id: the run.
    """

    def __init__(self, workspace: AzureML, service: RunArtifacts, run_id: str) -> None:
        self._service = service
        self._url = f"{workspace.history_host}/artifact/v2.0{workspace.coordinates.scope}/artifacts/register"
        self._container = f"dcid.{run_id}"

    def refer(self, path: str, datastore: str, blob: str) -> str:
        """Let an artifact stand for a blob, and return the artifact's path.

        Raises:
            NotOffered: the service does not take it.
            ServiceUnavailable: it fails for now.
        """
        for number in range(1, MOST_NAMES + 1):
            name = path if number == 1 else numbered(path, number)
            if self._register(name, datastore, blob) or self._stands_for(name) == (datastore, blob):
                return name
        raise ServiceUnavailable(
            f"{path} and {MOST_NAMES} names like it are taken by earlier attempts", "look into the run"
        )

    def _register(self, path: str, datastore: str, blob: str) -> bool:
        """Return whether it was registered; False where the path is there already."""
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
        """Return datastore and blob of an artifact; None where it has bytes of its own, or is not there."""
        try:
            found = self._service.call("GET", f"/metadata?path={quote(path, safe='')}")
        except Refused as refused:
            if azure_errors.is_missing(refused.__cause__ and refused.__cause__.__cause__):
                return None
            raise NotOffered(refused.why) from refused
        place = found.get("dataPath") or {}
        return str(place.get("dataStoreName")), str(place.get("relativePath"))
