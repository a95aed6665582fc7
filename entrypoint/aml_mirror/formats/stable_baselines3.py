"""The zip archives of Stable-Baselines3: settings in ``data``, and torch files with its parameters.

``BaseAlgorithm.load`` needs ``data`` and at least one set of parameters (stable_baselines3.common.save_util).
The version is written after both. SBX, the same in JAX, has no torch parameters, and stores the policy itself
in ``data``.
"""

from __future__ import annotations

import re

from aml_mirror.formats.archives import Archive
from aml_mirror.formats.base import Format, FormatFile, Kind, Weights

MARK = "_stable_baselines3_version"
_PART_BYTES = 1 << 20
# An entry `policy` of `data` itself, not of one of its values, with the indentation of SB3's data_to_json.
_POLICY_IN_DATA = re.compile(
    rb'\n    "policy": \{\s*":type:": "[^"\n]{1,200}",\s*":serialized:": "[A-Za-z0-9+/]{16}'
)
_MAX_HEAD_BYTES = 512


def model_problem(file: FormatFile, archive: Archive) -> str:
    """Return what is missing in an archive that is a Stable-Baselines3 model or ends in ``.zip``."""
    if MARK not in archive.members:
        return "" if archive.find("data.pkl") else "it is a zip archive, but of an unknown kind"
    parameters = [
        name for name in archive.members if name.endswith(".pth") and name != "pytorch_variables.pth"
    ]
    if "data" not in archive.members or not (parameters or _holds_policy(file, archive)):
        return "it lacks the required parts of a Stable-Baselines3 file (data and policy.pth)"
    for name in parameters:
        inner = archive.members[name]
        if inner.stored and file.read(inner.start, 2) == b"PK":
            try:
                Archive(
                    lambda offset, count, start=inner.start: file.read(start + offset, count),  # type: ignore[misc]
                    inner.bytes,
                )
            except ValueError as error:
                return f"in {name}: {error}"
    return ""


def _holds_policy(file: FormatFile, archive: Archive) -> bool:
    """Tell whether `data` contains a pickled policy (sbx/common/on_policy_algorithm.py; seen in 0.28)."""
    data = archive.members["data"]
    if not data.stored:
        return False
    # It contains the whole model as text, so it is searched in parts, not parsed.
    rest = b""
    for offset in range(0, data.bytes, _PART_BYTES):
        part = rest + file.read(data.start + offset, min(_PART_BYTES, data.bytes - offset))
        if _POLICY_IN_DATA.search(part):
            return True
        rest = part[-_MAX_HEAD_BYTES:]
    return False


def _problem(file: FormatFile) -> str:
    is_zip = file.read(0, 2) == b"PK"
    if not file.holds_weights and not is_zip:
        return ""
    if file.size < 4:
        return "it is too short for any format"
    if not is_zip:
        return "it does not begin like a zip archive"
    try:
        return model_problem(file, Archive(file.read, file.size))
    except ValueError as error:
        return str(error)


STABLE_BASELINES3 = Format("Stable-Baselines3", (".zip",), Kind.PICKLE, Weights.OFTEN, _problem)
