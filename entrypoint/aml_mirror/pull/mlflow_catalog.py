"""The registered models of an MLflow server, read-only."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, Protocol

from aml_mirror.core.errors import DataError, SourceNotFound
from aml_mirror.core.manifest import BlockDigests
from aml_mirror.core.settings import Settings
from aml_mirror.pull.files import Files
from aml_mirror.pull.mlflow_files import open_files
from aml_mirror.pull.reference import Reference
from aml_mirror.pull.resolved import ResolvedVersion
from aml_mirror.registries import keys
from aml_mirror.registries.records import Version
from aml_mirror.support.retry import Retry

# The own files of a version are beside this folder of its run.
_FOLDER = "/model"


class MlflowApi(Protocol):
    """How a server is accessed: see :class:`aml_mirror.pull.mlflow_rest.MlflowRest`."""

    uri: str
    shown: str
    retry: Retry

    def version(self, model: str, number: str) -> dict[str, Any] | None: ...

    def by_alias(self, model: str, alias: str) -> dict[str, Any] | None: ...

    def search(self, where: str) -> list[dict[str, Any]]: ...

    def download_uri(self, model: str, number: str) -> str: ...

    def run(self, run_id: str) -> dict[str, Any] | None: ...


class MlflowCatalog:
    """See :class:`aml_mirror.pull.resolved.Catalog`.

    Args:
        api: accesses the server.
        settings: whether the server runs on this host.
    """

    def __init__(self, api: MlflowApi, settings: Settings) -> None:
        self.api = api
        self.settings = settings
        self.description = api.shown

    def find(self, reference: Reference) -> list[ResolvedVersion]:
        """See :meth:`aml_mirror.pull.resolved.Catalog.find`."""
        if reference.number:
            found = [self.api.version(reference.model, reference.number)]
        elif reference.stage:
            found = [self.api.by_alias(reference.model, reference.stage)]
        else:
            found = [*self._of_run(reference)]
        return [self._resolved(one) for one in found if one is not None]

    def _of_run(self, reference: Reference) -> Iterator[dict[str, Any]]:
        conditions = []
        # MLflow's filter language cannot escape a quote: what it cannot express is compared here.
        if reference.model and "'" not in reference.model:
            conditions.append(f"name = '{reference.model}'")
        if "'" not in reference.run_id:
            conditions.append(f"tags.`{keys.RUN_ID}` = '{reference.run_id}'")
        for one in self.api.search(" and ".join(conditions)):
            is_named = reference.model in ("", str(one.get("name")))
            if is_named and _tags(one).get(keys.RUN_ID) == reference.run_id:
                yield one

    def _resolved(self, found: dict[str, Any]) -> ResolvedVersion:
        tags = _tags(found)
        version = Version(str(found["name"]), str(found["version"]), tags, str(found.get("source") or ""))
        return ResolvedVersion(
            version=version,
            tags=tags,
            properties={},
            registry=self.description,
            pinned_by="a tag of the version, which anyone with write access can change",
            places=_Places(self, version),
        )


class _Places:
    """See :class:`aml_mirror.pull.resolved.Places`."""

    def __init__(self, catalog: MlflowCatalog, version: Version) -> None:
        self._catalog = catalog
        self._version = version

    @cached_property
    def files(self) -> Files:
        return open_files(self._uri, self._catalog.api, self._catalog.settings)

    @cached_property
    def _uri(self) -> str:
        api, version = self._catalog.api, self._version
        uri = api.download_uri(version.model, version.number)
        if uri.startswith("runs:/"):
            run_id, _, path = uri.removeprefix("runs:/").lstrip("/").partition("/")
            uri = self._artifact_root(run_id) + (f"/{path}" if path else "")
        if not uri:
            raise SourceNotFound(
                f"version {version.number} of {version.model} names no files", "check it on the server"
            )
        return uri.rstrip("/")

    def _artifact_root(self, run_id: str) -> str:
        run = self._catalog.api.run(run_id)
        if run is None or str(run.get("lifecycle_stage", "active")).lower() == "deleted":
            how = "gone" if run is None else "deleted"
            raise DataError(
                f"the MLflow run {run_id} of version {self._version.number} of {self._version.model} is "
                f"{how}, and so are its files",
                "mirror its run again: a deleted MLflow run is restored, a removed one is created again",
            )
        return str(run["artifact_uri"]).rstrip("/")

    @property
    def is_ours(self) -> bool:
        return self._uri.endswith(_FOLDER)

    def own_digests(self) -> dict[str, str]:
        # A server pins none of them. Their sizes are compared with its list.
        return {}

    def blocks(self) -> dict[str, tuple[int, BlockDigests]]:
        # A server keeps no list of them. Whole files are still found.
        return {}

    def artifacts(self, name: str, limit: int) -> Iterator[bytes]:
        if self.is_ours and (data := self._own.small(name, limit)):
            yield data

    @cached_property
    def _own(self) -> Files:
        root = self._uri.removesuffix(_FOLDER)
        return open_files(root, self._catalog.api, self._catalog.settings)


def _tags(found: dict[str, Any]) -> dict[str, str]:
    tags = {str(tag["key"]): str(tag.get("value", "")) for tag in found.get("tags") or ()}
    if run_id := found.get("run_id"):
        tags.setdefault(keys.MLFLOW_RUN_ID, str(run_id))
    return tags
