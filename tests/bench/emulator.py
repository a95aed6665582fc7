"""The emulated Azure of ``tests/azure``, started for a comparison and stopped after it."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from azure_emulator.__main__ import down, up
from azure_emulator.client import Azure, Control
from bench import environments
from bench.harness import Sample

# Requests for tokens and cloud metadata come at any time, so they are not counted.
ASIDE = re.compile(r"/metadata/endpoints|/oauth2/")


@contextmanager
def scope() -> Iterator[Azure]:
    """A separate tenant, workspace and storage account for one comparison."""
    folder = environments.scratch() / "azure"
    try:
        azure = Control(up(folder, owner=os.getpid())["url"]).new_scope(f"bench-{uuid.uuid4().hex[:8]}")
        # The measured writes come long after the prepared ones.
        azure.set_workspace(list_lag=0)
        yield azure
    finally:
        down(folder)


def environment(azure: Azure, **more: str) -> dict[str, str]:
    """The environment variables of a side that talks to the emulator."""
    return environments.environment(**azure.env(), **more)


def traffic(requests: list[dict[str, Any]]) -> dict[str, float]:
    """Count requests and bytes, without those for tokens and cloud metadata."""
    counted = [item for item in requests if not ASIDE.search(item["path"])]
    return {
        "requests": len(counted),
        "bytes sent": sum(item["bytes_in"] for item in counted),
        "bytes received": sum(item["bytes_out"] for item in counted),
    }


def with_traffic(azure: Azure, sample: Sample, work: dict[str, Any]) -> Sample:
    """The sample with the work that it did and the requests that it sent."""
    return replace(sample, work=work, facts={**sample.facts, **traffic(azure.requests())})
