"""Which files of a run are sessions of one writer, and which points of a session still hold.

The files of a folder are the sessions of one writer, in the order in which their first points were logged (or
by the times in their names), and a session
supersedes the earlier ones from where it resumed: for each tag, from the smallest step that the tag has in
the later file; for all tags, from the step of a SessionLog START (torch's ``purge_step``). Within a file
nothing supersedes anything: repeated steps are kept.

Folders are different writers, with two exceptions: HF's Trainer and torch's SummaryWriter name a new folder
after time and host (``runs/Nov24_06-09-06_vm``) at each start, and W&B one after time and id
(``wandb/run-20261124_060906-abc``), so such siblings are sessions of one writer.
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
# torch/utils/tensorboard/writer.py and transformers/training_args.py: strftime("%b%d_%H-%M-%S"), host; the
# month's name is that of the locale.
_SESSION_FOLDER = re.compile(r"(?P<second>[^\W\d_]{3,5}\.?\d\d_\d\d-\d\d-\d\d)_(?P<host>.+)")


_WANDB_LOG = re.compile(
    r"(?:(?P<folder>.+)/)?wandb/(?:offline-)?run-(?P<second>\d{8}_\d{6})-(?P<id>[^/]+)/run-(?P=id)\.wandb"
)


# September 2001: clocks of real writers are later.
_FIRST_DATE = 1e9


class Reader(Protocol):
    """What the readers of all kinds of logs have in common; the attributes hold once it is read."""

    points: int
    skipped_records: int
    ended: str | None
    purge_step: int | None

    def __iter__(self) -> Iterator[Point]: ...


@dataclass(slots=True)
class Session:
    """One file, and which of its points later sessions restate."""

    path: str
    open: Callable[[], Any]
    # What reads the stream that `open` returned.
    reader: Callable[[BinaryIO, str], Reader] = EventFile
    # Points from this step on are superseded: of all tags, and of each tag where that says more. Only
    # tags with such points are in it.
    purged_from: int | None = None
    superseded_from: dict[str, int] = field(default_factory=dict)

    def keeps(self, tag: str, step: int) -> bool:
        """Return whether no later session restates the point. Holds after pass one."""
        if self.purged_from is not None and step >= self.purged_from:
            return False
        limit = self.superseded_from.get(tag)
        return limit is None or step < limit

    def begun(self) -> float | None:
        """Return the wall time of the first point, in seconds since the epoch; None: there is no point."""
        with self.reading() as reader:
            return next((wall_time for _, _, wall_time, _ in reader), None)

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """Open the file for one reading. Raises as :meth:`Tree.open`."""
        opened = self.open()
        if isinstance(opened, LogFile):
            yield opened
        else:
            with closing(opened):
                yield self.reader(opened, self.path)


@dataclass(slots=True)
class Group:
    """The sessions of one writer, in time. ``label`` is the folder by which its series are told apart."""

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
    # Their names hold time, host and process: another file of one name is the same one.
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
    """Order sessions by when their first points were logged, where all of them say it.

    Writers that were begun in one second have names that tell no order, and files are renamed.
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
    """Make a group of each log of a framework."""
    folders = [path.rpartition("/")[0] for path in paths]
    groups = []
    for path, folder in zip(paths, folders, strict=True):
        # Two logs in a folder are not sessions of one another: their tags are told apart by the file.
        label = folder if folders.count(folder) == 1 else path
        groups.append(Group(label, [Session(path, _log_opener(tree, path))]))
    return sorted(groups, key=lambda group: group.label)


def wandb_groups(tree: Tree) -> list[Group]:
    """Find W&B's own logs; those below one ``wandb/`` are sessions of one training.

    Where two were begun in the same second, several processes logged: only those of one id belong together.
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

    Two folders begun in the same second were not resumed from one another (two writers of one training,
    say): among siblings where that happens, only those of the same host and comment belong together.
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
    """Sort key that takes runs of digits as numbers."""
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part
    ]
