"""Checks whether a version's MLflow run and the files in the run's folder still exist.

Anybody may delete a run, or files of the artifact store, and the version remains. A check costs a request for
the run, one list of the folder ``model``, whose entries are compared with the registered ones
(:data:`FILES`), and one list of each folder below it with large files, up to :data:`MOST_FOLDERS`
(:data:`FILES_BELOW`). It detects missing and truncated files. ``verify`` detects changes without a change of
size, and small files in further folders.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from mlflow.entities import Run as MlflowRun

from aml_mirror.core.errors import ConfigurationError, MirrorError, NotAllowed
from aml_mirror.core.manifest import Manifest
from aml_mirror.registries import keys
from aml_mirror.registries.artifact_folder import entries_of
from aml_mirror.registries.mlflow.artifact_store import ArtifactStores
from aml_mirror.registries.mlflow_errors import error_code, is_missing
from aml_mirror.registries.records import Version
from aml_mirror.support.retry import Retry

# Tag of a version: JSON with the names and sizes in bytes of the entries directly in its folder.
FILES = "mirror.files"
# The same for the files in the folders below it, by folder. It is a separate tag, because an earlier release
# compares each entry of the other one with the folder ``model``.
FILES_BELOW = "mirror.files_below"
MOST_FOLDERS = 4
# The maximum length of each tag, in characters; every server accepts 5,000.
_MOST = 4000
MODEL = "model"
_FOLDER = -1  # instead of a size


class VersionPresence:
    """Looks for runs and files.

    Args:
        client, retry: of the server.
        stores: its artifact stores.
        notice: called with what could not be checked, in words.
    """

    def __init__(
        self, client: MlflowClient, retry: Retry, stores: ArtifactStores, notice: Callable[[str], None]
    ) -> None:
        self._client = client
        self._retry = retry
        self._stores = stores
        self._notice = notice
        # The experiments of runs that were requested one by one, to request their pages.
        self.experiments: dict[str, str] = {}

    def run_of(self, version: Version) -> MlflowRun | None:
        """Return the run of a version, deleted or not; None if it was removed."""
        try:
            return self._retry(lambda: self._client.get_run(version.tags.get(keys.MLFLOW_RUN_ID, "")))
        except MirrorError as error:
            if is_missing(error.__cause__) or error_code(error.__cause__) == "INVALID_PARAMETER_VALUE":
                return None
            raise

    def is_there(self, version: Version, run: MlflowRun | None = None) -> bool:
        """Tell whether the run of a version exists, is not deleted, and has the registered files.

        Args:
            run: the version's run, if it is already known.
        """
        run = run or self.run_of(version)
        if run is None or run.info.lifecycle_stage != LifecycleStage.ACTIVE:
            return False
        self.experiments[run.info.run_id] = str(run.info.experiment_id)
        return self.has_files(version, run)

    def has_files(self, version: Version, run: MlflowRun) -> bool:
        """Tell whether the files of a version are as registered; True if we may not look."""
        # A version of an earlier release has no such tags. ``verify`` checks for other files.
        wanted = _wanted(version.tags.get(FILES, ""))
        below = _wanted_below(version.tags.get(FILES_BELOW, ""))
        try:
            there = self._listed(run, MODEL)
            if not there or not _has(there, wanted):
                return False
            return all(
                _has(self._listed(run, f"{MODEL}/{folder}"), entries) for folder, entries in below.items()
            )
        except (ConfigurationError, NotAllowed) as error:
            self._notice(
                f"it is not known whether the files of version {version.number} of {version.model} exist: "
                f"{error.message}"
            )
            return True

    def _listed(self, run: MlflowRun, folder: str) -> dict[str, int]:
        uri = str(run.info.artifact_uri)
        return _sizes(self._stores.retry_for(uri)(lambda: entries_of(self._stores.open(uri), folder)))

    def folders_of(self, location: str) -> set[str] | None:
        """Return the names in the folder with the runs of an experiment; None: unknown."""
        try:
            listed = self._stores.retry_for(location)(lambda: entries_of(self._stores.open(location)))
        except (ConfigurationError, NotAllowed):
            return None
        return {str(item.path) for item in listed if item.is_dir}


def incomplete(version: Version) -> Version:
    """Return the version in the state of one whose mirror was not finished."""
    return replace(version, tags={**version.tags, keys.STATE: keys.INCOMPLETE})


def file_tags(manifest: Manifest) -> dict[str, str]:
    """Return the tags of a version that name the files of its manifest."""
    entries: dict[str, int] = {}
    below: dict[str, dict[str, int]] = {}
    # The largest first: they are the weights.
    for item in sorted(manifest.items, key=lambda item: (-item.bytes, item.path)):
        folder, _, name = item.path.rpartition("/")
        entries[item.path.partition("/")[0]] = _FOLDER if folder else item.bytes
        if folder and (folder in below or len(below) < MOST_FOLDERS):
            below.setdefault(folder, {})[name] = item.bytes
    tags = {FILES: _short(_fitting(sorted(entries.items(), key=lambda entry: (-entry[1], entry[0]))))}
    room, kept = _MOST, dict[str, dict[str, int]]()
    for folder, files in below.items():
        room -= len(json.dumps(folder)) + 8
        kept[folder] = found = _fitting(files.items(), room)
        room -= len(_short(found))
    if kept := {folder: files for folder, files in kept.items() if files}:
        tags[FILES_BELOW] = _short(kept)
    return tags


def _fitting(entries: Iterable[tuple[str, int]], room: int = _MOST) -> dict[str, int]:
    """Return as many of the first entries as fit."""
    kept: dict[str, int] = {}
    for name, size in entries:
        room -= len(json.dumps(name)) + 24
        if room < 0:
            break
        kept[name] = size
    return kept


def _short(found: Mapping[str, object]) -> str:
    return json.dumps(found, separators=(",", ":"))


def _has(there: Mapping[str, int], wanted: Mapping[str, int]) -> bool:
    return all(there.get(name) == size for name, size in wanted.items())


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


def _wanted_below(text: str) -> dict[str, dict[str, int]]:
    try:
        found = json.loads(text)
        return {str(folder): _wanted(json.dumps(files)) for folder, files in found.items()}
    except (ValueError, TypeError, AttributeError):
        return {}
