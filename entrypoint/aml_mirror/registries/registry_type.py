"""Describes a kind of registry before it is opened: its names, its rules, its capabilities.

Another package adds one with an entry point in the group ``aml_mirror.registries`` that names a subclass of
:class:`RegistryType`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

from aml_mirror.core.errors import MirrorError, UsageError
from aml_mirror.core.options import Option
from aml_mirror.core.settings import Settings
from aml_mirror.registries.base import Registry
from aml_mirror.registries.names import check_names
from aml_mirror.registries.records import Limits
from aml_mirror.sources.base import Source

Check = Callable[[Settings], str]
"""One check of ``doctor``: returns its finding in one line, or raises one of our errors."""

PROBE_NAME = "aml-mirror-doctor"
"""The model and the run that ``doctor`` asks for if the person named none."""


class RegistryType(ABC):
    """One kind of registry.

    Only the checks, the probe and the result of :meth:`open` send requests.
    """

    name: str
    """One word, for error messages."""
    usage: str
    """How a person selects such a registry, for help and error messages: the flags with an example."""
    schemes: tuple[str, ...] = ()
    """The schemes of ``--tracking-uri`` for this kind. A driver may follow a ``+``."""
    limits: Limits = Limits()
    """The limits of one run and one version."""
    options: tuple[Option, ...] = ()
    """The options that this kind adds; their values are in ``Settings.extra``."""
    has_probe: bool = False
    """Whether ``doctor --probe`` can try something here."""

    def is_configured(self, settings: Settings) -> bool:
        """Tell whether the settings name such a registry without a URI."""
        return False

    def check_names(self, model: str, experiment: str) -> None:
        """Check the names of a model and an experiment by this registry's rules.

        Raises:
            UsageError: with the rule.
        """
        check_names(model, experiment)

    def check(self, settings: Settings) -> None:  # noqa: B027 - a registry may have nothing to check
        """Check everything that needs no request.

        Raises:
            ConfigurationError: the settings name a registry incompletely, or it cannot be used from here.
            UsageError: an option has no valid value.
        """

    def can_copy(self, source: Source) -> bool:
        """Tell whether the registry's storage can copy this source's files by itself.

        Then checkpoint bytes need not pass through this program, and are only hashed with ``--hash``.
        """
        return False

    @abstractmethod
    def open(self, settings: Settings, notice: Callable[[str], None]) -> Registry:
        """Return the registry that the settings name.

        Args:
            settings: of this call; they passed :meth:`check`.
            notice: called with messages for the user while waiting.

        Raises:
            MirrorError: it cannot be used.
        """

    def parse_uri(self, uri: str) -> tuple[str, str] | None:
        """Return model and version number from a version's URI in this registry's own form."""
        return None

    def checks(self, settings: Settings) -> Sequence[tuple[str, Check]]:
        """Return the checks of ``doctor``, by name, in the order in which a mirror needs them."""
        return (("workspace", self._answers),)

    def probe(self, settings: Settings) -> Iterator[tuple[str, str, MirrorError | None]]:
        """Try what only a real registry can tell. Yield a name, a sentence, and the failure or None.

        Raises:
            UsageError: there is nothing to try.
        """
        raise UsageError(
            f"there is nothing to probe in {self.name}", "leave it out, or name an Azure ML workspace"
        )

    def _answers(self, settings: Settings) -> str:
        self.check(settings)
        registry = self.open(settings, lambda text: None)
        model = settings.model_name or PROBE_NAME
        versions = registry.versions(settings.experiment or model, model, settings.run_id or PROBE_NAME)
        known = f", {len(versions)} version(s) of this run" if settings.model_name and settings.run_id else ""
        return f"{registry.description}{settings.from_where('tracking_uri')} answers{known}"
