"""The suite of every registry, for Azure ML. test_conformance.py runs it in a separate process.

azureml-mlflow requests the cloud's metadata when it is imported, so the emulator's environment must be set
before.
"""

from __future__ import annotations

import os
import uuid

import pytest

from aml_mirror.core.settings import Settings
from builders.registry_conformance import RegistryConformance


class TestAzureML(RegistryConformance):
    @pytest.fixture
    def target(self) -> Settings:
        return Settings(
            subscription_id=os.environ["AZURE_SUBSCRIPTION_ID"],
            resource_group=os.environ["AZURE_RESOURCE_GROUP"],
            workspace_name=os.environ["AZUREML_WORKSPACE_NAME"],
            model_name=f"conformance-{uuid.uuid4().hex[:8]}",
        )
