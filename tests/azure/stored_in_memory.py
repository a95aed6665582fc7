"""A version of an Azure ML model in memory: its blobs, its list, its own files."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

from aml_mirror.core.errors import MirrorError
from aml_mirror.core.manifest import Manifest, StoredFile, TransferResult, identity
from aml_mirror.registries import keys, records
from aml_mirror.registries.azureml import version_tags
from aml_mirror.registries.azureml.reader import AzureMLVersionReader
from aml_mirror.registries.azureml.version_files import VersionFiles
from aml_mirror.registries.azureml.version_folder import folder_of
from aml_mirror.registries.records import Version
from aml_mirror.support.retry import Retry
from builders.blobs import Blobs
from builders.stored_version import entry, sha256

WEIGHTS, CONFIG, CARD, LOG = b"weights" * 9, b"{}", b"# card", b"event" * 7
STATE = b'{"files": []}'
ITEMS = (entry("config.json", CONFIG, sha256(CONFIG)), entry("w", WEIGHTS, sha256(WEIGHTS)))
MANIFEST = Manifest(ITEMS)
TAGS = {
    keys.RUN_ID: "run-1",
    keys.CHECKPOINT: "c",
    keys.MANIFEST_SHA256: MANIFEST.sha256,
    keys.IDENTITY: identity("run-1", "c", MANIFEST.sha256),
    keys.MODEL_NAME: "m",
    keys.STATE: keys.COMPLETE,
    keys.MLFLOW_RUN_ID: "r",
    keys.LOGS: f"3:{sha256(STATE)}:x",
}
FOLDER = folder_of(TAGS)
OWN = f"{FOLDER.own}/"


def translate(error: Exception) -> MirrorError:
    return error if isinstance(error, MirrorError) else MirrorError(str(error))


RETRY = Retry(0, translate, lambda text: None)


class Stored:
    """A version whose files are all as they were mirrored."""

    def __init__(self) -> None:
        self.blobs = Blobs()
        self.files = VersionFiles(self.blobs, FOLDER, RETRY)  # type: ignore[arg-type]
        for item, data in zip(ITEMS, (CONFIG, WEIGHTS), strict=True):
            etag = self.blobs.put(f"{FOLDER.bytes}/{item.path}", data)
            self.files.list.files[item.path] = StoredFile(item.bytes, etag, item.sha256)
        self.texts = {"MODEL_CARD.md": CARD.decode(), "manifest.json": MANIFEST.as_json()}
        for name, text in self.texts.items():
            self.files.put(name, text.encode())
            self.files.list.own[name] = sha256(text.encode())
        self.files.put_log("tensorboard/events", "logs/events", len(LOG), lambda: io.BytesIO(LOG))
        self.files.put_beside(records.log_state_name(sha256(STATE)), STATE)
        self.tags = dict(TAGS)
        self.files.save(lambda digest: self.tags.update({version_tags.STORED_SHA256: digest}), self.texts)
        self.blobs.written.clear()

    @property
    def version(self) -> Version:
        return Version("m", "1", self.tags, f"azureml://datastores/own/paths/{FOLDER.bytes}")

    @property
    def workspace(self) -> Any:
        def tag(version: Version, tags: dict[str, str], require_allowed: Any) -> None:
            require_allowed()
            self.tags.update(tags)

        return SimpleNamespace(
            azure=SimpleNamespace(
                container_of=lambda name: self.blobs, datastore=SimpleNamespace(name="own")
            ),
            retry=RETRY,
            models=SimpleNamespace(tag=tag),
            transfer=lambda container: SimpleNamespace(put=self.bring),
        )

    def bring(self, tree: Any, items: Any, folder: str, progress: Any, *, known: Any, **more: Any) -> Any:
        """Stands in for the transfer, which has its own tests: store what is not known to be right."""
        for item in items:
            if item.path not in known:
                etag = self.blobs.put(f"{folder}/{item.path}", tree[item.path])
                known[item.path] = StoredFile(item.bytes, etag, item.sha256)
        return TransferResult(stored=known)

    def reader(self) -> AzureMLVersionReader:
        return AzureMLVersionReader(self.workspace, self.version)

    def name(self, path: str) -> str:
        """The name of a file of the manifest, or of an own one."""
        return f"{FOLDER.bytes if path in ('w', 'config.json') else FOLDER.own}/{path}"

    def problems(self) -> list[str]:
        wrong, missing = self.reader().own_problems()
        return [f"wrong {path}" for path, _ in wrong] + [f"missing {path}" for path in missing]
