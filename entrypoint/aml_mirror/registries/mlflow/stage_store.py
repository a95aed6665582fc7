"""The stages of a model on an MLflow server: see :class:`aml_mirror.registries.stages.StageStore`.

A stage is an alias of the model, which the server moves from one version to another in one request. The
journal is in tags of the model, ``mirror.journal.<stage>.000001``. Anyone who may write to the server can
change them. MLflow's own stages are not used: they are deprecated since 2.9, and several versions can have
the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from aml_mirror.core.errors import ConfigurationError, MirrorError, ServiceUnavailable
from aml_mirror.registries.keys import STAGE
from aml_mirror.registries.mlflow.model_lock import ModelLock
from aml_mirror.registries.mlflow_errors import is_missing
from aml_mirror.registries.records import Version
from aml_mirror.registries.stages import (
    Holder,
    StageEntry,
    parse_entry,
    parse_mark,
    tags_with,
    tags_without,
)

if TYPE_CHECKING:
    from mlflow.entities.model_registry import RegisteredModel

    from aml_mirror.registries.mlflow.tracking_server import MlflowRegistry

PREFIX = "mirror.journal."


class MlflowStageStore:
    """Args:
    registry, model: whose stages.
    """

    def __init__(self, registry: MlflowRegistry, model: str, notice: Callable[[str], None]) -> None:
        self._registry = registry
        self._client = registry.client
        self._retry = registry.retry
        self._model = model
        self._notice = notice

    def lock(self) -> AbstractContextManager[Callable[[], None]]:
        return ModelLock(self._client, self._model, self._retry, self._notice).held()

    def holder(self, stage: str) -> Holder | None:
        found = self._registered()
        number = found.aliases.get(stage) if found else None
        version = self._registry.find_version(self._model, str(number)) if number else None
        if version is None:
            return None
        sequence, digest = parse_mark(version.tags, stage)
        entry = parse_entry(found.tags.get(self._key(stage, sequence), "")) if found else None
        # An alias that somebody moved by hand counts, but has no entry.
        return Holder(version, sequence if entry is not None and entry.digest == digest else 0)

    def journal(self) -> list[StageEntry]:
        found = self._registered()
        tags = found.tags if found else {}
        entries = (parse_entry(tags[key]) for key in sorted(tags) if key.startswith(PREFIX))
        return [entry for entry in entries if entry is not None]

    def append(self, entry: StageEntry) -> None:
        key, text = self._key(entry.stage, entry.sequence), entry.as_json()
        found = self._registered()
        there = found.tags.get(key) if found else None
        if there not in (None, text):
            raise ServiceUnavailable(
                f"another process changed the stages of {self._model}", "run the same command again"
            )
        self._retry(lambda: self._client.set_registered_model_tag(self._model, key, text))

    def move(self, entry: StageEntry, to: Version | None, require_allowed: Callable[[], None]) -> None:
        stage, tags = entry.stage, {}
        if to is not None:
            tags = tags_with(to.tags, entry)
            # First the entry, then the alias: so the alias's version can always name its entry.
            self._tag(to, {key: text for key, text in tags.items() if key != STAGE}, require_allowed)
            require_allowed()
            try:
                self._retry(lambda: self._client.set_registered_model_alias(self._model, stage, to.number))
            except MirrorError as error:
                if is_missing(error.__cause__) or "alias" in error.message:
                    raise ConfigurationError(
                        f"the server does not support aliases of models: {error.message}",
                        "stages need MLflow 2.3 or newer",
                    ) from error
                raise
            self._tag(to, tags, require_allowed)
        else:
            require_allowed()
            self._retry(lambda: self._client.delete_registered_model_alias(self._model, stage))
        for other in self._marked(stage):
            if to is None or other.number != to.number:
                written, removed = tags_without(other.tags, stage)
                self._tag(other, written, require_allowed)
                for key in removed:
                    require_allowed()
                    self._retry(
                        lambda other=other, key=key: self._client.delete_model_version_tag(  # type: ignore[misc]
                            other.model, other.number, key
                        )
                    )

    def _marked(self, stage: str) -> list[Version]:
        """Return the versions of the last entries that have a tag of a stage."""
        numbers: dict[str, None] = {}
        for entry in [one for one in self.journal() if one.stage == stage][-20:]:
            numbers.update(dict.fromkeys(one for one in (entry.version, entry.previous) if one))
        found = (self._registry.find_version(self._model, number) for number in numbers)
        return [
            version for version in found if version is not None and any(tags_without(version.tags, stage))
        ]

    def _tag(self, version: Version, tags: dict[str, str], require_allowed: Callable[[], None]) -> None:
        require_allowed()
        self._registry.annotate(version, tags)

    def _registered(self) -> RegisteredModel | None:
        try:
            return self._retry(lambda: self._client.get_registered_model(self._model))
        except MirrorError as error:
            if is_missing(error.__cause__):
                return None
            raise

    def _key(self, stage: str, sequence: int) -> str:
        return f"{PREFIX}{stage}.{sequence:06d}"
