"""Loads the clients of an Azure ML workspace, after everything that needs no client was checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from aml_mirror.core.errors import ConfigurationError, MirrorError, ServiceUnavailable
from aml_mirror.core.settings import Settings
from aml_mirror.registries.azureml.coordinates import Coordinates
from aml_mirror.support import redaction
from aml_mirror.support.retry import Retry

if TYPE_CHECKING:
    from aml_mirror.registries.azureml.workspace import AzureMLRegistry


def load_workspace(settings: Settings, notice: Callable[[str], None]) -> AzureMLRegistry:
    """Return the workspace that the coordinates name, with its clients loaded. Nothing is sent yet.

    Raises:
        ConfigurationError: a coordinate is missing or malformed, or the cloud is not known.
        ServiceUnavailable: the metadata of a cloud that is not built in cannot be read.
    """
    return loader(settings, notice)()


def loader(settings: Settings, notice: Callable[[str], None]) -> Callable[[], AzureMLRegistry]:
    """Check what can be checked without the clients, and return the function that loads them."""
    coordinates = Coordinates.of(settings)
    from aml_mirror.storage.azure_cloud import blob_suffix

    # azure-ai-ml and azureml-mlflow request the metadata of a cloud that is not built in while they are
    # imported, and cannot be imported again if that failed. So the metadata are requested here first, with
    # retries.
    Retry(settings.retry_seconds, _not_loaded, notice)(blob_suffix)

    def load() -> AzureMLRegistry:
        try:
            # Imported late: the clients of Azure take two seconds.
            from aml_mirror.registries.azureml.workspace import AzureMLRegistry
        except ImportError as error:
            raise ConfigurationError(
                f"the clients of Azure cannot be loaded: {error}", "reinstall this package"
            ) from error
        except Exception as error:
            raise _not_loaded(error) from error
        return AzureMLRegistry(
            coordinates,
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
