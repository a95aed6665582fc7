"""The fixture ``here``: the clients run in this very process, in the scope of the test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from aml_mirror.storage import azure_cloud, azure_login
from azure_emulator.client import Azure


@pytest.fixture
def here(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> Iterator[Azure]:
    """Set the scope's environment, and let nothing be kept of an earlier one."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy") or "AZURE" in name]:
        if name != "AZURE_EMULATOR":
            monkeypatch.delenv(name)
    for name, value in azure.env().items():
        monkeypatch.setenv(name, value)
    azure_login.credential.cache_clear()
    azure_cloud._from_metadata.cache_clear()
    yield azure
    azure_login.credential.cache_clear()
    azure_cloud._from_metadata.cache_clear()
