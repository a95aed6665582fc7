"""The three names that say which Azure ML workspace is meant."""

from __future__ import annotations

import re
from dataclasses import dataclass

from aml_mirror.core.errors import ConfigurationError
from aml_mirror.core.settings import Settings

# Variable, what its value looks like, and an example. The patterns of groups and workspaces are from Learn,
# "Naming rules and restrictions for Azure resources".
_FORMS = (
    (
        "AZURE_SUBSCRIPTION_ID",
        re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"),
        "00000000-0000-0000-0000-000000000000",
    ),
    ("AZURE_RESOURCE_GROUP", re.compile(r"[-\w.()]{1,90}(?<!\.)"), "rg-robotics"),
    ("AZUREML_WORKSPACE_NAME", re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{1,32}"), "mlw-robotics"),
)


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Where a workspace is. All three are there and well-formed.

    Raises:
        ConfigurationError: naming each variable that is missing, or the one that is malformed.
    """

    subscription_id: str
    resource_group: str
    workspace_name: str

    def __post_init__(self) -> None:
        values = (self.subscription_id, self.resource_group, self.workspace_name)
        if missing := [name for (name, _, _), value in zip(_FORMS, values, strict=True) if not value]:
            raise ConfigurationError(
                f"the Azure ML workspace is not fully specified: {', '.join(missing)} not set",
                "enable the mirror in Terraform, which puts all three into the pod template, or pass "
                "--subscription-id, --resource-group and --workspace-name",
            )
        for (name, pattern, example), value in zip(_FORMS, values, strict=True):
            if not pattern.fullmatch(value):
                raise ConfigurationError(f"{name} is malformed: {value!r}", f"for example: {example}")

    @classmethod
    def of(cls, settings: Settings) -> Coordinates:
        """Return the coordinates that the settings name."""
        return cls(*settings.azure_coordinates)

    @property
    def description(self) -> str:
        """The workspace, for people."""
        return f"Azure ML workspace {self.workspace_name} (resource group {self.resource_group})"

    @property
    def scope(self) -> str:
        """The workspace in the paths of its services."""
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.workspace_name}"
        )
