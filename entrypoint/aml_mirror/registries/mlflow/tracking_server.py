"""Any MLflow server, or a local MLflow database.

One identity has one run and one version, whatever happens on the way:

1. Look for runs with the identity. None: create one, with identity and lease in the same request, and look
   again, since a client retries a POST whose answer was lost. Of several who create one the first in turn
   goes on, and the others remove theirs (:mod:`.bakery_lock`).
2. Is its lease alive, wait; else take it over, wait a moment, read back who won.
3. Write. Parameters and artifacts are compared with what is there. Metrics go in a fixed order, and the
   number of points sent so far travels in the same request as the points.
4. Register. Of several versions with the identity, the lowest number counts; the others are removed.
5. Finish the run, then mark the version complete. Nothing reads as done before.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from mlflow.entities import Run as MlflowRun
from mlflow.environment_variables import MLFLOW_TRACKING_INSECURE_TLS, MLFLOW_TRACKING_USERNAME
from urllib3.exceptions import InsecureRequestWarning

from aml_mirror.core.errors import MirrorError, NotAllowed
from aml_mirror.core.manifest import Manifest, TransferResult
from aml_mirror.registries import base, http_status
from aml_mirror.registries.attached_marks import mark_of
from aml_mirror.registries.base import FileDigest, Limits, LogWriter, Point, Version
from aml_mirror.registries.mlflow.artifact_store import ArtifactStores, is_path
from aml_mirror.registries.mlflow.attachments import put_points, put_text
from aml_mirror.registries.mlflow.bakery_lock import BakeryLock
from aml_mirror.registries.mlflow.leftovers import MlflowLeftovers
from aml_mirror.registries.mlflow.new_database import SQLITE_FILE, artifacts_beside, make_if_missing
from aml_mirror.registries.mlflow.reader import MlflowVersionReader
from aml_mirror.registries.mlflow.run_lease import Keeper
from aml_mirror.registries.mlflow.stage_store import MlflowStageStore
from aml_mirror.registries.mlflow.version_files import repair_files
from aml_mirror.registries.mlflow.writer import MlflowWriter
from aml_mirror.registries.mlflow_errors import error_code, is_missing, translate
from aml_mirror.registries.mlflow_runs import RunStore
from aml_mirror.sources.tree import Tree
from aml_mirror.support import redaction
from aml_mirror.support.retry import Retry

# Versions a page; with its tags and its card a version has some 5 kB, and some times that while a page is
# taken apart.
VERSIONS_PAGE = 500
# MLflow takes 1,000 entities in one batch, 100 of them parameters or tags (mlflow/utils/validation.py, the
# same from 2.9 to 3.15). One tag, the mark of how far the run is, goes with each batch of points.
LIMITS = Limits(batch=999)
# So many runs are asked for one by one: of more, the experiment and a page of its runs cost less.
FEW = 2
# The state of a version whose run is gone for good, and whose checkpoint was mirrored again.
REPLACED = "replaced"


class MlflowRegistry(RunStore):
    """See :class:`aml_mirror.registries.base.Registry`.

    Args:
        tracking_uri: ``http(s)://…``, ``sqlite:///…`` or any other that MLflow takes.
        retry_seconds: how long an operation may go on failing for reasons that pass.
        notice: told, in words, what the person should know while waiting.
        on_this_host: whether the person says that this program runs on the server's host.
    """

    def __init__(
        self,
        tracking_uri: str,
        retry_seconds: float,
        notice: Callable[[str], None],
        on_this_host: bool = False,
    ) -> None:
        self._uri = tracking_uri
        self._notice = notice
        self._shown = redaction.text(tracking_uri)
        super().__init__(Retry(retry_seconds, lambda error: translate(error, self._shown), notice), LIMITS)
        http_status.watch()
        if MLFLOW_TRACKING_INSECURE_TLS.get() and urlsplit(tracking_uri).scheme == "https":
            # Once, instead of a warning of urllib3's for every request.
            warnings.simplefilter("ignore", InsecureRequestWarning)
            notice(f"MLFLOW_TRACKING_INSECURE_TLS is set: the certificate of {self._shown} is not checked")
        try:
            if (file := SQLITE_FILE.fullmatch(tracking_uri)) and file[1] != ":memory:":
                make_if_missing(tracking_uri, file[1])
            self._client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
        except Exception as error:
            raise translate(error, self._shown) from error
        self.stores = ArtifactStores(self._client, tracking_uri, on_this_host, self.retry)

    @property
    def client(self) -> MlflowClient:
        return self._client

    @property
    def description(self) -> str:
        return f"MLflow at {self._shown}"

    def versions(self, experiment: str, model: str, run_id: str) -> list[Version]:
        versions = self.search_versions(model, base.RUN_ID, run_id)
        alive: set[str] = set()
        if sum(version.complete for version in versions) > FEW and (
            found := self.find_experiment(experiment)
        ):
            alive = {run.info.run_id for run in self.each_run(found, base.RUN_ID, run_id)}
        return [
            version
            if not version.complete or version.tags.get(base.MLFLOW_RUN_ID) in alive or self.has_run(version)
            # Its files go with the run: it has to be mirrored again.
            else replace(version, tags={**version.tags, base.STATE: base.INCOMPLETE})
            for version in versions
        ]

    def has_run(self, version: Version) -> bool:
        """Tell whether a version's run is there and not deleted."""
        return self._stage_of_run(version) == LifecycleStage.ACTIVE

    def _stage_of_run(self, version: Version) -> str:
        """``active``, ``deleted`` (it can be restored), or "" where the run is gone."""
        try:
            run = self.retry(lambda: self.client.get_run(version.tags.get(base.MLFLOW_RUN_ID, "")))
        except MirrorError as error:
            if is_missing(error.__cause__) or error_code(error.__cause__) == "INVALID_PARAMETER_VALUE":
                return ""
            raise
        return str(run.info.lifecycle_stage)

    def versions_of(self, model: str, identity: str) -> list[Version]:
        """Return the versions with this identity; those whose run is gone for good are marked as replaced."""
        kept = []
        for version in self.search_versions(model, base.IDENTITY, identity):
            stage = self._stage_of_run(version)
            if stage == LifecycleStage.DELETED:
                self.retry(lambda: self.client.restore_run(version.tags[base.MLFLOW_RUN_ID]))  # noqa: B023
            if stage:
                kept.append(version)
            else:
                self.annotate(version, {base.STATE: REPLACED})
        return kept

    def search_versions(self, model: str, key: str, value: str) -> list[Version]:
        """Return the versions of a model whose tag has this value, by number."""
        if "'" in value or "'" in model:
            # MLflow's filter language has no escape for a quote: read all, and compare here.
            where = f'name = "{model}"' if '"' not in model else ""
        else:
            where = f"name = '{model}' and tags.`{key}` = '{value}'"
        found: list[Version] = []
        token: str | None = None
        while True:
            page = self.retry(
                lambda token=token: self.client.search_model_versions(where, page_token=token)  # type: ignore[misc]
            )
            found += [
                Version(model, str(item.version), dict(item.tags))
                for item in page
                if item.name == model
                and item.tags.get(key) == value
                and item.tags.get(base.STATE) != REPLACED
            ]
            token = page.token
            if not token:
                return sorted(found, key=lambda item: int(item.number))

    def each_version(self, experiment: str, model: str, take: Callable[[Version], None]) -> None:
        where = f"name = '{model}'" if "'" not in model else f'name = "{model}"' if '"' not in model else ""
        token: str | None = None
        while True:
            page = self.retry(
                # By number: a version that is written meanwhile would move others to another page.
                lambda token=token: self.client.search_model_versions(  # type: ignore[misc]
                    where, VERSIONS_PAGE, ["version_number ASC"], page_token=token
                )
            )
            for item in page:
                if item.name == model and item.tags.get(base.RUN_ID):
                    take(Version(model, str(item.version), dict(item.tags)))
            token = page.token
            if not token:
                return

    def find_version(self, model: str, number: str) -> Version | None:
        try:
            found = self.retry(lambda: self.client.get_model_version(model, number))
        except MirrorError as error:
            if is_missing(error.__cause__) or error_code(error.__cause__) == "INVALID_PARAMETER_VALUE":
                return None
            raise
        return Version(model, str(found.version), dict(found.tags))

    def version_reader(self, version: Version) -> MlflowVersionReader:
        return MlflowVersionReader(self.stores, self.retry, version)

    def continue_logs(self, version: Version) -> LogWriter | None:
        return None

    def repair(
        self,
        version: Version,
        tree: Tree,
        manifest: Manifest,
        right: Mapping[str, FileDigest],
        progress: Callable[[int], None],
    ) -> TransferResult:
        return repair_files(self.client, self.stores, self.retry, version, tree, manifest, right, progress)

    def refresh(self, version: Version, quick_key: str) -> None:
        self.retry(
            lambda: self.client.set_model_version_tag(
                version.model, version.number, base.QUICK_KEY, quick_key
            )
        )

    def annotate(self, version: Version, tags: dict[str, str]) -> None:
        for key, value in tags.items():
            self.retry(
                lambda key=key, value=value: self.client.set_model_version_tag(  # type: ignore[misc]
                    version.model, version.number, key, value
                )
            )

    def attach(
        self, version: Version, name: str, text: str, points: Sequence[Point], tags: dict[str, str]
    ) -> list[str]:
        put_text(self.client, self.stores, self.retry, version, name, text)
        warnings = put_points(self.client, self.retry, version, points, mark_of(tags))
        self.annotate(version, tags)
        return warnings

    def stages(self, model: str) -> MlflowStageStore:
        return MlflowStageStore(self, model, self._notice)

    def sharing(self, name: str) -> None:
        return None

    def leftovers(self) -> MlflowLeftovers:
        return MlflowLeftovers(self)

    def user(self) -> str:
        return MLFLOW_TRACKING_USERNAME.get() or ""

    def begin(self, experiment: str, run_name: str, tags: dict[str, str]) -> MlflowWriter | Version:
        # A run that somebody deleted is restored here, and found again by its identity.
        self.versions_of(tags[base.MODEL_NAME], tags[base.IDENTITY])
        turn = BakeryLock(self, self.usable_experiment(experiment), tags, self._notice)
        found = turn.wait(run_name)
        if isinstance(found, Version):
            return found
        run, made = found
        return self._write(run, turn.keeper, tags, adopted=not made)

    def usable_experiment(self, name: str) -> str:
        """Return the id of an experiment whose files we can write; created if it is not there.

        Raises:
            ConfigurationError: the artifact store cannot be used from here; nothing was sent.
            NotAllowed: it does not let us in.
        """
        found = self.retry(lambda: self.client.get_experiment_by_name(name))
        if found is None:
            self._check_new_experiments()
        if found is None or found.lifecycle_stage == "deleted":
            experiment_id = self.experiment(name)
            found = self.retry(lambda: self.client.get_experiment(experiment_id))
        self.stores.check(str(found.artifact_location))
        return str(found.experiment_id)

    def check_store(self, experiment: str) -> str:
        """Check the artifact store without creating the experiment; return where the files go.

        Raises:
            MirrorError: see :meth:`usable_experiment`.
        """
        found = self.retry(lambda: self.client.get_experiment_by_name(experiment))
        location = str(found.artifact_location) if found else self._check_new_experiments()
        if location:
            self.stores.check(location)
        return location

    def _check_new_experiments(self) -> str:
        """Check where the server puts the files of a new experiment; return it, or "" if it is unknown.

        The server tells only of experiments that exist. The one with the id 0 is as old as the database, and
        the server may have had other options then. Where it says that we cannot write, one that is created
        and removed again decides.
        """
        if urlsplit(self._uri).scheme not in ("http", "https"):
            return ""
        try:
            location = str(self.retry(lambda: self.client.get_experiment("0")).artifact_location)
        except MirrorError as error:
            if isinstance(error, NotAllowed) or is_missing(error.__cause__):
                return ""
            raise
        if is_path(location):
            name = f"aml-mirror-probe-{uuid.uuid4().hex[:12]}"
            made = self.retry(lambda: self.client.create_experiment(name))
            location = str(self.retry(lambda: self.client.get_experiment(made)).artifact_location)
            self.discard(lambda: self.client.delete_experiment(made))
            self.stores.require_reachable(location)
            # That one's own folder is not needed.
            return ""
        return location

    def _write(self, run: MlflowRun, keeper: Keeper, tags: dict[str, str], adopted: bool) -> MlflowWriter:
        run_id = run.info.run_id
        if adopted:
            # What the earlier try wrote stays as it is; what changed since (the quick key, the folder) is
            # written over, and the run is open again.
            mine = (base.LEASE, base.STATE)
            self.update_tags(run, {key: value for key, value in tags.items() if key not in mine})
            if run.info.status != "RUNNING":
                self.retry(lambda: self.client.update_run(run_id, "RUNNING"))
        keeper.start(
            lambda: str(self.client.get_run(run_id).data.tags.get(base.LEASE, "")),
            lambda note: self._set_tag(run_id, base.LEASE, note),
        )
        return MlflowWriter(self, run, keeper, tags, adopted)

    def artifact_location(self, name: str) -> str | None:
        """Beside the database: MLflow's own default is the folder in which the program happens to run."""
        return artifacts_beside(self._uri, name)

    def _set_tag(self, run_id: str, key: str, value: str) -> None:
        self.client.set_tag(run_id, key, value)
