"""The aliases ``final`` and ``best`` of a model: its newest complete version of each role.

A version is ``final`` if its checkpoint is the end of a training, and ``best`` if the training kept it for
its score. The newest version is the one with the highest number. If two mirrors run at once, the version with
the higher number gets the alias in the end, and an alias never moves to a lower number. The alias is set
before the version is marked complete, so that the next attempt sets it if a mirror is killed in between.
Afterwards it is checked again, because another mirror may have set it meanwhile.

Servers before MLflow 2.3 have no aliases. Other aliases are not changed, because stages are aliases, too.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aml_mirror.core.errors import MirrorError
from aml_mirror.registries import keys
from aml_mirror.registries.records import Version
from aml_mirror.registries.search_filters import quotable, quoted

if TYPE_CHECKING:
    from aml_mirror.registries.mlflow.tracking_server import MlflowRegistry

_log = logging.getLogger(__name__)

ROLES = ("final", "best")


class RoleAliases:
    """Args:
    registry: the registry of the model.
    version: the version to finish.
    role: the role of its checkpoint.
    """

    def __init__(self, registry: MlflowRegistry, version: Version, role: str) -> None:
        self._registry = registry
        self._version = version
        self._role = role if role in ROLES else ""

    def before_completion(self) -> None:
        """Set the alias to the version, unless a newer one has it."""
        if self._role:
            self._raise_to(int(self._version.number))

    def after_completion(self) -> None:
        """Set the alias to the newest complete version if it does not have it. Never raises."""
        if not self._role:
            return
        model, client = self._version.model, self._registry.client
        if not quotable(model):
            return
        where = f"name = {quoted(model)} and tags.`{keys.ROLE}` = '{self._role}'"
        where += f" and tags.`{keys.STATE}` = '{keys.COMPLETE}'"
        try:
            newest = self._registry.retry(
                lambda: client.search_model_versions(where, 1, ["version_number DESC"])
            )
        except MirrorError as error:
            _log.debug("the alias %s was not looked at again: %s", self._role, error)
            return
        for one in newest:
            self._raise_to(int(one.version))

    def _raise_to(self, number: int) -> None:
        client, model, role = self._registry.client, self._version.model, self._role
        try:
            held = self._registry.retry(lambda: client.get_registered_model(model)).aliases.get(role)
            if held is None or int(held) < number:
                self._registry.retry(lambda: client.set_registered_model_alias(model, role, str(number)))
        except (MirrorError, ValueError) as error:
            # The version is complete without it.
            _log.debug("the alias %s was not set: %s", role, error)
