"""Which workspace the settings mean."""

from __future__ import annotations

from collections.abc import Callable

from aml_mirror.errors import ConfigurationError
from aml_mirror.settings import Settings
from aml_mirror.workspaces.base import Workspace


def open_workspace(settings: Settings, notice: Callable[[str], None]) -> Workspace:
    """Return the target: ``--tracking-uri``, else Azure ML's coordinates, else ``MLFLOW_TRACKING_URI``.

    Raises:
        ConfigurationError: nothing names a target, or what names it is not whole.
    """
    uri = settings.tracking_uri
    if settings.where.get("tracking_uri") != "--tracking-uri" and any(settings.azure_coordinates):
        raise ConfigurationError(
            "Azure ML coordinates are set, and this version cannot write to Azure ML yet",
            "pass the address of an MLflow server with --tracking-uri",
        )
    if not uri:
        raise ConfigurationError(
            "nothing says where to mirror to",
            "pass --tracking-uri URI (for example sqlite:///mlflow.db or http://mlflow.example:5000), "
            "or set MLFLOW_TRACKING_URI",
        )
    # Late: importing MLflow takes a second, which --help and plan need not wait for.
    from aml_mirror.workspaces.mlflow import MlflowWorkspace

    return MlflowWorkspace(uri, settings.retry_seconds, notice)
