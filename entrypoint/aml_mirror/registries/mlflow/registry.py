"""MLflow servers and databases as a kind of registry."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from urllib.parse import urlsplit

from aml_mirror.core.errors import ConfigurationError, MirrorError
from aml_mirror.core.settings import Settings
from aml_mirror.registries.base import Registry
from aml_mirror.registries.registry_type import PROBE_NAME, Check, RegistryType

_WEB = ("http", "https")
# Databases, which MLflow's client accesses directly through SQLAlchemy.
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SQLITE_FILE = re.compile(r"sqlite(?:\+\w+)?:///([^?]+)")


class MlflowRegistryType(RegistryType):
    """See :class:`aml_mirror.registries.registry_type.RegistryType`."""

    name = "mlflow"
    usage = "--tracking-uri URI for an MLflow server (for example http://mlflow.example:5000)"
    has_probe = True
    schemes = (*_WEB, *_DATABASES, "databricks", "databricks-uc", "uc")

    def check(self, settings: Settings) -> None:
        uri = settings.tracking_uri
        scheme, host = urlsplit(uri).scheme.partition("+")[0], urlsplit(uri).hostname
        if scheme in _WEB and not host:
            raise ConfigurationError(
                f"the tracking URI {uri!r} names no host", "for example http://mlflow:5000"
            )
        if scheme in _DATABASES and find_spec("sqlalchemy") is None:
            raise ConfigurationError(
                f"{uri} needs the Python package sqlalchemy, which is not installed here",
                "pass the address of an MLflow server, or install aml-mirror[local], which has the database",
            )
        if file := _SQLITE_FILE.fullmatch(uri):
            _check_file(uri, file[1])

    def open(self, settings: Settings, notice: Callable[[str], None]) -> Registry:
        # Imported late: MLflow takes a second, and --help and plan do not need it.
        from aml_mirror.registries.mlflow.tracking_server import MlflowRegistry

        return MlflowRegistry(
            settings.tracking_uri, settings.retry_seconds, notice, settings.artifacts_on_this_host
        )

    def checks(self, settings: Settings) -> Sequence[tuple[str, Check]]:
        return (*super().checks(settings), ("artifact store", self._artifact_store))

    def _artifact_store(self, settings: Settings) -> str:
        from aml_mirror.registries.mlflow.tracking_server import MlflowRegistry

        registry = self.open(settings, lambda text: None)
        assert isinstance(registry, MlflowRegistry)  # noqa: S101 - for the type checker
        location = registry.store_checks.check_store(settings.experiment or settings.model_name or PROBE_NAME)
        return f"{location} can be listed" if location else "the server says where once the experiment exists"

    def probe(self, settings: Settings) -> Iterator[tuple[str, str, MirrorError | None]]:
        from aml_mirror.registries.mlflow.probe import probe
        from aml_mirror.registries.mlflow.tracking_server import MlflowRegistry

        registry = self.open(settings, lambda text: None)
        assert isinstance(registry, MlflowRegistry)  # noqa: S101 - for the type checker
        return probe(registry, settings)


def _check_file(uri: str, path: str) -> None:
    """Check that SQLite can open or create a file, without creating it or its folders, like MLflow.

    Raises:
        ConfigurationError: it cannot.
    """
    if path == ":memory:":
        return
    place = os.path.abspath(path)
    why = "is a folder" if os.path.isdir(place) else ""
    if not why and not os.path.exists(place):
        while not os.path.lexists(place):
            place = os.path.dirname(place)
        why = "" if os.path.isdir(place) else "is not a folder"
    if not why and not os.access(place, os.R_OK | os.W_OK):
        why = "is not writable"
    if why:
        raise ConfigurationError(
            f"the database {uri} cannot be used: {place} {why}", "check its path and whether it is writable"
        )
