"""The path of each file in a model version."""

from __future__ import annotations

import re
from posixpath import splitext

from aml_mirror.core.errors import DataError
from aml_mirror.core.run import Checkpoint

# Characters that an artifact store may refuse in a name, or treat specially: control characters, and those
# with a meaning in URLs and Windows paths (MLflow's validate_path_is_safe refuses "#" and decodes "%").
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f#%?\\:*"<>|\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]')

# The most bytes of a name on ext4, XFS, NTFS and APFS.
_MAX_NAME = 255
_BLANKS = re.compile(r"^\s+|\s+$")


def model_paths(checkpoint: Checkpoint) -> dict[str, str]:
    """Map each file's path in the run to its path in the model version.

    A model version is what inference loads, so the checkpoint's folder becomes its root; companions from
    elsewhere in the run keep their path below the run's root. Characters that an artifact store cannot
    keep become ``_``.

    Raises:
        DataError: the files cannot be in one folder of a file system, where everybody loads them from: one
            is a file and a folder, as blobs can be, or a name is too long.
    """
    folder = (
        checkpoint.path if checkpoint.path not in checkpoint.files else checkpoint.path.rpartition("/")[0]
    )
    prefix = "" if folder in ("", ".") else folder + "/"
    paths: dict[str, str] = {}
    taken: set[str] = set()
    # Files of the checkpoint's own folder come first: a companion yields where both want one name.
    for source in sorted(checkpoint.files, key=lambda path: (not path.startswith(prefix), path)):
        path = artifact_path(source.removeprefix(prefix))
        count = 1
        stem, suffix = splitext(path)
        while path in taken:
            count += 1
            path = f"{stem}~{count}{suffix}"
        taken.add(path)
        paths[source] = path
    _require_names(paths)
    return paths


def _require_names(paths: dict[str, str]) -> None:
    by_path = {path: source for source, path in paths.items()}
    for path, source in by_path.items():
        parts = path.split("/")
        for count in range(1, len(parts)):
            if other := by_path.get("/".join(parts[:count])):
                raise DataError(
                    f"{other!r} is a file, and a folder with {source!r} in it: no file system can store both",
                    "rename one of them, or omit it with --exclude",
                )
        if longest := next((part for part in parts if len(part.encode()) > _MAX_NAME), ""):
            raise DataError(
                f"{source!r} has a name of {len(longest.encode())} bytes, but file systems allow {_MAX_NAME}",
                "rename it, or omit it with --exclude",
            )


def artifact_path(path: str) -> str:
    """Return a path in which ``_`` replaces what an artifact store cannot store."""
    # A URL loses the spaces around a name.
    parts = [_BLANKS.sub("_", part) for part in _UNSAFE.sub("_", path).split("/")]
    return "/".join(_safe_name(part) for part in parts)


def _safe_name(part: str) -> str:
    # A run's own MLmodel would tell the registry's loader which code to import (mlflow.pyfunc.load_model).
    if part.lower() == "mlmodel":
        return part + "_"
    return "_" if part in (".", "..", "") else part
