"""Checks where a run should be mirrored, without a request: names, registry, signing key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aml_mirror.core.errors import UsageError
from aml_mirror.core.manifest import Manifest
from aml_mirror.core.settings import Settings
from aml_mirror.registries import keys
from aml_mirror.registries.names import check_names
from aml_mirror.registries.records import Limits
from aml_mirror.registries.registry import named_type, required_type
from aml_mirror.registries.registry_type import RegistryType
from aml_mirror.sources.base import Source

_INSTEAD = {keys.SUCCESS_THRESHOLD: "pass --success-threshold"}


@dataclass(frozen=True, slots=True)
class Destination:
    """The names and the kind of registry that a mirror writes to."""

    model_name: str
    """Empty: no model is named, which is only allowed for a plan without a registry."""
    experiment: str
    registry_type: RegistryType | None
    """None: no registry is named, which is only allowed for a plan."""
    sign: Callable[[str, Manifest], dict[str, str]] | None = None
    """Makes of a statement and a manifest the signatures, text by name; None: nothing is signed."""

    @property
    def limits(self) -> Limits | None:
        """The registry's limits; None: no registry is named."""
        return self.registry_type.limits if self.registry_type else None

    def copies(self, source: Source) -> bool:
        """Tell whether the files of a source are copied without passing through this program.

        If no registry is named, a store with ETags counts as one whose files can be copied.
        """
        return self.registry_type.can_copy(source) if self.registry_type else source.has_etags


def destination(settings: Settings) -> Destination:
    """Return the destination of a mirror, after the checks that need no request.

    Raises:
        UsageError: no model is named, the registry does not accept a name, or a tag has a name that the
            mirror uses.
        ConfigurationError: no registry is named, it is not fully specified, or the signing key is unusable.
        NotAllowed: access to the signing key is denied.
    """
    settings.require_model_name()
    names = checked_names(settings)
    registry_type = required_type(settings)
    registry_type.check(settings)
    return Destination(*names, registry_type, _signer(settings.sign_key))


def intended_destination(settings: Settings) -> Destination:
    """Like :func:`destination`, for a plan. It works without a registry, and then also without a model."""
    if named_type(settings) is not None:
        return destination(settings)
    names = checked_names(settings) if settings.model_name else ("", "")
    if not settings.model_name:
        _check_tags(settings)
    return Destination(*names, None, _signer(settings.sign_key))


def checked_names(settings: Settings) -> tuple[str, str]:
    """Return the names of model and experiment, checked by the rules of the named registry.

    Raises:
        UsageError: like :func:`destination`.
        ConfigurationError: the named registry is unknown.
    """
    model = settings.require_model_name()
    experiment = settings.experiment or model
    registry_type = named_type(settings)
    (registry_type.check_names if registry_type else check_names)(model, experiment)
    _check_tags(settings)
    return model, experiment


def _check_tags(settings: Settings) -> None:
    for name in sorted(settings.tags):
        if name in keys.RESERVED - keys.ALSO_BY_TAG or name.startswith(keys.OWN_PREFIX):
            hint = _INSTEAD.get(name, "choose another name")
            raise UsageError(f"--tag {name} is a name that the mirror itself writes", hint)
    if settings.task_name and settings.tags.get(keys.TASK, settings.task_name) != settings.task_name:
        raise UsageError(
            f"--tag task={settings.tags[keys.TASK]} and --task-name {settings.task_name} differ", "pass one"
        )


def _signer(path: str) -> Callable[[str, Manifest], dict[str, str]] | None:
    """Read the key before anything is sent."""
    if not path:
        return None
    # Imported late: nothing else here needs cryptography.
    from aml_mirror.pipeline.provenance import model_signature, signing

    key = signing.private_key(path)

    def sign(statement: str, manifest: Manifest) -> dict[str, str]:
        signed = {signing.ARTIFACT: signing.sign(statement, key)}
        if bundle := model_signature.signature(manifest, key):
            signed[model_signature.ARTIFACT] = bundle
        return signed

    return sign
