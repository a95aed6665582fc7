"""The pages about a run and a version, for people: in MLflow's UI, in Azure ML studio.

MLflow 3 (mlflow/server/js, routes): ``#/experiments/E/runs/R``, ``#/runs/R`` which leads there, and
``#/models/NAME/versions/N``. Without ``workflowType=machine_learning`` it shows its menu for generative AI.

Studio, as az ml, azureml-core and its own "copy link" write it: ``/runs/R?wsid=SCOPE&tid=TENANT`` and
``/model/NAME:N/details?wsid=…``. Its hosts are those of Learn, "Configure inbound and outbound network
traffic".
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol, runtime_checkable
from urllib.parse import quote, urlencode, urlsplit

# The address of the cloud's Resource Manager -> the studio.
STUDIO = {
    "https://management.azure.com": "https://ml.azure.com",
    "https://management.chinacloudapi.cn": "https://studio.ml.azure.cn",
    "https://management.usgovcloudapi.net": "https://ml.azure.us",
}


@dataclass(frozen=True, slots=True)
class Pages:
    """Addresses; empty: there is no such page."""

    run: str = ""
    model: str = ""
    version: str = ""
    artifact: str = ""
    """What comes before the path of an artifact of the run, for a picture on one of the pages."""


@runtime_checkable
class HasPages(Protocol):
    """A registry with pages. A registry need not be one."""

    def pages(self, model: str, number: str, run_id: str) -> Pages:
        """Return the pages of a version; nothing is sent.

        Args:
            model: its model.
            number: of the version; empty: it has none yet.
            run_id: of its MLflow run; empty: it is not known.
        """


def pages_of(registry: object, model: str, number: str, run_id: str) -> Pages:
    """Return the pages of a version; empty ones where the registry has none. See :class:`HasPages`."""
    return registry.pages(model, number, run_id) if isinstance(registry, HasPages) else Pages()


def mlflow_pages(tracking_uri: str, experiment_id: str, model: str, number: str, run_id: str) -> Pages:
    """Return pages of an MLflow server; empty ones where the URI is not that of a server.

    Args:
        tracking_uri: of the server; user name and password are left out.
        experiment_id: of the run; empty: it is not known.
        model, number, run_id: see :meth:`HasPages.pages`.
    """
    try:
        parts = urlsplit(tracking_uri)
    except ValueError:
        return Pages()
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return Pages()
    top = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}/#"
    shown = {"workflowType": "machine_learning"}
    if workspace := os.environ.get("MLFLOW_WORKSPACE"):
        shown["workspace"] = workspace
    query = urlencode(shown)
    experiment = f"/experiments/{quote(experiment_id, safe='')}" if experiment_id else ""
    named = f"{top}/models/{_part(model)}"
    return Pages(
        f"{top}{experiment}/runs/{_part(run_id)}?{query}" if run_id else "",
        f"{named}?{query}",
        f"{named}/versions/{_part(number)}?{query}" if number else "",
        # Relative to the page: a browser may reach the server under another name than this program.
        f"get-artifact?run_uuid={_part(run_id)}&path=" if run_id else "",
    )


def studio_pages(
    resource_manager: str,
    scope: str,
    model: str,
    number: str,
    run_id: str,
) -> Pages:
    """Return pages of Azure ML studio; empty ones in a cloud whose studio is not known.

    Args:
        resource_manager: the address of the cloud's Resource Manager.
        scope: the path of the workspace's resource.
        model, number, run_id: see :meth:`HasPages.pages`.
    """
    host = STUDIO.get(resource_manager)
    if host is None:
        return Pages()
    tenant = os.environ.get("AZURE_TENANT_ID", "")
    query = f"?wsid={quote(scope)}" + (f"&tid={_part(tenant)}" if tenant else "")
    return Pages(
        f"{host}/runs/{_part(run_id)}{query}" if run_id else "",
        f"{host}/model/list{query}",
        f"{host}/model/{_part(model)}:{_part(number)}/details{query}" if number else "",
    )


def _part(text: str) -> str:
    """A text as one part of an address."""
    return quote(text, safe="")
