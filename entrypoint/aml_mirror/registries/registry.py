"""Which workspace the settings mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aml_mirror.core.errors import ConfigurationError, MirrorError, ServiceUnavailable
from aml_mirror.core.settings import Settings
from aml_mirror.registries.azureml.limits import check_coordinates
from aml_mirror.registries.base import LoadedRegistry, Registry
from aml_mirror.support import redaction
from aml_mirror.support.retry import Retry

# Of the addresses that MLflow takes, those with a registry behind them; a driver may follow a "+".
_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks", "databricks-uc", "uc")

if TYPE_CHECKING:
    from aml_mirror.registries.azureml.workspace import AzureMLRegistry
    from aml_mirror.registries.mlflow.tracking_server import MlflowRegistry


def means_azure_ml(settings: Settings) -> bool:
    """Tell whether the target is Azure ML: its coordinates are there, and no flag names another."""
    return settings.where.get("tracking_uri") != "--tracking-uri" and any(settings.azure_coordinates)


def open_registry(settings: Settings, notice: Callable[[str], None]) -> Registry:
    """Return the target: ``--tracking-uri``, else Azure ML's coordinates, else ``MLFLOW_TRACKING_URI``.

    Raises:
        ConfigurationError: nothing names a target, or what names it is not whole.
    """
    if means_azure_ml(settings):
        load = _azureml(settings, notice)
        from aml_mirror.registries.azureml.fast_lookup import FastLookup

        return FastLookup(*settings.azure_coordinates, load)
    return _mlflow(settings, notice)


def open_loaded_registry(settings: Settings, notice: Callable[[str], None]) -> LoadedRegistry:
    """Return the same target as :func:`open_workspace` with its clients loaded. Raises as that does."""
    return open_azureml(settings, notice) if means_azure_ml(settings) else _mlflow(settings, notice)


def _mlflow(settings: Settings, notice: Callable[[str], None]) -> MlflowRegistry:
    uri = settings.tracking_uri
    if not uri:
        raise ConfigurationError(
            "nothing says where to mirror to",
            "set AZURE_SUBSCRIPTION_ID, AZURE_RESOURCE_GROUP and AZUREML_WORKSPACE_NAME for Azure ML, or "
            "pass --tracking-uri URI for an MLflow server (for example http://mlflow.example:5000)",
        )
    _check(uri)
    # Late: importing MLflow takes a second, which --help and plan need not wait for.
    from aml_mirror.registries.mlflow.tracking_server import MlflowRegistry

    return MlflowRegistry(uri, settings.retry_seconds, notice)


def _check(uri: str) -> None:
    """Check what MLflow's client would say in words of its own.

    Raises:
        ConfigurationError: nothing can answer there.
    """
    try:
        scheme, host = (urlsplit(uri).scheme or uri).partition("+")[0], urlsplit(uri).hostname
    except ValueError:
        scheme = host = ""
    if scheme in ("http", "https") and not host:
        raise ConfigurationError(f"the tracking URI {uri!r} names no host", "for example http://mlflow:5000")
    if scheme not in _SCHEMES:
        raise ConfigurationError(
            f"the tracking URI {uri!r} is not the address of an MLflow server",
            "write http:// or https:// before the host; or sqlite:///FILE where full MLflow is installed",
        )


def open_azureml(settings: Settings, notice: Callable[[str], None]) -> AzureMLRegistry:
    """Return the Azure ML workspace that the coordinates name; nothing is sent to it yet.

    Raises:
        ConfigurationError: a coordinate is missing or malformed, or the cloud is not known.
        ServiceUnavailable: the metadata of a cloud that is not built in cannot be had.
    """
    return _azureml(settings, notice)()


def _azureml(settings: Settings, notice: Callable[[str], None]) -> Callable[[], AzureMLRegistry]:
    """Check what can be checked before the clients are loaded, and return what loads them."""
    check_coordinates(*settings.azure_coordinates)
    from aml_mirror.storage.azure_cloud import blob_suffix

    # azure-ai-ml and azureml-mlflow ask for the metadata of a cloud that is not built in as they load, and
    # cannot be loaded again where that failed. So it is asked for here first, with patience.
    Retry(settings.retry_seconds, _not_loaded, notice)(blob_suffix)

    def load() -> AzureMLRegistry:
        try:
            # Late: the clients of Azure take two seconds to import.
            from aml_mirror.registries.azureml.workspace import AzureMLRegistry
        except ImportError as error:
            raise ConfigurationError(
                f"the clients of Azure cannot be loaded: {error}", "install this package anew"
            ) from error
        except Exception as error:
            raise _not_loaded(error) from error
        return AzureMLRegistry(
            *settings.azure_coordinates,
            settings.retry_seconds,
            notice,
            settings.concurrency,
            settings.block_size,
        )

    return load


def _not_loaded(error: Exception) -> MirrorError:
    return ServiceUnavailable(
        f"the clients of Azure could not be loaded: {redaction.text(str(error))[:200]}",
        "run the same command again",
    )
