"""What of a version is on this disk already, in versions that were pulled before (``--reuse``).

A whole file is found by its SHA-256, wherever it is. Within a file, blocks of ``NOTED_BYTES`` are compared by
the list of block digests that the registry keeps of a version, with digests that are computed here from the
older files. Nothing that is found is trusted: the digest of each whole file is computed from what is written.
"""

from __future__ import annotations

import os
from pathlib import Path

from aml_mirror.core.errors import UsageError
from aml_mirror.pull.download import PART_BYTES, LocalPart, Reuse, Wanted
from aml_mirror.pull.pulled_folder import MODEL, read_record
from aml_mirror.pull.resolved import ResolvedVersion


def reusable(wanted: list[Wanted], older: list[Path], version: ResolvedVersion) -> Reuse:
    """Return where on this disk parts of the files may be.

    Args:
        wanted: the files.
        older: folders that were pulled before.
        version: the version that is to be brought.

    Raises:
        UsageError: a folder is no pulled version.
    """
    by_digest: dict[tuple[int, str], str] = {}
    for folder in older:
        record = read_record(folder)
        if record is None:
            raise UsageError(
                f"{folder} (--reuse) holds no pulled version", "pass a folder that aml-mirror pull made"
            )
        for path, (size, sha256, _) in record.files.items():
            by_digest.setdefault((size, sha256), os.path.join(folder, MODEL, *path.split("/")))
    found: dict[str, dict[int, LocalPart]] = {}
    for one in wanted:
        if one.bytes and one.sha256 and (file := by_digest.get((one.bytes, one.sha256))):
            starts = range(0, one.bytes, PART_BYTES)
            found[one.path] = {start: LocalPart(file, start) for start in starts}
    return found
