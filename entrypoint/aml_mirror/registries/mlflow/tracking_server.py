"""Any MLflow server, or a local MLflow database.

One identity has one run and one version, whatever happens on the way:

1. Look for runs with the identity. If there is none, create one, with identity and lease in the same request.
   Then look again, because a client repeats a POST whose answer was lost. If several mirrors create one, the
   first in the queue continues, and the others remove theirs (:mod:`.bakery_lock`).
2. If its lease is alive, wait. Otherwise take it over, wait a moment, and read back who won.
3. Write. Parameters and artifacts are compared with the existing ones. Metrics are sent in a fixed order, and
   the number of points sent so far is part of the same request as the points.
4. Register. If several versions have the identity, the lowest number counts; the others are removed.
5. Finish the run, then mark the version complete. Nothing appears to be complete before that.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from mlflow.entities import Run as MlflowRun
from mlflow.environment_variables import MLFLOW_TRACKING_INSECURE_TLS, MLFLOW_TRACKING_USERNAME
from urllib3.exceptions import InsecureRequestWarning

from aml_mirror.core.errors import MirrorError
from aml_mirror.core.manifest import Manifest, TransferResult
from aml_mirror.registries import http_status, keys
from aml_mirror.registries.attached_marks import mark_of
from aml_mirror.registries.base import LogWriter, StateStore
from aml_mirror.registries.mlflow.artifact_store import ArtifactStores
from aml_mirror.registries.mlflow.attachments import put_points, put_text
from aml_mirror.registries.mlflow.bakery_lock import BakeryLock
from aml_mirror.registries.mlflow.known_runs import KnownRuns
from aml_mirror.registries.mlflow.leftovers import MlflowLeftovers
from aml_mirror.registries.mlflow.log_writer import MlflowLogWriter, RunClaim, note_of
from aml_mirror.registries.mlflow.new_database import SQLITE_FILE, artifacts_beside, make_if_missing
from aml_mirror.registries.mlflow.reader import MlflowVersionReader
from aml_mirror.registries.mlflow.run_lease import Keeper
from aml_mirror.registries.mlflow.stage_store import MlflowStageStore
from aml_mirror.registries.mlflow.store_checks import StoreChecks
from aml_mirror.registries.mlflow.version_files import repair_files
from aml_mirror.registries.mlflow.version_presence import VersionPresence, incomplete
from aml_mirror.registries.mlflow.writer import MlflowWriter
from aml_mirror.registries.mlflow_errors import error_code, is_missing, translate
from aml_mirror.registries.mlflow_runs import RunStore
from aml_mirror.registries.pages import Pages, mlflow_pages
from aml_mirror.registries.records import FileDigest, Limits, Point, Version
from aml_mirror.sources.tree import Tree
from aml_mirror.support import redaction
from aml_mirror.support.retry import Retry

# Versions per page. A version takes about 5 kB with its tags and its card, and several times as much while a
# page is parsed.
VERSIONS_PAGE = 500
# Models per page; servers accept up to 1,000.
MODELS_PAGE = 500
# MLflow accepts 1,000 entities in one batch, 100 of them parameters or tags (mlflow/utils/validation.py, the
# same from 2.9 to 3.15). One tag, the mark of how far the run is, is sent with each batch of points.
LIMITS = Limits(batch=999)
# Up to this many runs are requested one by one. For more, the experiment and a page of its runs cost less.
FEW = 2
# The state of a version whose run was removed for good, and whose checkpoint was mirrored again.
REPLACED = "replaced"


class MlflowRegistry(RunStore):
    """See :class:`aml_mirror.registries.base.Registry`.

    Args:
        tracking_uri: ``http(s)://…``, ``sqlite:///…`` or any other that MLflow accepts.
        retry_seconds: how long an operation may keep failing for temporary reasons.
        notice: called with messages for the user while waiting.
        on_this_host: whether the user states that this program runs on the server's host.
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
            # Once, instead of a warning by urllib3 for every request.
            warnings.simplefilter("ignore", InsecureRequestWarning)
            notice(f"MLFLOW_TRACKING_INSECURE_TLS is set: the certificate of {self._shown} is not checked")
        try:
            if (file := SQLITE_FILE.fullmatch(tracking_uri)) and file[1] != ":memory:":
                make_if_missing(tracking_uri, file[1])
            self._client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
        except Exception as error:
            raise translate(error, self._shown) from error
        self.stores = ArtifactStores(self._client, tracking_uri, on_this_host, self.retry)
        self.store_checks = StoreChecks(self, tracking_uri)
        self.presence = VersionPresence(self._client, self.retry, self.stores, notice)

    @property
    def client(self) -> MlflowClient:
        return self._client

    @property
    def description(self) -> str:
        return f"MLflow at {self._shown}"

    def pages(self, model: str, number: str, run_id: str) -> Pages:
        experiment = self.presence.experiments.get(run_id, "")
        return mlflow_pages(self._uri, experiment, model, number, run_id)

    def versions(self, experiment: str, model: str, run_id: str) -> list[Version]:
        versions = self.search_versions(model, keys.RUN_ID, run_id)
        runs: dict[str, MlflowRun] = {}
        if sum(version.complete for version in versions) > FEW and (
            found := self.find_experiment(experiment)
        ):
            runs = {run.info.run_id: run for run in self.each_run(found, keys.RUN_ID, run_id)}
        return [
            version
            if not version.complete
            or self.presence.is_there(version, runs.get(version.tags.get(keys.MLFLOW_RUN_ID, "")))
            # It has to be mirrored again.
            else incomplete(version)
            for version in versions
        ]

    def versions_of(self, model: str, identity: str) -> list[Version]:
        """Return the versions with this identity, after preparing what is left of each so that it can be
        continued.

        A deleted run is restored. A version whose run was removed for good is marked as replaced, one that
        lost files as incomplete.
        """
        kept = []
        for version in self.search_versions(model, keys.IDENTITY, identity):
            run = self.presence.run_of(version)
            if run is None:
                self.annotate(version, {keys.STATE: REPLACED})
                continue
            if run.info.lifecycle_stage == LifecycleStage.DELETED:
                self.retry(lambda: self.client.restore_run(version.tags[keys.MLFLOW_RUN_ID]))  # noqa: B023
            if version.complete and not self.presence.has_files(version, run):
                self.annotate(version, {keys.STATE: keys.INCOMPLETE})
                version = incomplete(version)
            kept.append(version)
        return kept

    def search_versions(self, model: str, key: str, value: str) -> list[Version]:
        """Return the versions of a model whose tag has this value, by number."""
        if "'" in value or "'" in model:
            # MLflow's filter language cannot escape a quote: read all, and compare here.
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
                and item.tags.get(keys.STATE) != REPLACED
            ]
            token = page.token
            if not token:
                return sorted(found, key=lambda item: int(item.number))

    def each_version(self, experiment: str, model: str, take: Callable[[Version], None]) -> None:
        where = f"name = '{model}'" if "'" not in model else f'name = "{model}"' if '"' not in model else ""
        runs = KnownRuns(self, self.presence, experiment, model)
        token: str | None = None
        while True:
            page = self.retry(
                # By number: otherwise a version that is written meanwhile would move others to another page.
                lambda token=token: self.client.search_model_versions(  # type: ignore[misc]
                    where, VERSIONS_PAGE, ["version_number ASC"], page_token=token
                )
            )
            for item in page:
                if item.name == model and item.tags.get(keys.RUN_ID):
                    version = Version(model, str(item.version), dict(item.tags))
                    take(version if not version.complete or runs.have(version) else incomplete(version))
            token = page.token
            if not token:
                return

    def model_names(self) -> Iterator[str]:
        token: str | None = None
        while True:
            page = self.retry(
                lambda token=token: self.client.search_registered_models(  # type: ignore[misc]
                    max_results=MODELS_PAGE, page_token=token
                )
            )
            yield from (str(item.name) for item in page)
            token = page.token
            if not token:
                return

    def state_store(self, experiment: str, name: str) -> StateStore:
        # Imported late: only a watcher and a long backfill need it.
        from aml_mirror.registries.mlflow.state_store import MlflowStateStore

        return MlflowStateStore(self, experiment, name)

    def find_version(self, model: str, number: str) -> Version | None:
        try:
            found = self.retry(lambda: self.client.get_model_version(model, number))
        except MirrorError as error:
            if is_missing(error.__cause__) or error_code(error.__cause__) == "INVALID_PARAMETER_VALUE":
                return None
            raise
        return Version(model, str(found.version), dict(found.tags))

    def version_reader(self, version: Version) -> MlflowVersionReader:
        return MlflowVersionReader(self.stores, self.retry, self.presence, version)

    def continue_logs(self, version: Version) -> LogWriter | None:
        claim = RunClaim(self, version.tags[keys.MLFLOW_RUN_ID], self._notice)
        try:
            # Its current state: the previous holder of the lease may have continued the logs.
            now = self.find_version(version.model, version.number)
            if now is not None:
                return MlflowLogWriter(self, now, claim)
        except BaseException:
            claim.close()
            raise
        claim.close()
        return None

    def repair(
        self,
        version: Version,
        tree: Tree,
        manifest: Manifest,
        right: Mapping[str, FileDigest],
        progress: Callable[[int], None],
    ) -> TransferResult:
        claim = RunClaim(self, version.tags[keys.MLFLOW_RUN_ID], self._notice)
        try:
            return repair_files(self, version, tree, manifest, right, progress, claim.require_now)
        finally:
            claim.close()

    def refresh(self, version: Version, quick_key: str) -> None:
        self.retry(
            lambda: self.client.set_model_version_tag(
                version.model, version.number, keys.QUICK_KEY, quick_key
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
        # A run that somebody deleted is restored here, and then found by its identity.
        self.versions_of(tags[keys.MODEL_NAME], tags[keys.IDENTITY])
        turn = BakeryLock(self, self.store_checks.usable_experiment(experiment), tags, self._notice)
        found = turn.wait(run_name)
        if isinstance(found, Version):
            return found
        run, made = found
        return self._write(run, turn.keeper, tags, adopted=not made)

    def _write(self, run: MlflowRun, keeper: Keeper, tags: dict[str, str], adopted: bool) -> MlflowWriter:
        run_id = run.info.run_id
        self.presence.experiments[run_id] = str(run.info.experiment_id)
        if adopted:
            # What the earlier attempt wrote stays. What changed since (the quick key, the folder) is
            # overwritten, and the run is reopened.
            mine = (keys.LEASE, keys.STATE)
            self.update_tags(run, {key: value for key, value in tags.items() if key not in mine})
            if run.info.status != "RUNNING":
                self.retry(lambda: self.client.update_run(run_id, "RUNNING"))
        keeper.start(*note_of(self.client, run_id))
        return MlflowWriter(self, run, keeper, tags, adopted)

    def artifact_location(self, name: str) -> str | None:
        """Return a folder next to the database. MLflow's own default is the current directory."""
        return artifacts_beside(self._uri, name)
