"""Reads and tags the versions of a model in an Azure ML workspace. :mod:`.version_registration` creates them.

Facts that must never change about a version are in its properties. Facts that people and time may change are
in tags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from aml_mirror.core.errors import DataError, ServiceUnavailable
from aml_mirror.registries import keys
from aml_mirror.registries.azureml.model_service import ModelService, Properties, absence_allowed
from aml_mirror.registries.azureml.version_folder import datastore_path, is_ours
from aml_mirror.registries.azureml.version_tags import version_of
from aml_mirror.registries.records import Version
from aml_mirror.storage import azure_errors as azure_errors
from aml_mirror.support.retry import Retry

PROPERTIES = (
    keys.RUN_ID, keys.SOURCE, keys.FRAMEWORK, keys.CHECKPOINT, keys.STEP, keys.MLFLOW_RUN_ID,
    keys.MANIFEST_SHA256, keys.INTEGRITY, keys.SAFETY, keys.SAFETY_SCANNER, keys.IDENTITY,
    keys.OUTPUT_DIR, keys.REPLAY, keys.REPLAY_SOURCE, keys.TASK, keys.ROLE, keys.SUCCESS_THRESHOLD,
    keys.FILES_URI,
)  # fmt: skip
NOT_THERE: Properties = {"nextVersion": "1"}
"""Used for a model that does not exist."""


class Models:
    """The models of one workspace.

    Args:
        service: sends the requests.
        retry: retries each of them.
    """

    def __init__(self, service: ModelService, retry: Retry) -> None:
        self._service = service
        self._retry = retry

    def get(self, model: str, number: str) -> Version | None:
        """Return a version, or None if there is none with this number."""
        found = self._get(model, number)
        return None if found is None else _version(model, number, found)

    def of_run(self, model: str, run_id: str) -> list[Version]:
        """Return the versions that were mirrored from a run, by number. Reads all versions."""
        found = self.all(model)
        return [item for item in found if item.tags.get(keys.RUN_ID) == run_id and is_ours(item)]

    def with_identity(self, model: str, identity: str) -> Version | None:
        """Return the version with an identity, or None. Reads all versions."""
        found = self.all(model)
        return next(
            (item for item in found if item.tags.get(keys.IDENTITY) == identity and is_ours(item)), None
        )

    def names(self) -> Iterator[str]:
        """Yield the name of each model."""
        return iter(self._retry(lambda: list(self._service.models())))

    def each(self, model: str, take: Callable[[Version], None]) -> None:
        """Pass on all versions of a model. If the list has to be read again, versions are passed on twice."""

        def read() -> None:
            with absence_allowed():
                for number, properties in self._service.versions(model):
                    take(_version(model, number, properties))

        self._retry(read)

    def newest(self, model: str) -> Iterator[Version]:
        """Yield the versions of a model, newest first, requested page by page and without retries.

        Raises:
            HttpResponseError: the service does not return them.
        """
        for number, properties in self._service.versions(model):
            yield _version(model, number, properties)

    def tag(
        self,
        version: Version,
        tags: dict[str, str],
        require_allowed: Callable[[], None] = lambda: None,
        removed: Sequence[str] = (),
    ) -> None:
        """Write tags of a version, and remove some. Everything else stays, including whether it is archived.

        Raises:
            ServiceUnavailable: the version no longer exists.
            DataError: its number now belongs to another version.
        """
        found = self._get(version.model, version.number)
        if found is None:
            raise ServiceUnavailable(
                f"version {version.number} of {version.model} no longer exists", azure_errors.AGAIN
            )
        now = _version(version.model, version.number, found)
        same_path = datastore_path(now.path) == datastore_path(version.path)
        if now.tags.get(keys.IDENTITY) != version.tags.get(keys.IDENTITY) or not same_path:
            raise DataError(
                f"version {version.number} of {version.model} was replaced: its identity or path changed",
                "nothing was written to it; find out who changed it, and mirror the run again",
            )
        before = found.get("tags") or {}
        if all(before.get(name) == text for name, text in tags.items()) and not before.keys() & set(removed):
            return
        after = {name: text for name, text in {**before, **tags}.items() if name not in removed}

        def put() -> None:
            require_allowed()
            self._service.put(version.model, version.number, {**found, "tags": after})

        self._retry(put)

    def _get(self, model: str, number: str) -> Properties | None:
        return self._retry(lambda: self._service.version_if_any(model, number))

    def container(self, model: str) -> Properties:
        """Return the model itself: the number of its next version, and whether it is archived."""

        def get() -> Properties:
            with absence_allowed():
                return self._service.container(model)
            return dict(NOT_THERE)

        return self._retry(get)

    def all(self, model: str) -> list[Version]:
        """Return the versions of a model, by number."""
        found: dict[str, Version] = {}
        self.each(model, lambda version: found.update({version.number: version}))
        return sorted(found.values(), key=lambda item: number_of(item.number))


def _version(model: str, number: str, found: Properties) -> Version:
    return version_of(
        model,
        number,
        found.get("tags"),
        found.get("properties"),
        found.get("modelUri"),
        bool(found.get("isArchived")),
    )


def number_of(text: object) -> int:
    """Return a version as a number. Names that people gave instead of numbers count as none."""
    return int(str(text)) if str(text).isdecimal() else 0
