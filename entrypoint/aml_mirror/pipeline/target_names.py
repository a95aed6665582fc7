"""The names that a mirror writes under, checked before anything is sent."""

from __future__ import annotations

from aml_mirror.core.errors import UsageError
from aml_mirror.core.settings import Settings
from aml_mirror.registries import base
from aml_mirror.registries.names import check_names
from aml_mirror.registries.registry import named_type


def checked_names(settings: Settings) -> tuple[str, str]:
    """Return the names of model and experiment, before anything is sent under them.

    Raises:
        UsageError: there is none, the registry does not take it, or a tag has a name of the mirror's own.
        ConfigurationError: the registry that is named is not known.
    """
    model = settings.require_model_name()
    experiment = settings.experiment or model
    named = named_type(settings)
    (named.check_names if named else check_names)(model, experiment)
    if taken := sorted(
        key for key in settings.tags if key in base.RESERVED or key.startswith(base.OWN_PREFIX)
    ):
        raise UsageError(f"--tag {taken[0]} is a name that the mirror itself writes", "choose another name")
    return model, experiment
