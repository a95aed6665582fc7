"""Versions of a model in an Azure ML workspace, with numbers that this program chooses.

A version is made with a PUT of a fixed number, so that a request whose answer was lost is simply repeated.
Two mirrors may choose one number: the service refuses to change the path or a property of a version that
exists, and whoever reads back another identity than its own takes the next number.

What must never change about a version stands in its properties; what people and time may change, in tags.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from azure.ai.ml.constants import AssetTypes, ListViewType
from azure.ai.ml.entities import Model
from azure.ai.ml.exceptions import ValidationException
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from aml_mirror.core.errors import MirrorError, ServiceUnavailable
from aml_mirror.registries import base
from aml_mirror.registries.azureml.limits import DESCRIPTION, LIMITS, cut
from aml_mirror.registries.azureml.version_tags import version_of
from aml_mirror.registries.base import Version
from aml_mirror.storage import azure_errors as azure_errors
from aml_mirror.support.retry import Retry

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

PROPERTIES = (
    base.RUN_ID, base.SOURCE, base.FRAMEWORK, base.CHECKPOINT, base.STEP, base.MLFLOW_RUN_ID,
    base.MANIFEST_SHA256, base.INTEGRITY, base.SAFETY, base.SAFETY_SCANNER, base.IDENTITY,
    base.OUTPUT_DIR, base.REPLAY, base.REPLAY_SOURCE,
)  # fmt: skip
# As many mirrors may take a number before us in a row; more is a fault.
TRIES = 50


class Models:
    """The models of one workspace."""

    def __init__(self, client: Callable[[], MLClient], retry: Retry, shown: str) -> None:
        self._client = client
        self._retry = retry
        self._shown = shown

    def get(self, model: str, number: str) -> Version | None:
        """Return a version, or None where there is none with this number."""
        found = self._get(model, number)
        return None if found is None else _version(model, found)

    def path_of(self, version: Version) -> str:
        """Return the ``azureml://`` path of a version's files.

        Raises:
            ServiceUnavailable: it is gone.
        """
        found = self._get(version.model, version.number)
        if found is None:
            raise ServiceUnavailable(
                f"version {version.number} of {version.model} is gone", azure_errors.AGAIN
            )
        return str(found.path or "")

    def of_run(self, model: str, run_id: str) -> list[Version]:
        """Return the versions that were mirrored from a run, by number: all versions are looked at."""
        return [item for item in self._all(model) if item.tags.get(base.RUN_ID) == run_id]

    def with_identity(self, model: str, identity: str) -> Version | None:
        """Return the version with an identity, or None: all versions are looked at."""
        return next((item for item in self._all(model) if item.tags.get(base.IDENTITY) == identity), None)

    def each(self, model: str, take: Callable[[Version], None]) -> None:
        """Hand over all versions of a model; twice, where the list had to be begun again."""

        def read() -> None:
            try:
                for item in self._client().models.list(model, list_view_type=ListViewType.ALL):
                    take(_version(model, item))
            except ResourceNotFoundError as error:
                _absent(error)

        self._retry(read)

    def register(
        self,
        model: str,
        path: str,
        description: str,
        properties: dict[str, str],
        tags: dict[str, str],
        intended: str | None,
        intend: Callable[[str], None],
    ) -> Version:
        """Make a version, or find the one that an earlier try made.

        Args:
            model: its model.
            path: the ``azureml://`` path of its files.
            description: in Markdown; cut where it is too long.
            properties: never to change; with the identity among them.
            tags: for people.
            intended: the number that an earlier try meant to take.
            intend: told the number before it is taken, so that a killed try can find its version again.

        Raises:
            NotAllowed, ConfigurationError: the service refuses.
            ServiceUnavailable: it fails for now.
        """
        identity = properties[base.IDENTITY]
        number = intended
        taken = 0
        for _ in range(TRIES):
            if number is None:
                number = str(self._next(model, taken))
                intend(number)
            # Also for a number that should be free: a list may not show yet what was made a moment ago, and
            # that a PUT never changes a version that is there is not documented.
            found = self.get(model, number)
            if found is not None and found.tags.get(base.IDENTITY) == identity:
                return found
            if found is not None:
                number, taken = None, _number(number)
                continue
            made = Model(
                name=model,
                version=number,
                type=AssetTypes.CUSTOM_MODEL,
                path=path,
                description=cut(description, DESCRIPTION, "the whole is the run's MODEL_CARD.md"),
                properties={name: cut(text, LIMITS.tag_value) for name, text in properties.items()},
                tags={**tags, base.STATE: base.INCOMPLETE},
            )
            refusal: MirrorError | None = None
            try:
                self._retry(lambda: self._client().models.create_or_update(made))  # noqa: B023
            except MirrorError as error:
                if azure_errors.status_of(error.__cause__) not in (400, 409, 412) and not _is_taken(error):
                    raise
                refusal = error
            found = self.get(model, number) if refusal else self._made(model, number)
            if found is not None and found.tags.get(base.IDENTITY) == identity:
                return found
            if found is None and refusal is not None and _was_deleted(refusal):
                number = str(_number(number) + 1)
                intend(number)
                continue
            if found is None and refusal is not None:
                # Refused, and not because another has the number.
                raise refusal
            number, taken = None, _number(number)
        raise ServiceUnavailable(
            f"{TRIES} version numbers of {model} were taken by others in a row", azure_errors.AGAIN
        )

    def tag(self, version: Version, tags: dict[str, str]) -> None:
        """Write tags of a version; those that others wrote stay."""
        found = self._get(version.model, version.number)
        if found is None:
            raise ServiceUnavailable(
                f"version {version.number} of {version.model} is gone", azure_errors.AGAIN
            )
        if all((found.tags or {}).get(name) == text for name, text in tags.items()):
            return
        found.tags = {**(found.tags or {}), **tags}
        self._retry(lambda: self._client().models.create_or_update(found))

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

    def _get(self, model: str, number: str) -> Model | None:
        def get() -> Model | None:
            try:
                found: Model = self._client().models.get(model, number)
            except ResourceNotFoundError as error:
                _absent(error)
                return None
            return found

        return self._retry(get)

    def _next(self, model: str, taken: int) -> int:
        """The number after the newest version's.

        Args:
            taken: a number that is known to be taken; 0: none is. Then the highest one counts, archived or
                not, and this one at least: a list may not show yet what was made some seconds ago
                (azure-sdk-for-python#28328).
        """

        def newest() -> int | None:
            try:
                return _number(self._client().models.get(model, label="latest").version)
            except ResourceNotFoundError as error:
                _absent(error)
                return 0
            except ValidationException:
                # azure-ai-ml's word for a list without versions: perhaps all of them are archived.
                return None

        latest = None if taken else self._retry(newest)
        if latest is None:
            latest = max((_number(item.number) for item in self._all(model)), default=0)
        return max(latest, taken) + 1

    def _all(self, model: str) -> list[Version]:
        found: dict[str, Version] = {}
        self.each(model, lambda version: found.update({version.number: version}))
        return sorted(found.values(), key=lambda item: _number(item.number))


def _absent(error: HttpResponseError) -> None:
    """Let a 404 mean 'no such version', unless it is the workspace or what holds it that is not there."""
    code = azure_errors.code_of(error)
    # ARM names what is not there by its type and name, up to the closing quote.
    workspace = re.search(r"workspaces/[^/']+'", str(error), re.IGNORECASE)
    if code in ("ResourceGroupNotFound", "SubscriptionNotFound") or (
        code == "ResourceNotFound" and workspace
    ):
        raise error


def _is_taken(error: MirrorError) -> bool:
    # azure-ai-ml turns the service's refusal into an exception of its own.
    return "cannot be overwritten" in error.message or "cannot be updated" in error.message


def _was_deleted(error: MirrorError) -> bool:
    """Whether a number is spent: a version that was deleted cannot be made again (azureml-assets#3530)."""
    return "cannot be recreated" in str(error.__cause__)


def _version(model: str, found: Model) -> Version:
    return version_of(model, found.version, found.tags, found.properties)


def _number(text: object) -> int:
    """A version as a number; names that people gave instead of numbers count as none."""
    return int(str(text)) if str(text).isdecimal() else 0
