"""Chooses the registry that the settings mean: ``--tracking-uri``, or else what the environment names."""

from __future__ import annotations

import functools
from collections.abc import Callable
from urllib.parse import urlsplit

from aml_mirror.core.errors import ConfigurationError, UsageError
from aml_mirror.core.settings import Settings
from aml_mirror.registries.azureml.registry import AzureMLRegistryType
from aml_mirror.registries.base import Registry
from aml_mirror.registries.mlflow.registry import MlflowRegistryType
from aml_mirror.registries.registry_type import RegistryType
from aml_mirror.support import plugins

BUILT_IN: tuple[RegistryType, ...] = (AzureMLRegistryType(), MlflowRegistryType())


@functools.cache
def registry_types() -> tuple[RegistryType, ...]:
    """Return every kind of registry: first the built-in ones, then those of other packages.

    Raises:
        ConfigurationError: a package's registry cannot be loaded, or its name or scheme is already used.
    """
    types = (*BUILT_IN, *plugins.load(plugins.REGISTRIES))
    plugins.require_unique("registries", (item.name for item in types))
    plugins.require_unique("registries", (scheme for item in types for scheme in item.schemes))
    return types


def named_type(settings: Settings) -> RegistryType | None:
    """Return the kind of registry that the settings name, or None if they name none.

    A URI on the command line wins, then other settings, then ``MLFLOW_TRACKING_URI``.

    Raises:
        ConfigurationError: no kind of registry has the URI's scheme.
        UsageError: the environment names several registries.
    """
    if settings.tracking_uri and settings.where.get("tracking_uri") == "--tracking-uri":
        return _of_uri(settings.tracking_uri)
    configured = [item for item in registry_types() if item.is_configured(settings)]
    if len(configured) > 1:
        raise UsageError(
            f"several registries are configured: {', '.join(item.name for item in configured)}",
            "choose one with --tracking-uri, or unset the variables of the others",
        )
    if configured:
        return configured[0]
    return _of_uri(settings.tracking_uri) if settings.tracking_uri else None


def required_type(settings: Settings) -> RegistryType:
    """Return the kind of registry that the settings name.

    Raises:
        ConfigurationError: they name none, or none that is known.
        UsageError: they name several.
    """
    if found := named_type(settings):
        return found
    raise ConfigurationError(
        "no target configured", ", or pass ".join(item.usage for item in registry_types())
    )


def open_registry(settings: Settings, notice: Callable[[str], None]) -> Registry:
    """Return the registry that the settings name.

    Args:
        settings: of this call.
        notice: called with messages for the user while waiting.

    Raises:
        ConfigurationError: they name none, or not completely.
        MirrorError: it cannot be used.
    """
    named = required_type(settings)
    named.check(settings)
    return named.open(settings, notice)


def _of_uri(uri: str) -> RegistryType:
    try:
        scheme = (urlsplit(uri).scheme or uri).partition("+")[0]
    except ValueError:
        scheme = ""  # one bracket of the host is missing
    for item in registry_types():
        if scheme in item.schemes:
            return item
    # A store that an MLflow plugin adds, like sagemaker-mlflow for arn:aws:sagemaker:….
    if scheme in {item.name for item in plugins.entry_points("mlflow.tracking_store")}:
        return next(item for item in registry_types() if isinstance(item, MlflowRegistryType))
    if uri.startswith("arn:aws:sagemaker:"):
        raise ConfigurationError(
            f"the tracking URI {uri!r} needs the MLflow plugin sagemaker-mlflow, which is not installed here",
            "pip install sagemaker-mlflow",
        )
    others = [item.usage for item in registry_types() if item not in BUILT_IN]
    raise ConfigurationError(
        f"the tracking URI {uri!r} is not the address of an MLflow server",
        "; or ".join(
            [
                "put http:// or https:// before the host, or use sqlite:///FILE if full MLflow is installed",
                *others,
            ]
        ),
    )
