"""Any MLflow server, or a local MLflow database.

One identity has one run and one version, whatever happens on the way:

1. Look for runs with the identity. None: create one, with identity and lease in the same request, and look
   again, since a client retries a POST whose answer was lost. Of several who create one the first in turn
   goes on, and the others remove theirs (:mod:`.turn`).
2. Is its lease alive, wait; else take it over, wait a moment, read back who won.
3. Write. Parameters and artifacts are compared with what is there. Metrics go in a fixed order, and the
   number of points sent so far travels in the same request as the points.
4. Register. Of several versions with the identity, the lowest number counts; the others are removed.
5. Finish the run, then mark the version complete. Nothing reads as done before.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress

from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException

from aml_mirror.core.errors import MirrorError, ServiceUnavailable
from aml_mirror.core.manifest import Manifest, TransferResult
from aml_mirror.registries import base, http_status
from aml_mirror.registries.base import FileDigest, Limits, LogWriter, Upload, Version
from aml_mirror.registries.mlflow.bakery_lock import BakeryLock
from aml_mirror.registries.mlflow.reader import MlflowVersionReader
from aml_mirror.registries.mlflow.run_lease import Keeper
from aml_mirror.registries.mlflow_errors import error_code, is_missing, is_there_already, translate
from aml_mirror.registries.mlflow_runs import RunStore, RunWriter
from aml_mirror.registries.staging import staged
from aml_mirror.sources.tree import Tree
from aml_mirror.support import redaction
from aml_mirror.support.retry import Retry

# Versions a page; with its tags and its card a version has some 5 kB, and some times that while a page is
# taken apart.
VERSIONS_PAGE = 500
# An upload that arrives short this often in a row is a fault that trying again does not mend.
UPLOAD_TRIES = 3


class MlflowRegistry(RunStore):
    """See :class:`aml_mirror.registries.base.Registry`.

    Args:
        tracking_uri: ``http(s)://…``, ``sqlite:///…`` or any other that MLflow takes.
        retry_seconds: how long an operation may go on failing for reasons that pass.
        notice: told, in words, what the person should know while waiting.
    """

    def __init__(self, tracking_uri: str, retry_seconds: float, notice: Callable[[str], None]) -> None:
        self._uri = tracking_uri
        self._notice = notice
        self._shown = redaction.text(tracking_uri)
        super().__init__(Retry(retry_seconds, lambda error: translate(error, self._shown), notice), Limits())
        http_status.watch()
        try:
            self._client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
        except Exception as error:
            raise translate(error, self._shown) from error

    @property
    def client(self) -> MlflowClient:
        return self._client

    @property
    def description(self) -> str:
        return f"MLflow at {self._shown}"

    def versions(self, experiment: str, model: str, run_id: str) -> list[Version]:
        return self.search_versions(model, base.RUN_ID, run_id)

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
                if item.name == model and item.tags.get(key) == value
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
        return MlflowVersionReader(self.client, self._uri, self.retry, version)

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
        run_id, sent = version.tags[base.MLFLOW_RUN_ID], 0
        for item in manifest.items:
            if item.path not in right:
                folder, _, name = f"model/{item.path}".rpartition("/")
                with staged(tree, item.source, name) as path:
                    self.retry(lambda: self.client.log_artifact(run_id, path, folder))  # noqa: B023
                sent += item.bytes
            progress(item.bytes)
        with tempfile.TemporaryDirectory(prefix="aml-mirror-") as scratch:
            local = os.path.join(scratch, "manifest.json")
            with open(local, "w", encoding="utf-8") as stream:
                stream.write(manifest.as_json())
            self.retry(lambda: self.client.log_artifact(run_id, local))
        return TransferResult(sent=sent)

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

    def begin(self, experiment: str, run_name: str, tags: dict[str, str]) -> MlflowWriter | Version:
        turn = BakeryLock(self, self.experiment(experiment), tags, self._notice)
        found = turn.wait(run_name)
        if isinstance(found, Version):
            return found
        run, made = found
        return self._write(run, turn.keeper, tags, adopted=not made)

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
        match = re.match(r"sqlite:///(.+?)(\?.*)?$", self._uri)
        if not match or match[1] == ":memory:":
            return None
        folder = os.path.dirname(os.path.abspath(match[1]))
        safe = re.sub(r"[^\w.-]", "_", name)[:80]
        return os.path.join(folder, "mlartifacts", f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}")

    def _set_tag(self, run_id: str, key: str, value: str) -> None:
        self.client.set_tag(run_id, key, value)


class MlflowWriter(RunWriter):
    """See :class:`aml_mirror.registries.base.Writer`."""

    def __init__(
        self, workspace: MlflowRegistry, run: MlflowRun, keeper: Keeper, tags: dict[str, str], adopted: bool
    ) -> None:
        super().__init__(workspace, run, keeper, tags, adopted)
        self._workspace = workspace
        self._keeper = keeper

    def pin_logs(self, sizes: dict[str, int]) -> dict[str, int]:
        # The server keeps equal rows once: what a longer log gives again does no harm.
        return sizes

    def put_log_state(self, name: str, text: str) -> bool:
        return False

    def put_model(self, tree: Tree, manifest: Manifest, progress: Callable[[int], None]) -> TransferResult:
        uploads = [Upload(item.source, f"model/{item.path}", item.bytes) for item in manifest.items]
        return TransferResult(sent=self.put_files(tree, uploads, progress))

    def put_files(self, tree: Tree, uploads: list[Upload], progress: Callable[[int], None]) -> int:
        sent = 0
        there = self._listing(uploads) if self._adopted else {}
        for tries in range(UPLOAD_TRIES):
            missing = [upload for upload in uploads if there.get(upload.path, -1) != upload.bytes]
            if tries == 0:
                progress(sum(upload.bytes for upload in uploads) - sum(upload.bytes for upload in missing))
            if not missing:
                return sent
            for upload in missing:
                self._send(tree, upload)
                sent += upload.bytes
                if tries == 0:
                    progress(upload.bytes)
            there = self._listing(uploads)
        short = [upload for upload in uploads if there.get(upload.path, -1) != upload.bytes]
        if not short:
            return sent
        first = short[0]
        arrived = there.get(first.path, 0)
        raise ServiceUnavailable(
            f"{first.path} arrived with {arrived} of {first.bytes} bytes, {UPLOAD_TRIES} times",
            "look at the server's artifact store, then run again: what is there is not sent again",
        )

    def _send(self, tree: Tree, upload: Upload) -> None:
        folder, _, name = upload.path.rpartition("/")

        def send() -> None:
            with staged(tree, upload.source, name) as path:
                self._client.log_artifact(self.run_id, path, folder or None)

        self._require_claim()
        self._retry(send)

    def put_texts(self, texts: dict[str, str]) -> None:
        for path, text in texts.items():
            folder, _, name = path.rpartition("/")
            with tempfile.TemporaryDirectory(prefix="aml-mirror-") as scratch:
                local = os.path.join(scratch, name)
                with open(local, "w", encoding="utf-8") as stream:
                    stream.write(text)
                self._retry(lambda: self._client.log_artifact(self.run_id, local, folder or None))  # noqa: B023

    def _listing(self, uploads: list[Upload]) -> dict[str, int]:
        """Sizes in bytes of what the artifact store holds in the folders that the uploads go to."""
        found: dict[str, int] = {}
        for folder in sorted({upload.path.rpartition("/")[0] for upload in uploads}):
            for item in self._retry(lambda: self._client.list_artifacts(self.run_id, folder or None)):  # noqa: B023
                if not item.is_dir and item.file_size is not None:
                    found[item.path] = int(item.file_size)
        return found

    def register(self, description: str, tags: dict[str, str]) -> Version:
        self._retry(self._keeper.look)
        self._require_claim()
        model = self._tags[base.MODEL_NAME]
        identity = self._tags[base.IDENTITY]
        found = self._workspace.search_versions(model, base.IDENTITY, identity)
        if not found:
            try:
                self._retry(lambda: self._client.create_registered_model(model))
            except MirrorError as error:
                if not is_there_already(error.__cause__):
                    raise
            properties = {**tags, base.MLFLOW_RUN_ID: self.run_id, base.STATE: base.INCOMPLETE}
            self._retry(
                lambda: self._client.create_model_version(
                    model,
                    f"runs:/{self.run_id}/model",
                    self.run_id,
                    tags=properties,
                    description=description,
                    await_creation_for=0,
                )
            )
            found = self._workspace.search_versions(model, base.IDENTITY, identity)
        for other in found[1:]:
            self._workspace.discard(lambda: self._client.delete_model_version(model, other.number))  # noqa: B023
        return found[0]

    def finish(self, version: Version) -> None:
        self._require_claim()
        self._claim.stop()
        self._retry(lambda: self._client.set_tag(self.run_id, base.STATE, base.COMPLETE))
        self._retry(lambda: self._client.set_terminated(self.run_id, "FINISHED"))
        self._retry(
            lambda: self._client.set_model_version_tag(
                version.model, version.number, base.STATE, base.COMPLETE
            )
        )
        # Should somebody delete the version, the next mirror need not wait to see that nobody is there.
        with suppress(Exception):
            self._release()

    def _release(self) -> None:
        # An empty lease: the next try need not wait to see that nobody is there.
        self._client.set_tag(self.run_id, base.LEASE, "")


__all__ = ["MlflowException", "MlflowRegistry", "MlflowWriter"]
