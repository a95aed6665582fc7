"""Creates a version of a model under a number that this program chooses.

A version is created with a PUT of a fixed number, so a request whose answer was lost can be repeated. The
documentation says "immutable", but no recording shows whether the service refuses, ignores or carries out a
PUT that changes a version. So two writers must not choose the same number. It is chosen and used under a
lease on the model, and the next writer continues only when the version can be read. A writer that reads back
another identity or path than its own uses the next number. Nothing is tagged before both were compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from aml_mirror.core.errors import ConfigurationError, DataError, MirrorError, NotAllowed, ServiceUnavailable
from aml_mirror.registries import keys
from aml_mirror.registries.azureml.blob_lease import BlobLease
from aml_mirror.registries.azureml.limits import DESCRIPTION, FOLDER, LIMITS, cut, safe_part
from aml_mirror.registries.azureml.model_service import ModelService, Properties
from aml_mirror.registries.azureml.model_versions import NOT_THERE, Models, number_of
from aml_mirror.registries.azureml.service_client import AzureML
from aml_mirror.registries.azureml.version_folder import datastore_path, is_ours
from aml_mirror.registries.records import Version
from aml_mirror.storage import azure_errors as azure_errors

CUSTOM_MODEL = "custom_model"
# The most numbers in a row that may be used by others or already spent. More than that is a fault.
TRIES = 100
# Up to here, deleted numbers are skipped one by one, then in growing steps. Gaps do no harm.
SINGLE_STEPS = 50


class Registration:
    """Creates the versions of one workspace.

    Args:
        models: the existing versions.
        service: sends the requests.
        azure: the workspace.
        notice: called with messages for the user while waiting.
    """

    def __init__(
        self, models: Models, service: ModelService, azure: AzureML, notice: Callable[[str], None]
    ) -> None:
        self._models = models
        self._service = service
        self._azure = azure
        self._retry = azure.retry
        self._notice = notice

    @contextmanager
    def _locked(self, model: str) -> Iterator[None]:
        """Hold the lease that is needed to use a number of the model's versions."""
        lease = BlobLease(
            self._azure.container.get_blob_client(f"{FOLDER}/numbers/{safe_part(model)}"),
            self._retry,
            self._notice,
            f"another mirror is registering a version of {model}; waiting for it",
        )
        lease.acquire()
        try:
            yield
        finally:
            lease.release()

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
        about: str = "",
    ) -> Version:
        """Create a version, or find the one that an earlier attempt created.

        Args:
            model: its model.
            path: the ``azureml://`` path of its files.
            description: in Markdown; cut if it is too long.
            properties: these never change, and include the identity.
            tags: for people.
            intended: the number that an earlier attempt intended to use.
            intend: called with the number before it is used, so that a killed attempt can find its version
                again.
            require_allowed: called before a version is created; raises if nothing may be written.
            job_name: the run that it is linked to, if the service stores that.
            about: the description of the model, if there is none yet.

        Raises:
            NotAllowed, ConfigurationError: the service refuses.
            ServiceUnavailable: a temporary failure.
        """
        if intended is not None:
            found = self._models.get(model, intended)
            if found is not None and _is_same(found, properties[keys.IDENTITY], path):
                return found
        made = {
            "modelType": CUSTOM_MODEL,
            "modelUri": self._service.long_path(path),
            "description": cut(description, DESCRIPTION, "the complete text is the run's MODEL_CARD.md"),
            "properties": {name: cut(text, LIMITS.tag_value) for name, text in properties.items()},
            "tags": {**tags, keys.STATE: keys.INCOMPLETE},
            "isAnonymous": False,
        }
        if job_name is not None:
            made["jobName"] = job_name
        with self._locked(model):
            if about:
                self._describe(model, about)
            return self._take_number(model, made, intended, intend, require_allowed)

    def _describe(self, model: str, about: str) -> None:
        """Create a missing model with a description. Creating a version would make a model without one."""
        if self._models.container(model) == NOT_THERE:
            # The version does not need it, so a refusal does no harm.
            with suppress(ConfigurationError, DataError, NotAllowed):
                self._retry(lambda: self._service.put_container(model, about))

    def _take_number(
        self,
        model: str,
        made: Properties,
        intended: str | None,
        intend: Callable[[str], None],
        require_allowed: Callable[[], None],
    ) -> Version:
        container = self._models.container(model)
        # A version in an archived container is archived too: it is created so, and nothing is restored.
        made["isArchived"] = bool(container.get("isArchived"))
        identity, path = made["properties"][keys.IDENTITY], made["modelUri"]
        number = intended
        numbers = self._numbers(model, container)
        for _ in range(TRIES):
            if number is None:
                number = str(next(numbers))
                intend(number)
            # Check even a number that should be free: a list may not show yet what was created a moment ago.
            found = self._models.get(model, number)
            if found is not None and _is_same(found, identity, path):
                return found
            if found is None:
                refusal = self._put(model, number, made, require_allowed)
                found = self._models.get(model, number) if refusal else self._made(model, number)
                if refusal and found is None and made.pop("jobName", None):
                    # The link is not worth losing a version. This shows whether it was the reason.
                    refusal = self._put(model, number, made, require_allowed)
                    found = self._models.get(model, number) if refusal else self._made(model, number)
                if found is not None and _is_same(found, identity, path):
                    return found
                if found is None and refusal is not None and not _was_deleted(refusal):
                    # Refused, and not because another version has the number.
                    raise refusal
            number = None
        raise ServiceUnavailable(
            f"{TRIES} version numbers of {model} in a row were used by others or deleted", azure_errors.AGAIN
        )

    def _put(
        self, model: str, number: str, made: Properties, require_allowed: Callable[[], None]
    ) -> MirrorError | None:
        """Create a version. Return a refusal that may mean that the number is used or spent."""

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

        A list may not show yet what was created some seconds ago (azure-sdk-for-python#28328). The highest
        number may belong to a deleted version, which cannot be created again (#28423). The container's
        ``nextVersion`` considers both. If it does not help, the highest number of the list counts.
        """
        number = number_of(container.get("nextVersion"))
        if not number:
            number = max((number_of(item.number) for item in self._models.all(model)), default=0) + 1
        step = 1
        for count in range(TRIES):
            yield number
            if count == SINGLE_STEPS:
                number = max(number, number_of(self._models.container(model).get("nextVersion")) - 1)
            step = 1 if count <= SINGLE_STEPS else step * 2
            number += step

    def _made(self, model: str, number: str) -> Version:
        """Return a version that the service reported as created, as soon as it shows it."""

        def look() -> Version:
            found = self._models.get(model, number)
            if found is None:
                raise ServiceUnavailable(
                    f"version {number} of {model} was registered but cannot be found", azure_errors.AGAIN
                )
            return found

        return self._retry(look)


def _is_same(version: Version, identity: str, path: str) -> bool:
    """Tell whether a version is the one to be created.

    Raises:
        ServiceUnavailable: it is, in another folder.
    """
    if version.tags.get(keys.IDENTITY) != identity:
        return False
    if datastore_path(version.path) == datastore_path(path):
        return True
    if is_ours(version):
        # Created by an earlier attempt, and visible only now. The next attempt continues in that folder.
        raise ServiceUnavailable(
            f"version {version.number} of {version.model} appeared in another folder", azure_errors.AGAIN
        )
    return False


def _was_deleted(error: MirrorError) -> bool:
    """Tell whether a number is spent: a deleted version cannot be created again (azureml-assets#3530)."""
    return "cannot be recreated" in str(error.__cause__)
