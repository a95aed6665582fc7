"""Make a version of a model under a number that this program chooses.

A version is made with a PUT of a fixed number, so that a request whose answer was lost is simply repeated.
Whether the service refuses a PUT that changes a version, ignores it or carries it out is documented
("immutable") and not recorded. So two writers must not choose one number: it is chosen and taken under a
lease on the model, and the next writer comes only when the version can be read. Whoever reads back another
identity or path than its own takes the next number. Nothing is tagged before both were compared.
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
# So many numbers in a row may be taken by others or spent; more is a fault.
TRIES = 100
# Deleted numbers are passed one by one up to here, then in growing steps: gaps do no harm.
SINGLE_STEPS = 50


class Registration:
    """Makes the versions of one workspace.

    Args:
        models: the versions that are there.
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
        """Hold the lease under which the numbers of a model's versions are taken."""
        lease = BlobLease(
            self._azure.container.get_blob_client(f"{FOLDER}/numbers/{safe_part(model)}"),
            self._retry,
            self._notice,
            f"another mirror registers a version of {model}; waiting for it",
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
            about: the description of the model, if there is none yet.

        Raises:
            NotAllowed, ConfigurationError: the service refuses.
            ServiceUnavailable: it fails for now.
        """
        if intended is not None:
            found = self._models.get(model, intended)
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
            if about:
                self._describe(model, about)
            return self._take_number(model, made, intended, intend, require_allowed)

    def _describe(self, model: str, about: str) -> None:
        """Create a model that is not there with a description: a version makes one without."""
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
            found = self._models.get(model, number)
            if found is not None and _is_same(found, identity, path):
                return found
            if found is None:
                refusal = self._put(model, number, made, require_allowed)
                found = self._models.get(model, number) if refusal else self._made(model, number)
                if refusal and found is None and made.pop("jobName", None):
                    # The link is not worth a version; whether it was the reason shows now.
                    refusal = self._put(model, number, made, require_allowed)
                    found = self._models.get(model, number) if refusal else self._made(model, number)
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
        """Return a version that the service said it made, as soon as it shows it."""

        def look() -> Version:
            found = self._models.get(model, number)
            if found is None:
                raise ServiceUnavailable(
                    f"version {number} of {model} was registered and is not there", azure_errors.AGAIN
                )
            return found

        return self._retry(look)


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
