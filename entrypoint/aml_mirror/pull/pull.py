"""Downloads a registered version into a folder and verifies it. Short enough to be read as the specification.

1. *Resolve*: find the one version of the reference (:mod:`.resolve`).
2. *Does it exist?* A DIR that contains this version is left alone. A DIR with anything else stays, unless it
   is a pulled version and ``--replace`` is given.
3. *Judge*, before a byte is read: the manifest must have the digest that the version was registered with. The
   signature must match it. With ``--refuse-pickle``, loading the version must run no code. A version that
   another program made has no manifest: it is downloaded as it is listed, and reported as unverified.
4. *Download* (:mod:`.download`) into a folder beside DIR, and hash each file while it is written.
5. *Rename* the folder to DIR when everything is right (:mod:`.pulled_folder`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aml_mirror.core.errors import DataError, ServiceUnavailable, UsageError
from aml_mirror.core.manifest import Manifest, digest_of_json
from aml_mirror.core.settings import Settings
from aml_mirror.pipeline.provenance import signing
from aml_mirror.pipeline.provenance.signed_statement import require_signed
from aml_mirror.pull.download import Download
from aml_mirror.pull.files import Listed
from aml_mirror.pull.listing_check import LISTED, files_to_bring, not_what_was_mirrored
from aml_mirror.pull.loaders import loader_of
from aml_mirror.pull.pulled_folder import MODEL, OWN, PulledFolder, Record, as_record_files, read_record
from aml_mirror.pull.refuse_pickle import require_harmless, require_recorded_harmless
from aml_mirror.pull.resolve import resolve
from aml_mirror.pull.resolved import ResolvedVersion
from aml_mirror.pull.result import Pulled
from aml_mirror.pull.reuse import reusable
from aml_mirror.pull.verify_folder import changed_files
from aml_mirror.pull.wanted import Fetched, Wanted
from aml_mirror.registries.pinned_manifest import require_complete
from aml_mirror.support.progress import Console, amount

# The version's own files that are stored beside it, and the most bytes that are read of each.
OWN_FILES = (
    "manifest.json",
    "provenance.intoto.json",
    signing.ARTIFACT,
    "model.sig",
    "model.cdx.json",
    "safety.json",
    "MODEL_CARD.md",
    "curves.svg",
)
_MAX_OWN_BYTES = 64 << 20


def pull(settings: Settings, console: Console) -> Pulled:
    """Download the version that the settings name into the folder that they name.

    Raises:
        UsageError: they name no version or no folder, or the folder contains something else.
        SourceNotFound: there is no such version, or it has no files.
        DataError: the version is incomplete, a byte or the signature is wrong, or loading it may run code.
        MirrorError: the registry or the disk fails.
    """
    started = time.monotonic()
    if not settings.folder:
        raise UsageError("no folder is named", "pass it after the version: aml-mirror pull act-pick:3 DIR")
    # First of all: an unreadable key is reported at once.
    key = signing.public_key(settings.public_key) if settings.public_key else None
    target = PulledFolder(settings.folder)
    version = resolve(settings, console.say)
    if version.version.archived:
        console.warn(f"{version.version.model}:{version.version.number} is archived")
    with target.locked():
        return _Pull(settings, console, target, version, key, started).run()


class _Pull:
    def __init__(
        self,
        settings: Settings,
        console: Console,
        target: PulledFolder,
        version: ResolvedVersion,
        key: signing.PublicKey | None,
        started: float,
    ) -> None:
        self._settings = settings
        self._console = console
        self._target = target
        self._version = version
        self._key = key
        self._started = started
        self._manifest: Manifest | None = None

    def run(self) -> Pulled:
        version = self._version
        if version.made_by_us:
            pinned = require_complete(version.version)
            listed = None
        else:
            self._require_no_signature_wanted()
            pinned, listed = "", version.files.listing()
        wanted_key = self._key_of(pinned, listed)
        there = self._there(wanted_key)
        if there is not None:
            return there
        if self._settings.refuse_pickle:
            require_recorded_harmless(version.version)
        if version.made_by_us:
            self._manifest = version.manifest()
            listed = version.files.listing()
            if self._key is not None:
                require_signed(version.version, self._manifest, version, self._key)
        assert listed is not None  # noqa: S101 - for the type checker
        return self._bring(files_to_bring(version, self._manifest, listed), wanted_key)

    def _key_of(self, pinned: str, listed: Mapping[str, Listed] | None) -> tuple[str, str, str]:
        version = self._version.version
        if listed is None:
            return version.model, version.number, pinned
        rows = [[path, one.bytes, one.etag] for path, one in sorted(listed.items())]
        return version.model, version.number, digest_of_json(rows)

    def _require_no_signature_wanted(self) -> None:
        if self._key is not None:
            version = self._version.version
            raise DataError(
                f"version {version.number} of {version.model} was not made by aml-mirror, and is not signed",
                "omit --public-key to pull it unverified",
            )

    def _there(self, wanted_key: tuple[str, str, str]) -> Pulled | None:
        """Return the version if DIR contains it; None if it must be downloaded.

        Raises:
            UsageError: DIR contains something that must stay.
            DataError: DIR contains this version, but it was changed.
        """
        folder, replace = self._target.folder, self._settings.replace
        if not folder.exists() and not folder.is_symlink():
            return None
        record = read_record(folder)
        if record is None:
            if folder.is_dir() and not any(folder.iterdir()):
                return None
            raise UsageError(
                f"{folder} exists, but does not contain a pulled version",
                "pass another folder: --replace only replaces pulled versions",
            )
        if record.key != wanted_key:
            if replace:
                return None
            raise UsageError(
                f"{folder} contains {record.model_name} version {record.model_version}",
                "pass --replace to replace it, or pass another folder",
            )
        if changed := changed_files(folder, record):
            if replace:
                return None
            shown = "; ".join(f"{path}: {why}" for path, why in changed[:LISTED])
            raise DataError(
                f"{folder} was changed after it was pulled: {shown}", "pass --replace to pull it again"
            )
        verified = bool(record.manifest_sha256)
        if self._key is not None:
            manifest = self._version.manifest()
            require_signed(self._version.version, manifest, self._version, self._key)
        if self._settings.refuse_pickle:
            self._require_harmless(folder, sorted(record.files))
        return self._pulled("already-pulled", record, verified, Fetched())

    def _bring(self, wanted: list[Wanted], wanted_key: tuple[str, str, str]) -> Pulled:
        target, settings, version = self._target, self._settings, self._version
        size = sum(one.bytes or 0 for one in wanted)
        new = target.begin(wanted_key)
        there = sum(path.stat().st_size for path in (new / MODEL).rglob("*") if path.is_file())
        if (free := shutil.disk_usage(new).free) < size - there:
            raise ServiceUnavailable(
                f"{new.parent} has {amount(free)} free, but the version needs {amount(size - there)}",
                "free some space, then run the same command again",
            )
        older = [Path(folder) for folder in settings.reuse]
        if read_record(target.folder) is not None:
            # The version to replace is on this disk as well.
            older.append(target.folder)
        parts = reusable(wanted, older, version)
        with self._console.stage("pulling", size) as progress:
            download = Download(version.files, new / MODEL, settings.concurrency, progress, parts)
            fetched = download.run(wanted)
        if fetched.wrong:
            raise not_what_was_mirrored(version, [f"{path}: {why}" for path, why in sorted(fetched.wrong)])
        self._put_own_files(new / OWN)
        if settings.refuse_pickle:
            self._require_harmless(new, [one.path for one in wanted])
        record = Record(
            model_name=wanted_key[0],
            model_version=wanted_key[1],
            registry=version.registry,
            manifest_sha256=self._manifest.sha256 if self._manifest else "",
            listing="" if self._manifest else wanted_key[2],
            integrity=self._manifest.integrity if self._manifest else "",
            tags=dict(version.version.tags),
            files=as_record_files(target.statuses(), fetched.sha256),
        )
        target.complete(record, settings.replace)
        return self._pulled("pulled", record, self._manifest is not None, fetched)

    def _put_own_files(self, folder: Path) -> None:
        pinned = self._version.places.own_digests() if self._version.made_by_us else {}

        def put(name: str) -> None:
            if self._manifest is not None and name == "manifest.json":
                data: bytes | None = self._manifest.as_json().encode()
            else:
                data = self._own_file(name, pinned.get(name, ""))
            if data is not None:
                with open(folder / name, "wb") as stream:
                    stream.write(data)
                    stream.flush()
                    # Before the folder gets its name, like the files of the version.
                    os.fsync(stream.fileno())

        if self._version.made_by_us:
            with ThreadPoolExecutor(len(OWN_FILES)) as pool:
                list(pool.map(put, OWN_FILES))

    def _own_file(self, name: str, wanted: str) -> bytes | None:
        """Read one of the version's own files. ``wanted`` is its SHA-256, empty if nothing pins it."""
        version = self._version.version
        problem = ""
        # Twice, because a truncated answer may have a truncated length too.
        for _ in range(2 if wanted else 1):
            data = next(self._version.artifacts(name, _MAX_OWN_BYTES), None)
            if not wanted:
                return data
            found = hashlib.sha256(data).hexdigest() if data is not None else ""
            if found == wanted:
                return data
            problem = f"its SHA-256 is {found}, not {wanted}" if found else "it is missing"
        if problem == "it is missing":
            again = f"restore it with: aml-mirror repair {version.model}:{version.number}"
            self._console.warn(f"{name} of version {version.number} of {version.model} is missing: {again}")
            return None
        raise not_what_was_mirrored(self._version, [f"{name}: {problem}"])

    def _require_harmless(self, folder: Path, paths: list[str]) -> None:
        require_harmless(self._version.version, folder / MODEL, paths, self._settings.allow)

    def _pulled(self, outcome: str, record: Record, verified: bool, fetched: Fetched) -> Pulled:
        folder = self._target.folder
        loader = loader_of(self._version.version.tags, sorted(record.files), str(folder / MODEL))
        return Pulled(
            outcome,
            self._version,
            folder,
            loader,
            record,
            verified,
            signing.key_id(self._key) if self._key is not None else None,
            fetched,
            time.monotonic() - self._started,
        )
