"""A plain pickle: from protocol 2 on it begins with 0x80, and every pickle ends with STOP, a full stop."""

from __future__ import annotations

from aml_mirror.formats.base import Format, FormatFile, Kind, Weights


def pickle_problem(file: FormatFile) -> str:
    """Return why a pickle of protocol 2 or later is truncated; empty: it is not, or it is not a pickle."""
    if file.read(0, 1) == b"\x80" and file.read(file.size - 1, 1) != b".":
        return "its pickle has no end: the file is truncated"
    return ""


PICKLE = Format("pickle", (".pkl", ".pickle"), Kind.PICKLE, Weights.NAMED, pickle_problem, never_empty=True)
# Names that only a loader of pickles gets. joblib writes raw arrays between opcodes.
OTHER_PICKLE = Format("pickle under another name", (".p", ".pck", ".pickled", ".dill"), Kind.PICKLE)
JOBLIB = Format("joblib", (".joblib", ".sav"), Kind.PICKLE)
