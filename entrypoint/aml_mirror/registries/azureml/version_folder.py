"""Where the bytes of a version are in a datastore, and where its own files are.

``aml-mirror/<run>/<checkpoint>/sha256-<digest>/model/``
    Only the files of the manifest. The last part is always ``model``, because downloads
    (``az ml model download``, azure-ai-ml, mounts) name the local folder after it.
``aml-mirror/<run>/<checkpoint>/sha256-<digest>/mirror/<model>/``
    Manifest, statement, signature, receipt and card. They belong to one version of one model. ``artifacts/``
    in it has copies, to which the artifacts of the run refer. An earlier release that continues such a run
    overwrites these.

Earlier releases put the bytes directly into ``aml-mirror/<run>/<checkpoint>/<digest>/``, and delete
everything else below that folder. So the new folders are not below it: this is why ``sha256-`` precedes the
digest. An older image beside this one cannot delete our files.

A version is ours if its path is one of the two forms for its own run, checkpoint and digest. The path of a
version cannot change. So the form of a registered version wins: an older release and this one both complete
it there. If nothing is registered yet, each release uses its own form.

Loads no client: :mod:`.fast_lookup` reads before the clients are loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from aml_mirror.registries import keys
from aml_mirror.registries.azureml.limits import FOLDER, safe_part
from aml_mirror.registries.records import Version

MODEL = "model"
OWN = "mirror"
# Below the folder of the own files.
SHOWN = "artifacts"

_PATH = re.compile(r"azureml:(?://[^?#]*?)?/?datastores/([^/]+)/paths/(.+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class VersionFolder:
    """A folder of checkpoint bytes and the folder of a version's own files, both without a slash at the end.

    ``datastore`` is a name; empty: the default datastore.
    """

    bytes: str
    own: str
    datastore: str = ""


def folder_of(tags: Mapping[str, str]) -> VersionFolder:
    """Return the folder of a version with these tags.

    Args:
        tags: run id, checkpoint, manifest digest and model name, as they are stored in the registry.
    """
    above = _above(tags)
    digest = f"{above}/sha256-{tags[keys.MANIFEST_SHA256]}"
    return VersionFolder(f"{digest}/{MODEL}", _own_files(tags))


def folder_in(path: str, tags: Mapping[str, str]) -> VersionFolder | None:
    """Return the folders of a version with this path; None if such a version is never stored there.

    Args:
        path: an ``azureml://`` path.
        tags: as for :func:`folder_of`.
    """
    place = datastore_path(path)
    if place is None or not (tags.get(keys.RUN_ID) and tags.get(keys.MANIFEST_SHA256)):
        return None
    old_form = f"{_above(tags)}/{tags[keys.MANIFEST_SHA256]}"
    if place[1] not in (old_form, folder_of(tags).bytes):
        return None
    return VersionFolder(place[1], _own_files(tags), place[0])


def is_ours(version: Version) -> bool:
    """Tell whether a version's path is one that this program or an earlier release gives such a version."""
    return folder_in(version.path, {**version.tags, keys.MODEL_NAME: version.model}) is not None


def datastore_path(path: str) -> tuple[str, str] | None:
    """Return (datastore, path in it) for an ``azureml://`` path, or None if it names no datastore."""
    match = _PATH.fullmatch(path)
    return (match[1], match[2].strip("/")) if match else None


def _above(tags: Mapping[str, str]) -> str:
    return "/".join((FOLDER, safe_part(tags[keys.RUN_ID]), safe_part(tags.get(keys.CHECKPOINT, ""))))


def _own_files(tags: Mapping[str, str]) -> str:
    digest = f"{_above(tags)}/sha256-{tags[keys.MANIFEST_SHA256]}"
    return f"{digest}/{OWN}/{safe_part(tags[keys.MODEL_NAME])}"
