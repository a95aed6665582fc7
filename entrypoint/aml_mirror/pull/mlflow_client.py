"""Accesses a registry that only MLflow's own client supports: a database, Databricks, or a plugin's.

Not part of the light distribution, which has no MLflow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from aml_mirror.core.errors import MirrorError
from aml_mirror.registries.mlflow_errors import error_code, is_missing, translate
from aml_mirror.support import redaction
from aml_mirror.support.retry import Retry


class MlflowByClient:
    """Like :class:`aml_mirror.pull.mlflow_rest.MlflowRest`, with MLflow's client."""

    def __init__(self, uri: str, retry_seconds: float, notice: Callable[[str], None]) -> None:
        self.uri = uri
        self.shown = redaction.text(uri)
        self.retry = Retry(retry_seconds, lambda error: translate(error, self.shown), notice)
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)

    def version(self, model: str, number: str) -> dict[str, Any] | None:
        """Return a version, or None where there is none."""
        return self._one(lambda: _as_dict(self._client.get_model_version(model, number)))

    def by_alias(self, model: str, alias: str) -> dict[str, Any] | None:
        """Return the version that has an alias, or None where there is none."""
        return self._one(lambda: _as_dict(self._client.get_model_version_by_alias(model, alias)))

    def search(self, where: str) -> list[dict[str, Any]]:
        """Return the versions that a filter finds."""
        found: list[dict[str, Any]] = []
        token: str | None = None
        while True:
            page = self.retry(lambda: self._client.search_model_versions(where, page_token=token))  # noqa: B023
            found += map(_as_dict, page)
            token = page.token
            if not token:
                return found

    def download_uri(self, model: str, number: str) -> str:
        """Return where the files of a version are."""
        return str(self.retry(lambda: self._client.get_model_version_download_uri(model, number)))

    def run(self, run_id: str) -> dict[str, Any] | None:
        """Return a run's ``info``, or None where there is none."""
        return self._one(lambda: dict(self._client.get_run(run_id).info))

    def _one(self, ask: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        try:
            return self.retry(ask)
        except MirrorError as error:
            if is_missing(error.__cause__) or error_code(error.__cause__) == "INVALID_PARAMETER_VALUE":
                return None
            raise


def _as_dict(found: ModelVersion) -> dict[str, Any]:
    return {
        "name": found.name,
        "version": found.version,
        "run_id": found.run_id,
        "source": found.source,
        "tags": [{"key": key, "value": value} for key, value in found.tags.items()],
    }
