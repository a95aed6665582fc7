"""Restores a registered version from the run that it was mirrored from.

1. *Verify*: every byte of the version is read and compared with its manifest.
2. *Compare the source*: each wrong or missing file is read from the run. A file may only be written if it
   still has the digest of the manifest. If one does not, nothing is written at all.
3. *Write* only the manifest's bytes, and delete what does not belong to the version.
4. *Verify* again.

A lost manifest is rebuilt from the run. It counts if it has the pinned digest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from aml_mirror.core.errors import DataError, UsageError
from aml_mirror.core.manifest import Manifest
from aml_mirror.core.settings import Settings
from aml_mirror.pipeline import log_update
from aml_mirror.pipeline.locate import LocatedRun, locate, require_unchanged
from aml_mirror.pipeline.model_paths import model_paths
from aml_mirror.pipeline.select import SelectedCheckpoint, choose
from aml_mirror.registries import base, keys
from aml_mirror.registries.pinned_manifest import ManifestLost, require_complete
from aml_mirror.registries.records import FileDigest, Version, log_state_digest, log_state_name
from aml_mirror.sources.hashing import hash_files, listed_files
from aml_mirror.sources.registry import open_source
from aml_mirror.support.progress import Console, amount
from aml_mirror.verify.verify import Verification, open_version, verify

SCHEMA = "aml-mirror/repair/v1"
MAX_NAMED = 20  # The most files in one error.


@dataclass(slots=True)
class Repair:
    """The result of a repair. ``before`` is None if the manifest itself was lost."""

    before: Verification | None
    after: Verification
    written: list[str]
    bytes: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The object that ``repair --json`` prints."""
        found = self.after.as_dict()
        return {
            **found,
            "schema": SCHEMA,
            "outcome": "differs" if not self.after.holds else "repaired" if self._did else "verified",
            "written": self.written[:MAX_NAMED],
            "bytes_written": self.bytes,
        }

    @property
    def _did(self) -> bool:
        return self.before is None or not self.before.holds

    def text(self) -> str:
        """Return the result as text."""
        version = f"{self.after.version.model} version {self.after.version.number}"
        if not self._did:
            return f"nothing to repair: {version} is what was mirrored"
        if not self.after.holds:
            return f"not repaired: {version} still differs"
        return f"repaired: {version}, {len(self.written)} file(s) written, {amount(self.bytes)}"


def repair(settings: Settings, console: Console) -> Repair:
    """Repair the version that the settings name.

    Raises:
        UsageError: they name no version, or no source.
        SourceNotFound: there is no such version, or no such run.
        DataError: the source no longer has the bytes, or the version was not made by this program.
    """
    registry, version = open_version(settings, console)
    require_complete(version)
    before: Verification | None = None
    try:
        before = verify(settings, console)
        if before.holds:
            return Repair(before, before, [])
    except ManifestLost as lost:
        console.say(lost.message)
    located, chosen = _checkpoint_of(version, settings, console)
    sources = {path: source for source, path in model_paths(chosen.checkpoint).items()}
    manifest = before.manifest if before is not None else None
    right: dict[str, FileDigest] = {}
    if before is not None and manifest is not None:
        right = before.right
    else:
        manifest = _made_again(version, located, sources, console)
        right = _right_of(version, registry, manifest)
    bad = [item.path for item in manifest.items if item.path not in right]
    manifest = _with_sources(version, located, manifest, sources, bad, console)
    with console.stage("repairing", sum(item.bytes for item in manifest.items)) as progress:
        moved = registry.repair(version, located.tree, manifest, right, progress)
    require_unchanged(located, [item.source for item in manifest.items if item.path in bad])
    for warning in moved.warnings:
        console.say(f"warning: {warning}")
    after = verify(settings, console)
    is_lost = any(path.endswith(_log_state(version)) for path in _problems(after))
    # Only the run can provide it again.
    if is_lost and log_update.restore_state(registry, located, version):
        after = verify(settings, console)
    own = _problems(before) - _problems(after) if before is not None else set()
    own = {path for path in own if path.startswith("mirror/")}
    return Repair(before, after, [*bad, *sorted(own)], moved.sent + moved.copied)


def _problems(found: Verification) -> set[str]:
    return {path for path, _ in found.wrong} | set(found.missing)


def _log_state(version: Version) -> str:
    """Return the name of the file with the state of the version's logs."""
    return log_state_name(log_state_digest(version.tags.get(keys.LOGS, "")))


def _checkpoint_of(
    version: Version, settings: Settings, console: Console
) -> tuple[LocatedRun, SelectedCheckpoint]:
    """Find the version's checkpoint in the source."""
    place = settings.source or version.tags.get(keys.OUTPUT_DIR, "")
    if not place:
        raise UsageError(
            f"version {version.number} of {version.model} does not name the source of its run",
            "pass --source DIR or azure://ACCOUNT/CONTAINER/PATH",
        )
    wanted = version.tags.get(keys.CHECKPOINT, "")
    asked = replace(settings, source=place, run_id=version.tags[keys.RUN_ID], checkpoint=wanted)
    source = open_source(asked, console.say)
    located = locate(source, asked)
    for chosen in choose(located.tree, located.run, wanted, False, lambda checkpoint: True):
        return located, chosen
    raise DataError(f"{source.uri} has no checkpoint {wanted}", "pass the mirrored run with --source")


def _made_again(version: Version, located: LocatedRun, sources: dict[str, str], console: Console) -> Manifest:
    """Rebuild a lost manifest from the run.

    Raises:
        DataError: the run does not have the pinned manifest.
    """
    paths = {source: path for path, source in sources.items()}
    if version.tags.get(keys.INTEGRITY) == "copied" and located.source.has_etags:
        manifest = listed_files(located.tree, paths)
    else:
        with console.stage("hashing", sum(map(located.tree.size, paths))) as progress:
            manifest = hash_files(located.tree, paths, progress)
    if manifest.sha256 != version.tags[keys.MANIFEST_SHA256]:
        raise DataError(
            f"the manifest of version {version.number} of {version.model} is lost, and {located.source.uri} "
            "has another one: its files are not those that were mirrored",
            "pass the mirrored run with --source",
        )
    return manifest


def _right_of(version: Version, registry: base.Registry, manifest: Manifest) -> dict[str, FileDigest]:
    """Read the files of a version whose manifest was lost, and return the right ones."""
    reader = registry.version_reader(version)
    there = reader.files()
    read = {item.path: reader.hashed(item.path) for item in manifest.items if item.path in there}
    return {
        item.path: read[item.path]
        for item in manifest.items
        if item.path in read and item.sha256 is not None and read[item.path].sha256 == item.sha256
    }


def _with_sources(
    version: Version,
    located: LocatedRun,
    manifest: Manifest,
    sources: dict[str, str],
    bad: list[str],
    console: Console,
) -> Manifest:
    """Return the manifest with the source of each bad file.

    Raises:
        DataError: the source no longer has the bytes of a file.
    """
    wanted = {item.path: item for item in manifest.items}
    there = {path: sources[path] for path in bad if path in sources}
    lost = [path for path in bad if path not in there]
    with console.stage("comparing", sum(located.tree.size(source) for source in there.values())) as progress:
        for path, source in there.items():
            item, entry = wanted[path], located.tree.entry(source)
            if item.sha256:
                (found,) = hash_files(located.tree, {source: path}, progress).items
                same = found.sha256 == item.sha256
            else:
                same = entry.bytes == item.bytes and item.etag == entry.stamp
            if not same:
                lost.append(path)
    if lost:
        more = f" and {len(lost) - MAX_NAMED} more" if len(lost) > MAX_NAMED else ""
        raise DataError(
            f"{located.source.uri} no longer has the bytes of version {version.number} of {version.model}: "
            f"{', '.join(sorted(lost)[:MAX_NAMED])}{more}",
            "nothing was written: pass a copy of the mirrored run with --source",
        )
    items = tuple(replace(item, source=sources.get(item.path, "")) for item in manifest.items)
    return replace(manifest, items=items)
