"""Chooses how to reach OSMO: its REST API if an address is given, else the pod's ``osmo`` program."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from aml_mirror.core.errors import ConfigurationError
from aml_mirror.core.settings import Settings
from aml_mirror.osmo.client import OsmoClient
from aml_mirror.osmo.workflow_list import WorkflowLister

if TYPE_CHECKING:
    from aml_mirror.osmo.rest_client import OsmoRestClient


class OsmoConnection(WorkflowLister, Protocol):
    """The questions to OSMO, in either way."""

    def query(self, run_id: str, patient: bool = True) -> str:
        """Return a workflow as JSON."""

    def spec(self, run_id: str) -> str:
        """Return the YAML of a workflow."""


def is_reachable(settings: Settings) -> bool:
    """Tell whether there is a way to ask OSMO; nothing is sent."""
    return bool(settings.osmo_url or OsmoClient.find())


def connect(settings: Settings, notice: Callable[[str], None]) -> OsmoClient | OsmoRestClient:
    """Return the connection to OSMO that the settings name.

    Args:
        settings: of this call.
        notice: called with messages for the user while waiting.

    Raises:
        ConfigurationError: there is none, or it cannot be used.
    """
    if settings.osmo_url:
        # Imported late: a pod has the program, and replay.py runs without installed packages.
        from aml_mirror.osmo.rest_client import OsmoRestClient

        return OsmoRestClient(settings.osmo_url, settings.osmo_token_file, settings.retry_seconds, notice)
    if program := OsmoClient.find():
        return OsmoClient(program, settings.retry_seconds, notice)
    raise ConfigurationError(
        "there is no osmo program on PATH to ask, and no address of OSMO",
        "in a pod of OSMO, PATH must contain /osmo/usr/bin; elsewhere pass --osmo-url and --osmo-token-file",
    )
