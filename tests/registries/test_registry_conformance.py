"""The suite of every registry, for MLflow: a server and a database."""

from __future__ import annotations

import pytest

from aml_mirror.core.settings import Settings
from builders.registry_conformance import RegistryConformance


class TestMlflow(RegistryConformance):
    @pytest.fixture(params=["mlflow_url", "database"])
    def target(self, request: pytest.FixtureRequest, model_name: str) -> Settings:
        return Settings(tracking_uri=request.getfixturevalue(request.param), model_name=model_name)
