"""Whether what a version stands for is still there: its MLflow run, and the files in the run's folder.

Anybody may delete a run, or files of the artifact store, and the version remains. A look costs the run and
one list of the folder ``model``, whose entries are compared with those that were registered (:data:`FILES`).
It tells what is gone or cut; what was changed at the same size is for ``verify``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from mlflow.entities import Run as MlflowRun

from aml_mirror.core.errors import ConfigurationError, MirrorError, NotAllowed
from aml_mirror.core.manifest import Manifest
from aml_mirror.registries import keys
from aml_mirror.registries.mlflow.artifact_store import ArtifactStores
from aml_mirror.registries.mlflow_errors import error_code, is_missing
from aml_mirror.registries.records import Version
from aml_mirror.support.retry import Retry

# Tag of a version: JSON with the names and sizes in bytes of what lies directly in its folder.
FILES = "mirror.files"
# Of that tag, in characters; every server takes 5,000.
_MOST = 4000
MODEL = "model"
_FOLDER = -1  # instead of a size


class VersionPresence:
    """Looks for runs and files.

    Args:
        client, retry: of the server.
        stores: its artifact stores.
        notice: told, in words, what could not be looked at.
    """

    def __init__(
        self, client: MlflowClient, retry: Retry, stores: ArtifactStores, notice: Callable[[str], None]
    ) -> None:
        self._client = client
        self._retry = retry
        self._stores = stores
        self._notice = notice

    def run_of(self, version: Version) -> MlflowRun | None:
        """Return the run of a version, deleted or not; None where it is gone."""
        try:
            return self._retry(lambda: self._client.get_run(version.tags.get(keys.MLFLOW_RUN_ID, "")))
        except MirrorError as error:
            if is_missing(error.__cause__) or error_code(error.__cause__) == "INVALID_PARAMETER_VALUE":
                return None
            raise

    def is_there(self, version: Version, run: MlflowRun | None = None) -> bool:
        """Tell whether the run of a version is there, not deleted, and its files as they were listed.

        Args:
            run: the one of the version, where it is known already.
        """
        run = run or self.run_of(version)
        if run is None or run.info.lifecycle_stage != LifecycleStage.ACTIVE:
            return False
        return self.has_files(version, run)

    def has_files(self, version: Version, run: MlflowRun) -> bool:
        """Tell whether the files of a version are as they were listed; True if nobody may look."""
        uri = str(run.info.artifact_uri)
        try:
            found = self._stores.retry_for(uri)(lambda: self._stores.open(uri).list_artifacts(MODEL))
        except (ConfigurationError, NotAllowed) as error:
            self._notice(
                f"whether the files of version {version.number} of {version.model} are there cannot be told: "
                f"{error.message}"
            )
            return True
        there = _sizes(found)
        # A version of an earlier release has no such tag. What lies beside its files is for ``verify``.
        wanted = _wanted(version.tags.get(FILES, ""))
        return bool(there) and all(there.get(name) == size for name, size in wanted.items())

    def folders_of(self, location: str) -> set[str] | None:
        """Return the names in the folder that holds the runs of an experiment; None: it cannot be told."""
        try:
            listed = self._stores.retry_for(location)(lambda: self._stores.open(location).list_artifacts())
        except (ConfigurationError, NotAllowed):
            return None
        return {str(item.path) for item in listed if item.is_dir}


def incomplete(version: Version) -> Version:
    """Return a version that counts as one whose mirror was not finished."""
    return replace(version, tags={**version.tags, keys.STATE: keys.INCOMPLETE})


def listed_files(manifest: Manifest) -> str:
    """Return the value of :data:`FILES` for the files of a manifest."""
    entries: dict[str, int] = {}
    for item in manifest.items:
        name, slash, _ = item.path.partition("/")
        entries[name] = _FOLDER if slash else item.bytes
    kept: dict[str, int] = {}
    room = _MOST
    # The largest first: they are the weights.
    for name, size in sorted(entries.items(), key=lambda entry: (-entry[1], entry[0])):
        room -= len(json.dumps(name)) + 24
        if room < 0:
            break
        kept[name] = size
    return json.dumps(kept, separators=(",", ":"))


def _sizes(items: Iterable[Any]) -> dict[str, int]:
    # MLflow leaves a size of zero out of its answers.
    return {
        str(item.path).rpartition("/")[2]: _FOLDER if item.is_dir else int(item.file_size or 0)
        for item in items
    }


def _wanted(text: str) -> dict[str, int]:
    try:
        found = json.loads(text)
        return {str(name): int(size) for name, size in found.items()}
    except (ValueError, TypeError, AttributeError):
        return {}
