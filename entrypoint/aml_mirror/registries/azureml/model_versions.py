"""Versions of a model in an Azure ML workspace, with numbers that this program chooses.

A version is made with a PUT of a fixed number, so that a request whose answer was lost is simply repeated.
Whether the service refuses a PUT that changes a version, ignores it or carries it out is documented
("immutable") and not recorded. So two writers must not choose one number: it is chosen and taken under a
lease on the model, and the next writer comes only when the version can be read. Whoever reads back another
identity or path than its own takes the next number. Nothing is tagged before both were compared.

What must never change about a version is in its properties; what people and time may change, in tags.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from azure.core.exceptions import HttpResponseError

from aml_mirror.core.errors import DataError, MirrorError, ServiceUnavailable
from aml_mirror.registries import keys
from aml_mirror.registries.azureml.limits import DESCRIPTION, LIMITS, cut
from aml_mirror.registries.azureml.model_service import ModelService, Properties
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
CUSTOM_MODEL = "custom_model"
# So many numbers in a row may be taken by others or spent; more is a fault.
TRIES = 100
# Deleted numbers are passed one by one up to here, then in growing steps: gaps do no harm.
SINGLE_STEPS = 50


class Models:
    """The models of one workspace.

    Args:
        service: sends the requests.
        retry: the patience of each.
        locked: holds the lease on a model's numbers while it is entered.
    """

    def __init__(
        self, service: ModelService, retry: Retry, locked: Callable[[str], AbstractContextManager[object]]
    ) -> None:
        self._service = service
        self._retry = retry
        self._locked = locked

    def get(self, model: str, number: str) -> Version | None:
        """Return a version, or None where there is none with this number."""
        found = self._get(model, number)
        return None if found is None else _version(model, number, found)

    def of_run(self, model: str, run_id: str) -> list[Version]:
        """Return the versions that were mirrored from a run, by number: all versions are looked at."""
        found = self._all(model)
        return [item for item in found if item.tags.get(keys.RUN_ID) == run_id and is_ours(item)]

    def with_identity(self, model: str, identity: str) -> Version | None:
        """Return the version with an identity, or None: all versions are looked at."""
        found = self._all(model)
        return next(
            (item for item in found if item.tags.get(keys.IDENTITY) == identity and is_ours(item)), None
        )

    def names(self) -> Iterator[str]:
        """Yield the name of each model."""
        return iter(self._retry(lambda: list(self._service.models())))

    def each(self, model: str, take: Callable[[Version], None]) -> None:
        """Hand over all versions of a model; twice, where the list had to be begun again."""

        def read() -> None:
            try:
                for number, properties in self._service.versions(model):
                    take(_version(model, number, properties))
            except HttpResponseError as error:
                absent(error)

        self._retry(read)

    def newest(self, model: str) -> Iterator[Version]:
        """Yield the versions of a model, the newest first, asked for page by page and without patience.

        Raises:
            HttpResponseError: they cannot be had.
        """
        for number, properties in self._service.versions(model):
            yield _version(model, number, properties)

    def register(
        self,
        model: str,
        path: str,
        description: str,
        properties: dict[str, str],
        tags: dict[str, str],
        intended: str | None,
        intend: Callable[[str], None],
        require_allowed: Callable[[], None] = lambda: None,
        job_name: str | None = None,
    ) -> Version:
        """Make a version, or find the one that an earlier attempt made.

        Args:
            model: its model.
            path: the ``azureml://`` path of its files.
            description: in Markdown; cut where it is too long.
            properties: never to change; with the identity among them.
            tags: for people.
            intended: the number that an earlier attempt meant to take.
            intend: told the number before it is taken, so that a killed attempt can find its version again.
            require_allowed: called before a version is made; raises where nothing may be written any more.
            job_name: of the run that it is linked to, where the service keeps that.

        Raises:
            NotAllowed, ConfigurationError: the service refuses.
            ServiceUnavailable: it fails for now.
        """
        if intended is not None:
            found = self.get(model, intended)
            if found is not None and _is_same(found, properties[keys.IDENTITY], path):
                return found
        made = {
            "modelType": CUSTOM_MODEL,
            "modelUri": self._service.long_path(path),
            "description": cut(description, DESCRIPTION, "the whole is the run's MODEL_CARD.md"),
            "properties": {name: cut(text, LIMITS.tag_value) for name, text in properties.items()},
            "tags": {**tags, keys.STATE: keys.INCOMPLETE},
            "isAnonymous": False,
        }
        if job_name is not None:
            made["jobName"] = job_name
        with self._locked(model):
            return self._take_number(model, made, intended, intend, require_allowed)

    def _take_number(
        self,
        model: str,
        made: Properties,
        intended: str | None,
        intend: Callable[[str], None],
        require_allowed: Callable[[], None],
    ) -> Version:
        container = self._container(model)
        # A version in an archived container is archived: it is made so, and nothing is restored.
        made["isArchived"] = bool(container.get("isArchived"))
        identity, path = made["properties"][keys.IDENTITY], made["modelUri"]
        number = intended
        numbers = self._numbers(model, container)
        for _ in range(TRIES):
            if number is None:
                number = str(next(numbers))
                intend(number)
            # Also for a number that should be free: a list may not show yet what was made a moment ago.
            found = self.get(model, number)
            if found is not None and _is_same(found, identity, path):
                return found
            if found is None:
                refusal = self._put(model, number, made, require_allowed)
                found = self.get(model, number) if refusal else self._made(model, number)
                if refusal and found is None and made.pop("jobName", None):
                    # The link is not worth a version; whether it was the reason shows now.
                    refusal = self._put(model, number, made, require_allowed)
                    found = self.get(model, number) if refusal else self._made(model, number)
                if found is not None and _is_same(found, identity, path):
                    return found
                if found is None and refusal is not None and not _was_deleted(refusal):
                    # Refused, and not because another has the number.
                    raise refusal
            number = None
        raise ServiceUnavailable(
            f"{TRIES} version numbers of {model} in a row were taken by others or deleted", azure_errors.AGAIN
        )

    def _put(
        self, model: str, number: str, made: Properties, require_allowed: Callable[[], None]
    ) -> MirrorError | None:
        """Make a version; return the refusal that may mean that the number is taken or spent."""

        def put() -> None:
            require_allowed()
            self._service.put(model, number, made)

        try:
            self._retry(put)
        except MirrorError as error:
            if azure_errors.status_of(error.__cause__) not in (400, 409, 412):
                raise
            return error
        return None

    def _numbers(self, model: str, container: Properties) -> Iterator[int]:
        """Yield numbers to try: the service's next one and those after it.

        A list may not show yet what was made some seconds ago (azure-sdk-for-python#28328), and the highest
        number may belong to a version that was deleted, which cannot be made again (#28423): the container's
        ``nextVersion`` knows of both. Where it does not help, the highest of the list counts.
        """
        number = _number(container.get("nextVersion"))
        if not number:
            number = max((_number(item.number) for item in self._all(model)), default=0) + 1
        step = 1
        for count in range(TRIES):
            yield number
            if count == SINGLE_STEPS:
                number = max(number, _number(self._container(model).get("nextVersion")) - 1)
            step = 1 if count <= SINGLE_STEPS else step * 2
            number += step

    def tag(
        self,
        version: Version,
        tags: dict[str, str],
        require_allowed: Callable[[], None] = lambda: None,
        removed: Sequence[str] = (),
    ) -> None:
        """Write tags of a version, and remove some; all else that it has stays, whether it is archived too.

        Raises:
            ServiceUnavailable: the version is gone.
            DataError: its number belongs to another version now.
        """
        found = self._get(version.model, version.number)
        if found is None:
            raise ServiceUnavailable(
                f"version {version.number} of {version.model} is gone", azure_errors.AGAIN
            )
        now = _version(version.model, version.number, found)
        same_path = datastore_path(now.path) == datastore_path(version.path)
        if now.tags.get(keys.IDENTITY) != version.tags.get(keys.IDENTITY) or not same_path:
            raise DataError(
                f"version {version.number} of {version.model} is another one now: identity or path changed",
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

    def _made(self, model: str, number: str) -> Version:
        """Return a version that the service said it made, as soon as it shows it."""

        def look() -> Version:
            found = self.get(model, number)
            if found is None:
                raise ServiceUnavailable(
                    f"version {number} of {model} was registered and is not there", azure_errors.AGAIN
                )
            return found

        return self._retry(look)

    def _get(self, model: str, number: str) -> Properties | None:
        def get() -> Properties | None:
            try:
                return self._service.version(model, number)
            except HttpResponseError as error:
                absent(error)
                return None

        return self._retry(get)

    def _container(self, model: str) -> Properties:
        def get() -> Properties:
            try:
                return self._service.container(model)
            except HttpResponseError as error:
                absent(error)
                return {"nextVersion": "1"}

        return self._retry(get)

    def _all(self, model: str) -> list[Version]:
        found: dict[str, Version] = {}
        self.each(model, lambda version: found.update({version.number: version}))
        return sorted(found.values(), key=lambda item: _number(item.number))


def absent(error: HttpResponseError) -> None:
    """Let a 404 mean 'no such version', unless it is the workspace or what holds it that is not there."""
    code = azure_errors.code_of(error)
    # ARM names what is not there by its type and name, up to the closing quote.
    workspace = re.search(r"workspaces/[^/']+'", str(error), re.IGNORECASE)
    if (
        azure_errors.status_of(error) != 404
        or code in ("ResourceGroupNotFound", "SubscriptionNotFound")
        or (code == "ResourceNotFound" and workspace)
    ):
        raise error


def _is_same(version: Version, identity: str, path: str) -> bool:
    """Whether a version is the one that is to be made.

    Raises:
        ServiceUnavailable: it is, in another folder.
    """
    if version.tags.get(keys.IDENTITY) != identity:
        return False
    if datastore_path(version.path) == datastore_path(path):
        return True
    if is_ours(version):
        # Made by an earlier attempt, and shown only now. The next attempt goes on in that folder.
        raise ServiceUnavailable(
            f"version {version.number} of {version.model} appeared in another folder", azure_errors.AGAIN
        )
    return False


def _was_deleted(error: MirrorError) -> bool:
    """Whether a number is spent: a version that was deleted cannot be made again (azureml-assets#3530)."""
    return "cannot be recreated" in str(error.__cause__)


def _version(model: str, number: str, found: Properties) -> Version:
    return version_of(
        model,
        number,
        found.get("tags"),
        found.get("properties"),
        found.get("modelUri"),
        bool(found.get("isArchived")),
    )


def _number(text: object) -> int:
    """A version as a number; names that people gave instead of numbers count as none."""
    return int(str(text)) if str(text).isdecimal() else 0
