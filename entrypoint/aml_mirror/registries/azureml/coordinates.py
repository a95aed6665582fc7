"""The three names that identify an Azure ML workspace."""

from __future__ import annotations

import re
from dataclasses import dataclass

from aml_mirror.core.errors import ConfigurationError
from aml_mirror.core.settings import Settings

# Variable, pattern of its value, and an example. The patterns of groups and workspaces are from Learn,
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
    """The coordinates of a workspace. All three are set and well-formed.

    Raises:
        ConfigurationError: it names each missing variable, or the malformed one.
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
        """The workspace, for messages."""
        return f"Azure ML workspace {self.workspace_name} (resource group {self.resource_group})"

    @property
    def scope(self) -> str:
        """The workspace's path in the URLs of its services."""
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.workspace_name}"
        )
