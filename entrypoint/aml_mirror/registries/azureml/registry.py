"""Azure ML workspaces as a kind of registry. Loads a client only when one is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from aml_mirror.core.errors import MirrorError
from aml_mirror.core.settings import Settings
from aml_mirror.registries.azureml.coordinates import Coordinates
from aml_mirror.registries.azureml.limits import LIMITS, check_names
from aml_mirror.registries.azureml.workspace_loader import loader
from aml_mirror.registries.base import Registry
from aml_mirror.registries.registry_type import Check, RegistryType
from aml_mirror.sources.base import AzureBlobs, Source


class AzureMLRegistryType(RegistryType):
    """See :class:`aml_mirror.registries.registry_type.RegistryType`."""

    name = "azureml"
    usage = "set AZURE_SUBSCRIPTION_ID, AZURE_RESOURCE_GROUP and AZUREML_WORKSPACE_NAME for Azure ML"
    limits = LIMITS
    has_probe = True

    def is_configured(self, settings: Settings) -> bool:
        return any(settings.azure_coordinates)

    def check_names(self, model: str, experiment: str) -> None:
        super().check_names(model, experiment)
        check_names(model, experiment)

    def check(self, settings: Settings) -> None:
        Coordinates.of(settings)

    def can_copy(self, source: Source) -> bool:
        # In the cloud that the settings name (storage.azure_cloud), like the workspace's own storage.
        return isinstance(source, AzureBlobs)

    def open(self, settings: Settings, notice: Callable[[str], None]) -> Registry:
        load = loader(settings, notice)
        from aml_mirror.registries.azureml.fast_lookup import FastLookup

        return FastLookup(Coordinates.of(settings), load)

    def checks(self, settings: Settings) -> Sequence[tuple[str, Check]]:
        # Imported late: the clients of Azure take two seconds.
        from aml_mirror.registries.azureml.workspace_checks import CHECKS

        return CHECKS

    def probe(self, settings: Settings) -> Iterator[tuple[str, str, MirrorError | None]]:
        from aml_mirror.registries.azureml.workspace_checks import probe

        return probe(settings)
