"""Decides what no version needs, from a survey alone, so that it can be tested on any survey.

The folder of a version's bytes is shared by all models with the same run, checkpoint and digest. So the unit
is ``aml-mirror/<run>/<checkpoint>/<digest>``, with all its contents. It stays if one of these holds:

- The path of any version, live or archived, complete or not, is in it, equals it, or is above it.
- A claim on it is held, or something in it is younger than requested.
- No MLflow run of this workspace says that it began it. Then it may belong to another workspace with the same
  container.

A run stays unless it ended badly and no version names it. A claim stays if a version has its identity, or if
it is held. Staging always stays for as long as the service keeps uncommitted blocks, because nothing else
shows whether somebody still writes there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from aml_mirror.core.manifest import identity
from aml_mirror.registries import keys
from aml_mirror.registries.azureml.limits import FOLDER, safe_part
from aml_mirror.registries.azureml.version_folder import datastore_path
from aml_mirror.registries.leftovers import CLAIM, RUN, STAGING, Leftover, RunLeft, StoredBlob, Survey
from aml_mirror.registries.leftovers import FOLDER as FOLDER_KIND
from aml_mirror.transfer.staging_folder import STALE_SECONDS

_UNIT = re.compile(rf"({FOLDER}/[^/]+/[^/]+/(?:sha256-)?[0-9a-f]{{64}})/.+")
# A claim of a model, or the mark of a prune that was killed.
_CLAIM = re.compile(rf"{FOLDER}/claims/([0-9a-f]{{64}})(?:/[^/]+|\.prune)")
_NUMBERS = re.compile(rf"{FOLDER}/numbers/[^/]+")
# The states of a run whose mirror ended badly.
_ENDED_BADLY = ("FAILED", "KILLED")


def unneeded(survey: Survey, older_than: float) -> list[Leftover]:
    """Return what no version needs and nobody wrote for this many seconds, in the order of removal."""
    return [
        *_folders(survey, older_than),
        *_staging(survey, older_than),
        *_claims(survey, older_than),
        # Last: a run tells which models a folder belongs to.
        *_runs(survey, older_than),
    ]


def _folders(survey: Survey, older_than: float) -> Iterator[Leftover]:
    needed = [
        place[1].lower() for version in survey.versions if (place := datastore_path(version.path)) is not None
    ]
    held = _held(survey.blobs)
    begun = _begun(survey.runs)
    for unit, blobs in sorted(_units(survey.blobs).items()):
        runs = begun.get(unit, [])
        age = min(blob.age for blob in blobs)
        if any(_overlap(unit.lower(), path) for path in needed) or not runs or age <= older_than:
            continue
        if any(blob.is_leased for blob in blobs):
            continue
        wanted = _identity(runs[0])
        if wanted in held or any(run.status == "RUNNING" and run.age <= older_than for run in runs):
            continue
        models = sorted({run.tags.get(keys.MODEL_NAME, "") for run in runs} - {""})
        yield Leftover(
            FOLDER_KIND,
            unit,
            len(blobs),
            sum(blob.bytes for blob in blobs),
            age,
            f"no version has it; run {runs[0].tags[keys.RUN_ID]}",
            wanted,
            tuple(models),
        )


def _staging(survey: Survey, older_than: float) -> Iterator[Leftover]:
    for one in survey.staging:
        if one.age > max(older_than, STALE_SECONDS):
            yield Leftover(STAGING, one.name, one.files, one.bytes, one.age, "nobody continues it")


def _claims(survey: Survey, older_than: float) -> Iterator[Leftover]:
    needed = {version.tags.get(keys.IDENTITY, "") for version in survey.versions}
    for blob in survey.blobs:
        claim = _CLAIM.fullmatch(blob.name)
        if not claim and not _NUMBERS.fullmatch(blob.name):
            continue
        is_mark = blob.name.endswith(".prune")
        if blob.is_leased or blob.age <= older_than or (claim and claim[1] in needed and not is_mark):
            continue
        yield Leftover(
            CLAIM, blob.name, 1, blob.bytes, blob.age, "no version has its identity" if claim else "a lock"
        )


def _runs(survey: Survey, older_than: float) -> Iterator[Leftover]:
    named = {version.tags.get(keys.MLFLOW_RUN_ID, "") for version in survey.versions}
    identities = {version.tags.get(keys.IDENTITY, "") for version in survey.versions}
    held = _held(survey.blobs)
    for run in survey.runs:
        ours = run.tags.get(keys.RUN_ID) and run.tags.get(keys.IDENTITY) and run.tags.get(keys.MODEL_NAME)
        if not ours or run.status not in _ENDED_BADLY or run.age <= older_than:
            continue
        if run.run_id in named or run.tags[keys.IDENTITY] in identities or run.tags[keys.IDENTITY] in held:
            continue
        if run.tags.get(keys.STATE) == keys.COMPLETE:
            continue
        yield Leftover(RUN, run.run_id, 0, 0, run.age, f"{run.status}, no version names it")


def _units(blobs: Iterable[StoredBlob]) -> dict[str, list[StoredBlob]]:
    found: dict[str, list[StoredBlob]] = {}
    for blob in blobs:
        if match := _UNIT.fullmatch(blob.name):
            found.setdefault(match[1], []).append(blob)
    return found


def _begun(runs: Iterable[RunLeft]) -> dict[str, list[RunLeft]]:
    """The runs that began each folder, in the new and in the old form."""
    found: dict[str, list[RunLeft]] = {}
    for run in runs:
        digest = run.tags.get(keys.MANIFEST_SHA256, "")
        if run.tags.get(keys.RUN_ID) and digest:
            above = "/".join(
                (FOLDER, safe_part(run.tags[keys.RUN_ID]), safe_part(run.tags.get(keys.CHECKPOINT, "")))
            )
            for unit in (f"{above}/sha256-{digest}", f"{above}/{digest}"):
                found.setdefault(unit, []).append(run)
    return found


def _identity(run: RunLeft) -> str:
    """Return the identity with which a run began. A retired run now has another one."""
    tags = run.tags
    return identity(tags[keys.RUN_ID], tags.get(keys.CHECKPOINT, ""), tags[keys.MANIFEST_SHA256])


def _held(blobs: Iterable[StoredBlob]) -> set[str]:
    """Return the identities on which a claim is held."""
    return {match[1] for blob in blobs if blob.is_leased and (match := _CLAIM.fullmatch(blob.name))}


def _overlap(unit: str, path: str) -> bool:
    return unit == path or unit.startswith(f"{path}/") or path.startswith(f"{unit}/") or not path
