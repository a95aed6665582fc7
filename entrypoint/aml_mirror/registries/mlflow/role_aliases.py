"""The aliases ``final`` and ``best`` of a model: its newest complete version of each role.

A version is ``final`` where its checkpoint is the end of a training, ``best`` where the training kept it for
its score. Newest is the highest number: of two mirrors at once, the version with the higher number has the
alias in the end, and an alias never moves to a lower number. It is set before the version is marked complete,
so that a mirror that is killed in between is taken up and sets it. It is looked at once more after, since
another may have set it meanwhile.

Servers before MLflow 2.3 have no aliases. No other alias is touched: stages are aliases as well.
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
    registry: where the model is.
    version: that is being finished.
    role: of its checkpoint.
    """

    def __init__(self, registry: MlflowRegistry, version: Version, role: str) -> None:
        self._registry = registry
        self._version = version
        self._role = role if role in ROLES else ""

    def before_completion(self) -> None:
        """Give the alias to the version, unless a newer one has it."""
        if self._role:
            self._raise_to(int(self._version.number))

    def after_completion(self) -> None:
        """Give the alias to the newest complete version, unless it has it. Never raises."""
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
            # The version is whole without it.
            _log.debug("the alias %s was not set: %s", role, error)
