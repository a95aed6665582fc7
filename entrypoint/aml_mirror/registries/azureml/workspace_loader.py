"""Loads the clients of an Azure ML workspace, once all that needs none of them is checked."""

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
    """Return the workspace that the coordinates name, its clients loaded; nothing is sent to it yet.

    Raises:
        ConfigurationError: a coordinate is missing or malformed, or the cloud is not known.
        ServiceUnavailable: the metadata of a cloud that is not built in cannot be had.
    """
    return loader(settings, notice)()


def loader(settings: Settings, notice: Callable[[str], None]) -> Callable[[], AzureMLRegistry]:
    """Check what can be checked before the clients are loaded, and return what loads them."""
    coordinates = Coordinates.of(settings)
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
