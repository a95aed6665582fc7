"""Looks into an Azure ML workspace before the clients of Azure ML and MLflow are loaded.

Mirroring a run that is already mirrored only reads: the workspace, the experiment, its runs, the version.
Loading the clients would take longer than all of that. Here these four requests are sent with azure-core
alone. They can only say *yes*: a finished run of this model names an existing, complete version of this run.
Any other answer, and any error, counts as no answer. Then the clients are loaded and ask the same, with their
retries and our error messages.

Both read the same data and apply the same rules (:mod:`.marks`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from azure.core import PipelineClient
from azure.core.pipeline import policies
from azure.core.rest import HttpRequest

from aml_mirror.registries import keys
from aml_mirror.registries.azureml import version_tags
from aml_mirror.registries.azureml.coordinates import Coordinates
from aml_mirror.registries.azureml.limits import LIMITS, check_names, tag_filter
from aml_mirror.registries.pages import Pages, studio_pages
from aml_mirror.registries.records import Version, model_uri
from aml_mirror.registries.run_times import mirrored_at
from aml_mirror.storage import azure_errors
from aml_mirror.storage.azure_cloud import resource_manager
from aml_mirror.storage.azure_login import credential

if TYPE_CHECKING:
    from aml_mirror.core.manifest import Manifest, TransferResult
    from aml_mirror.registries.azureml.workspace import AzureMLRegistry
    from aml_mirror.registries.base import LogWriter, Reading, Sharing, StateStore, VersionReader, Writer
    from aml_mirror.registries.leftovers import Leftovers
    from aml_mirror.registries.records import FileDigest, Point
    from aml_mirror.registries.stages import StageStore
    from aml_mirror.sources.base import Source
    from aml_mirror.sources.tree import Tree

_log = logging.getLogger(__name__)

# Those of azure-ai-ml 1.35.2 for workspaces and for versions of models.
_WORKSPACE_API = "2024-10-01-preview"
_MODEL_API = "2023-08-01-preview"
# One attempt without retries. The clients retry.
_ONCE: dict[str, Any] = {"retry_total": 0, "connection_timeout": 10, "read_timeout": 20}  # seconds
_MOST_RUNS = 100


class FastLookup:
    """Only looks up versions. The real workspace does everything else. See
    :class:`aml_mirror.registries.base.Registry`.

    Args:
        coordinates: the coordinates of the workspace.
        load: loads the clients and returns the real workspace.
    """

    limits = LIMITS

    def __init__(self, coordinates: Coordinates, load: Callable[[], AzureMLRegistry]) -> None:
        self.description = coordinates.description
        self._scope = coordinates.scope
        self._load = load
        self._loaded = False
        # Name -> id of experiments that were already looked up.
        self._experiments: dict[str, str] = {}

    @cached_property
    def _proper(self) -> AzureMLRegistry:
        self._loaded = True
        workspace = self._load()
        workspace.experiments.update(self._experiments)
        return workspace

    def versions(self, experiment: str, model: str, run_id: str) -> list[Version]:
        check_names(model, experiment)
        if not self._loaded:
            try:
                if found := self._look(experiment, model, run_id):
                    return found
            except Exception as error:
                if azure_errors.is_private_link(error):
                    # MLflow's client would send it seven more times, and lose what the answer says.
                    raise azure_errors.translate(error, self.description) from error
                _log.debug("the fast lookup gave no answer: %s", type(error).__name__)
        return self._proper.versions(experiment, model, run_id)

    def pages(self, model: str, number: str, run_id: str) -> Pages:
        return studio_pages(resource_manager(), self._scope, model, number, run_id)

    def uri(self, version: Version) -> str:
        return model_uri(version)

    def find_version(self, model: str, number: str) -> Version | None:
        return self._proper.find_version(model, number)

    def version_reader(self, version: Version) -> VersionReader:
        return self._proper.version_reader(version)

    def each_version(self, experiment: str, model: str, take: Callable[[Version], None]) -> None:
        self._proper.each_version(experiment, model, take)

    def model_names(self) -> Iterator[str]:
        return self._proper.model_names()

    def state_store(self, experiment: str, name: str) -> StateStore:
        return self._proper.state_store(experiment, name)

    def be_patient_for(self, seconds: float) -> None:
        self._proper.be_patient_for(seconds)

    def refresh(self, version: Version, quick_key: str) -> None:
        self._proper.refresh(version, quick_key)

    def annotate(self, version: Version, tags: dict[str, str]) -> None:
        self._proper.annotate(version, tags)

    def begin(self, experiment: str, run_name: str, tags: dict[str, str]) -> Writer | Version:
        return self._proper.begin(experiment, run_name, tags)

    def continue_logs(self, version: Version) -> LogWriter | None:
        return self._proper.continue_logs(version)

    def repair(
        self,
        version: Version,
        tree: Tree,
        manifest: Manifest,
        right: Mapping[str, FileDigest],
        progress: Callable[[int], None],
    ) -> TransferResult:
        return self._proper.repair(version, tree, manifest, right, progress)

    def attach(
        self, version: Version, name: str, text: str, points: Sequence[Point], tags: dict[str, str]
    ) -> list[str]:
        return self._proper.attach(version, name, text, points, tags)

    def stages(self, model: str) -> StageStore | None:
        return self._proper.stages(model)

    def sharing(self, name: str) -> Sharing | None:
        return self._proper.sharing(name)

    def leftovers(self) -> Leftovers | None:
        return self._proper.leftovers()

    def user(self) -> str:
        return self._proper.user()

    def read_once(self, source: Source, model: str, quick_key: str, size: int) -> Reading | None:
        return self._proper.read_once(source, model, quick_key, size)

    def unfinished(self, experiment: str, run_id: str) -> Iterable[dict[str, str]]:
        return self._proper.unfinished(experiment, run_id)

    def _look(self, experiment: str, model: str, run_id: str) -> list[Version]:
        """The versions that finished runs of the experiment name; empty: no answer."""
        where = tag_filter(keys.RUN_ID, run_id)
        if not where:
            return []
        name = quote(experiment, safe="")
        found = self._mlflow("GET", f"experiments/get-by-name?experiment_name={name}")["experiment"]
        if found.get("lifecycle_stage") == "deleted":
            return []
        self._experiments[experiment] = str(found["experiment_id"])
        search = {"experiment_ids": [found["experiment_id"]], "filter": where, "max_results": _MOST_RUNS}
        page = self._mlflow("POST", "runs/search", {**search, "run_view_type": "ACTIVE_ONLY"})
        if page.get("next_page_token"):
            return []
        versions: list[Version] = []
        for run in sorted(page.get("runs", ()), key=_age):
            tags = _tags(run)
            ours = tags.get(keys.RUN_ID) == run_id and tags.get(keys.MODEL_NAME) == model
            if not ours or not version_tags.names_version(tags):
                continue
            version = version_tags.named_by(tags, self._version(model, tags[version_tags.VERSION]))
            if version is None or not version.complete:
                return []
            versions.append(version)
        return versions

    def _version(self, model: str, number: str) -> Version:
        path = f"{self._scope}/models/{quote(model, safe='')}/versions/{quote(number, safe='')}"
        found = self._call("GET", f"{resource_manager()}{path}?api-version={_MODEL_API}")["properties"]
        return version_tags.version_of(
            model,
            number,
            found.get("tags"),
            found.get("properties"),
            found.get("modelUri"),
            bool(found.get("isArchived")),
        )

    def _mlflow(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._call(method, f"{self._mlflow_url}/{path}", body)

    @cached_property
    def _mlflow_url(self) -> str:
        """The workspace's MLflow REST API, version 2.0, as the MLflow plugin uses it under MLflow 3."""
        workspace = self._call("GET", f"{resource_manager()}{self._scope}?api-version={_WORKSPACE_API}")
        host = urlsplit(workspace["properties"]["mlFlowTrackingUri"]).netloc
        return f"https://{host}/mlflow/v2.0{self._scope}/api/2.0/mlflow"

    def _call(self, method: str, url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        response = self._client.send_request(
            HttpRequest(method, url, headers={"Accept": "application/json"}, json=body)
        )
        response.raise_for_status()
        found = response.json()
        return found if isinstance(found, dict) else {}

    @cached_property
    def _client(self) -> PipelineClient[HttpRequest, Any]:
        manager = resource_manager()
        return PipelineClient(
            manager,
            policies=[
                policies.RequestIdPolicy(),
                policies.HeadersPolicy(),
                policies.UserAgentPolicy("aml-mirror"),
                policies.RetryPolicy(**_ONCE),
                policies.BearerTokenCredentialPolicy(credential(), f"{manager}/.default"),
            ],
            **_ONCE,
        )


def _age(run: dict[str, Any]) -> tuple[int, str]:
    info = run["info"]
    return mirrored_at(_tags(run), info.get("start_time")), str(info["run_id"])


def _tags(run: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["data"].get("tags", ())}
