"""What this program writes on runs and versions of Azure ML beside the keys of keys.py, and how it is read.

Loads no client: :mod:`.fast_lookup` reads before the clients are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from aml_mirror.registries import keys
from aml_mirror.registries.azureml.version_folder import is_ours
from aml_mirror.registries.records import Version

# Tags of a run: the number of its version, and where its artifacts are if not with the run.
VERSION = "mirror.model_version"
ARTIFACTS = "mirror.artifacts"
# Digest of the list of stored files: a tag of the run and, after a repair, of the version; and the property
# of a version. See stored_files.py.
STORED = "mirror.stored"
STORED_SHA256 = "stored_sha256"
# The state of a superfluous run that a lost answer created.
RETIRED = "retired"


def version_of(
    model: str,
    number: object,
    tags: Mapping[str, object] | None,
    properties: Mapping[str, object] | None,
    path: object,
    archived: bool = False,
) -> Version:
    """Build a version from its tags, which may change, its properties, which cannot, and its path."""
    found = {**(tags or {}), **(properties or {})}
    if later := (tags or {}).get(keys.MLFLOW_RUN_ID):
        found[keys.MLFLOW_RUN_ID] = later  # see AzureMLWriter.finish
    texts = {str(name): str(text) for name, text in found.items()}
    return Version(model, str(number), texts, str(path or ""), archived)


def names_version(run_tags: Mapping[str, str]) -> bool:
    """Tell whether a run says that it is finished, and which version it became."""
    return run_tags.get(keys.STATE) == keys.COMPLETE and bool(run_tags.get(VERSION))


def named_by(run_tags: Mapping[str, str], version: Version | None) -> Version | None:
    """Return the version that a finished run names, if it exists and belongs to this run."""
    if version is None or version.tags.get(keys.IDENTITY) != run_tags.get(keys.IDENTITY):
        return None
    if not is_ours(version):
        return None
    # The run stores what may change: the current key of the files.
    tags = {**version.tags, keys.QUICK_KEY: run_tags.get(keys.QUICK_KEY, "")}
    return replace(version, tags=tags)
