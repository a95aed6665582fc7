"""Decides which files of a run are sessions of one writer, and which points of a session are still valid.

The files of a folder are the sessions of one writer, in the order in which their first points were logged (or
by the times in their names). A session supersedes the earlier ones from where it resumed: for each tag, from
the smallest step of the tag in the later file; for all tags, from the step of a SessionLog START (torch's
``purge_step``). Within a file nothing supersedes anything: repeated steps are kept.

Folders are different writers, with two exceptions. At each start, HF's Trainer and torch's SummaryWriter name
a new folder by time and host (``runs/Nov24_06-09-06_vm``), and W&B by time and id
(``wandb/run-20261124_060906-abc``). Such siblings are sessions of one writer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

from aml_mirror.metrics.log_files import LogFile
from aml_mirror.metrics.readers.event_file import EventFile, Point
from aml_mirror.metrics.readers.wandb_log import WandbLog
from aml_mirror.sources.tree import Tree, join
from aml_mirror.sources.wandb_copies import is_copy

_EVENT_FILE = re.compile(r"\.tfevents\.(?P<seconds>\d*)")
# torch/utils/tensorboard/writer.py and transformers/training_args.py: strftime("%b%d_%H-%M-%S"), host. The
# name of the month depends on the locale.
_SESSION_FOLDER = re.compile(r"(?P<second>[^\W\d_]{3,5}\.?\d\d_\d\d-\d\d-\d\d)_(?P<host>.+)")


_WANDB_LOG = re.compile(
    r"(?:(?P<folder>.+)/)?wandb/(?:offline-)?run-(?P<second>\d{8}_\d{6})-(?P<id>[^/]+)/run-(?P=id)\.wandb"
)


# September 2001: real writers' clocks are later.
_FIRST_DATE = 1e9


class Reader(Protocol):
    """The common interface of the readers of all logs. The attributes are valid after reading."""

    points: int
    skipped_records: int
    ended: str | None
    purge_step: int | None

    def __iter__(self) -> Iterator[Point]: ...


@dataclass(slots=True)
class Session:
    """One file, and which of its points later sessions repeat."""

    path: str
    open: Callable[[], Any]
    # Reads the stream that `open` returned.
    reader: Callable[[BinaryIO, str], Reader] = EventFile
    # Points from this step on are superseded: for all tags, and for each tag if it has an earlier step. Only
    # tags with such points are in it.
    purged_from: int | None = None
    superseded_from: dict[str, int] = field(default_factory=dict)

    def keeps(self, tag: str, step: int) -> bool:
        """Tell whether no later session repeats the point. Valid after pass one."""
        if self.purged_from is not None and step >= self.purged_from:
            return False
        limit = self.superseded_from.get(tag)
        return limit is None or step < limit

    def begun(self) -> float | None:
        """Return the wall time of the first point, in seconds since the epoch; None: there are no points."""
        with self.reading() as reader:
            return next((wall_time for _, _, wall_time, _ in reader), None)

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """Open the file for one reading. Raises the errors of :meth:`Tree.open`."""
        opened = self.open()
        if isinstance(opened, LogFile):
            yield opened
        else:
            with closing(opened):
                yield self.reader(opened, self.path)


@dataclass(slots=True)
class Group:
    """The sessions of one writer, sorted by time. ``label`` is the folder that distinguishes its series."""

    label: str
    sessions: list[Session]


def event_groups(tree: Tree) -> list[Group]:
    """Find the event files of a run: every file with ``.tfevents.`` in its name, in any folder."""
    paths = [
        path
        for path, entry in tree.files.items()
        # A link's target is in the tree too, and would be read twice.
        if ".tfevents." in path.rpartition("/")[2]
        and (entry.target is None or ".tfevents." not in entry.target.rpartition("/")[2])
    ]
    own = {path.rpartition("/")[2] for path in paths if not is_copy(path)}
    # Their names contain time, host and process, so another file with the same name is a copy.
    paths = [path for path in paths if not is_copy(path) or path.rpartition("/")[2] not in own]
    keys = _group_keys({path.rpartition("/")[0] for path in paths})
    grouped: dict[tuple[str, ...], list[str]] = {}
    for path in paths:
        grouped.setdefault(keys[path.rpartition("/")[0]], []).append(path)
    groups = []
    for found in grouped.values():
        found.sort(key=_session_order)
        sessions = [Session(path, _opener(tree, path)) for path in found]
        groups.append(Group(found[0].rpartition("/")[0], _in_time(sessions)))
    return sorted(groups, key=lambda group: group.label)


def _in_time(sessions: list[Session]) -> list[Session]:
    """Sort sessions by the time of their first points, if all of them have one.

    The names of writers that began in the same second do not show their order, and files may be renamed.
    """
    if len(sessions) < 2:
        return sessions
    if any(_session_order(session.path)[0] < _FIRST_DATE for session in sessions):
        return sessions
    times = [session.begun() for session in sessions]
    if any(moment is None or moment < _FIRST_DATE for moment in times):
        return sessions
    return [
        session for _, session in sorted(zip(times, sessions, strict=True), key=lambda pair: pair[0] or 0)
    ]


def _opener(tree: Tree, path: str) -> Callable[[], Any]:
    return lambda: tree.open(path)


def log_groups(tree: Tree, paths: list[str]) -> list[Group]:
    """Make a group for each log of a framework."""
    folders = [path.rpartition("/")[0] for path in paths]
    groups = []
    for path, folder in zip(paths, folders, strict=True):
        # Two logs in a folder are not sessions of each other: their tags are distinguished by file.
        label = folder if folders.count(folder) == 1 else path
        groups.append(Group(label, [Session(path, _log_opener(tree, path))]))
    return sorted(groups, key=lambda group: group.label)


def wandb_groups(tree: Tree) -> list[Group]:
    """Find W&B's own logs. Those below the same ``wandb/`` are sessions of one training.

    If two began in the same second, several processes logged. Then only those with the same id belong
    together.
    """
    found: dict[str, list[re.Match[str]]] = {}
    for path, entry in tree.files.items():
        if entry.target is None and (match := _WANDB_LOG.fullmatch(path)):
            found.setdefault(match["folder"] or "", []).append(match)
    groups: dict[tuple[str, str], list[Session]] = {}
    for folder, matches in found.items():
        at_once = len({match["second"] for match in matches}) < len(matches)
        for match in sorted(matches, key=lambda match: (match["second"], match["id"])):
            session = Session(match[0], _opener(tree, match[0]), WandbLog)
            groups.setdefault((folder, match["id"] if at_once else ""), []).append(session)
    return [
        Group(join(folder, f"wandb/{identifier}") if identifier else folder, sessions)
        for (folder, identifier), sessions in sorted(groups.items())
    ]


def _log_opener(tree: Tree, path: str) -> Callable[[], Any]:
    return lambda: LogFile(tree, path)


def _group_keys(folders: set[str]) -> dict[str, tuple[str, ...]]:
    """Folder -> the same key for folders that are sessions of one writer.

    Two folders that began in the same second did not resume one another (they may be two writers of one
    training). If siblings include such a pair, only those with the same host and comment belong together.
    """
    split: dict[str, tuple[str, str, str, str]] = {}
    seconds: dict[tuple[str, str], list[str]] = {}
    for folder in folders:
        parts = folder.split("/")
        for index, part in enumerate(parts):
            if match := _SESSION_FOLDER.fullmatch(part):
                parent, below = "/".join(parts[:index]), "/".join(parts[index + 1 :])
                split[folder] = parent, below, match["second"], match["host"]
                seconds.setdefault((parent, below), []).append(match["second"])
                break
    keys: dict[str, tuple[str, ...]] = {}
    for folder in folders:
        if folder not in split:
            keys[folder] = (folder,)
            continue
        parent, below, _, host = split[folder]
        begun = seconds[parent, below]
        keys[folder] = (parent, below, host if len(set(begun)) < len(begun) else "")
    return keys


def _session_order(path: str) -> tuple[Any, ...]:
    folder, _, name = path.rpartition("/")
    match = _EVENT_FILE.search(name)
    seconds = int(match["seconds"]) if match and match["seconds"] else -1
    return seconds, _natural(name), _natural(folder)


def _natural(text: str) -> list[tuple[int, int, str]]:
    """A sort key that treats digits as numbers."""
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part
    ]
