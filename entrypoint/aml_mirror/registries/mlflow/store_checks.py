"""Checks whether the files of an experiment can be written, before anything is sent, and for doctor."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aml_mirror.core.errors import ConfigurationError, MirrorError, NotAllowed
from aml_mirror.registries.mlflow.artifact_store import is_path
from aml_mirror.registries.mlflow_errors import is_missing

if TYPE_CHECKING:
    from aml_mirror.registries.mlflow.tracking_server import MlflowRegistry


class StoreChecks:
    """Args:
    registry: of the server.
    tracking_uri: its address.
    """

    def __init__(self, registry: MlflowRegistry, tracking_uri: str) -> None:
        self._registry = registry
        self._uri = tracking_uri
        self._client = registry.client
        self._retry = registry.retry

    def usable_experiment(self, name: str) -> str:
        """Return the id of an experiment whose files we can write; it is created if necessary.

        Raises:
            ConfigurationError: the artifact store cannot be used from here; nothing was sent.
            NotAllowed: access is denied.
        """
        found = self._retry(lambda: self._client.get_experiment_by_name(name))
        if found is None:
            self._check_new_experiments()
        if found is None or found.lifecycle_stage == "deleted":
            experiment_id = self._registry.experiment(name)
            found = self._retry(lambda: self._client.get_experiment(experiment_id))
        self._registry.stores.check(str(found.artifact_location))
        return str(found.experiment_id)

    def check_store(self, experiment: str) -> str:
        """Check the artifact store without creating the experiment; return where the files go.

        Raises:
            MirrorError: see :meth:`usable_experiment`.
        """
        found = self._retry(lambda: self._client.get_experiment_by_name(experiment))
        location = str(found.artifact_location) if found else self._check_new_experiments()
        if location:
            self._registry.stores.check(location)
        return location

    def _check_new_experiments(self) -> str:
        """Check where the server puts the files of a new experiment; return it, or "" if it is unknown.

        The server only tells this for existing experiments. The one with the id 0 is as old as the database,
        and the server may have had other options then. If the server says that we cannot write there, an
        experiment that is created and removed again decides.
        """
        scheme = urlsplit(self._uri).scheme.partition("+")[0]
        if scheme in ("postgresql", "mysql", "mssql"):
            raise ConfigurationError(
                f"{self._registry.description} is a database, which has no artifact root: the files of a new "
                "experiment would go to the folder in which this program runs",
                "pass the address of the MLflow server, or create the experiment first: mlflow experiments "
                "create --experiment-name NAME --artifact-location URI",
            )
        if scheme not in ("http", "https"):
            return ""
        try:
            location = str(self._retry(lambda: self._client.get_experiment("0")).artifact_location)
        except MirrorError as error:
            if isinstance(error, NotAllowed) or is_missing(error.__cause__):
                return ""
            raise
        if is_path(location):
            name = f"aml-mirror-probe-{uuid.uuid4().hex[:12]}"
            made = self._retry(lambda: self._client.create_experiment(name))
            location = str(self._retry(lambda: self._client.get_experiment(made)).artifact_location)
            self._registry.discard(lambda: self._client.delete_experiment(made))
            self._registry.stores.require_reachable(location)
            # That experiment's own folder is not needed.
            return ""
        return location
