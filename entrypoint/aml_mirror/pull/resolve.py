"""From a reference to a version: its tags, its properties, its manifest, its files.

    version = resolve(settings, console.say)
    version.version.tags["framework"], version.properties.get("success_threshold")
    version.manifest()          # DataError: changed, missing, or not made by this program
    version.files.listing()

Sends as few requests as possible: one for ``NAME:VERSION``, a page of versions for a stage on Azure ML or a
run id. The manifest and the files are requested when they are first used.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from urllib.parse import urlsplit

from aml_mirror.core.errors import ConfigurationError, SourceNotFound, UsageError
from aml_mirror.core.settings import Settings
from aml_mirror.pull.reference import Reference, parse
from aml_mirror.pull.resolved import Catalog, ResolvedVersion
from aml_mirror.registries import keys
from aml_mirror.registries.registry import required_type

_LISTED = 10  # versions in an error message


def resolve(settings: Settings, notice: Callable[[str], None]) -> ResolvedVersion:
    """Return the only version that the settings select.

    Args:
        settings: with ``reference``, or ``run_id`` and possibly ``model_name``, and a registry.
        notice: called with messages for the user while waiting.

    Raises:
        UsageError: they select no version, or several.
        SourceNotFound: there is no such version.
        ConfigurationError: they name no registry, or one that cannot be read here.
        MirrorError: the registry cannot be read.
    """
    reference = parse(settings.reference, settings.run_id, settings.model_name)
    return resolve_reference(reference, open_catalog(settings, notice))


def resolve_reference(reference: Reference, catalog: Catalog) -> ResolvedVersion:
    """Return the only version that a reference selects. Raises the errors of :func:`resolve`."""
    found = catalog.find(reference)
    if reference.run_id:
        # An unfinished mirror does not count as a version.
        found = [one for one in found if one.version.complete]
    if not found:
        raise SourceNotFound(
            f"there is no version {reference} in {catalog.description}"
            if not reference.run_id
            else f"there is no complete version of {reference} in {catalog.description}",
            "see 'aml-mirror status' for the versions of a run",
        )
    if len(found) > 1:
        listed = ", ".join(map(_short, found[:_LISTED])) + (" …" if len(found) > _LISTED else "")
        raise UsageError(
            f"{len(found)} versions match {reference}: {listed}", "pass one of them as NAME:VERSION"
        )
    return found[0]


def _short(found: ResolvedVersion) -> str:
    version = found.version
    more = [version.tags.get(keys.CHECKPOINT, ""), version.tags.get(keys.ROLE, "")]
    what = ", ".join(filter(None, more))
    return f"{version.model}:{version.number}" + (f" ({what})" if what else "")


def open_catalog(settings: Settings, notice: Callable[[str], None]) -> Catalog:
    """Return the registry that the settings name, read-only, without loading its service's client.

    Raises:
        ConfigurationError: they name none, or one that cannot be read here.
    """
    kind = required_type(settings)
    kind.check(settings)
    if kind.name == "azureml":
        from aml_mirror.pull.azureml_catalog import AzureMLCatalog
        from aml_mirror.registries.azureml.coordinates import Coordinates

        return AzureMLCatalog(Coordinates.of(settings), settings.retry_seconds, notice, settings.concurrency)
    if kind.name != "mlflow":
        raise ConfigurationError(
            f"versions in a registry of the type {kind.name} cannot be pulled",
            "use the registry's own client",
        )
    from aml_mirror.pull.mlflow_catalog import MlflowCatalog

    if urlsplit(settings.tracking_uri).scheme in ("http", "https"):
        from aml_mirror.pull.mlflow_rest import MlflowRest

        return MlflowCatalog(MlflowRest(settings.tracking_uri, settings.retry_seconds, notice), settings)
    if importlib.util.find_spec("mlflow") is None:
        raise ConfigurationError(
            "reading a registry that is not a server needs MLflow's own client, which is not installed here",
            "install aml-mirror, or pass the http:// or https:// address of an MLflow server",
        )
    from aml_mirror.pull.mlflow_client import MlflowByClient

    return MlflowCatalog(MlflowByClient(settings.tracking_uri, settings.retry_seconds, notice), settings)
