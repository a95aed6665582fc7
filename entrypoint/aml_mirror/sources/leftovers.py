"""The files that interrupted copying tools leave behind, and the intended name of each.

A copy tool writes to a temporary name and renames the file when it is complete. If only the temporary file
exists, the real file is missing. Then :class:`aml_mirror.sources.tree.Tree` shows it as incomplete, so that
every layout sees it. If the complete file exists too, the leftover is ignored.

The names, and the tools that use them:

- ``.azDownload-<job>-NAME``: azcopy 10 (ste/xfer-remoteToLocal-file.go)
- ``.NAME.Xy12Ab``: rsync 3 (receiver.c, mkstemp); ``.rsync-partial/NAME`` and ``.~tmp~/NAME`` with
  its options ``--partial-dir`` (the name that its manual uses) and ``--delay-updates``
- ``NAME.<hex>.partial``: rclone 1.63 and later (fs/operations/copy.go)
- ``NAME_.gstmp``: gsutil and ``gcloud storage``
- ``.cache/huggingface/download/…``: ``hf download`` into a folder (huggingface_hub, _local_folder.py): the
  name is a hash, in older versions the file's own
- ``NAME.<hex>``: the AWS SDK for Python (s3transfer, utils.py)
- ``NAME<digits>``: s5cmd 2.1 and later (command/cp.go; Go's CreateTemp puts up to ten digits behind a name)
- ``NAME.part.minio``: MinIO's client; ``NAME.filepart``: WinSCP
- ``NAME.crdownload``, ``NAME.part``, ``NAME.<random>.part``, ``NAME.opdownload``: Chrome and Edge, Firefox,
  Opera; ``NAME.download/NAME``: Safari
- ``NAME.aria2``, ``NAME.st``, ``NAME.lftp-pget-status``: aria2, axel and lftp keep it beside an incomplete
  NAME; ``NAME.cyberducksegment``, ``NAME.mega``: Cyberduck, MEGA
- ``NAME.tmp``, ``.NAME.tmp``: programs that rename a file after saving it, and Syncthing
  (``.syncthing.NAME.tmp``); ``.unison.NAME.<hex>.unison.tmp``: Unison; ``.NAME.~<hex>``: ownCloud and
  Nextcloud
- ``NAME.uploading``, ``NAME.downloading``, …: scripts that use a word
- ``.fuse_hidden…``: libfuse (blobfuse) gives this name to a file that was removed while it was open

curl and wget write to NAME itself. Only its bytes can show that it is truncated.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Container

# If the marker is too weak to mean "temporary", the rest of the name must be that of a file of a run. The
# formats are a package above this one: tests/formats/test_registry.py compares the list with theirs.
_FILE = (
    r"[^/.][^/]*\.(?:safetensors|pt|pth|ckpt|pth\.tar|pt\.tar|ckpt\.tar|bin|zip|pkl|pickle|npz|onnx|msgpack|ocdbt|h5|hdf5|keras|d3|distcp"
    r"|cleanrl_model|gguf|pt2|pte|ptl|tflite|json|jsonl|ya?ml|csv|txt)"
)
# Files that tools keep beside a NAME while they write to it.
_CONTROLS = (".aria2", ".st", ".lftp-pget-status")
# Tools and scripts put these words behind the name of an incomplete file.
_SAYS = (
    r"(?:part|crdownload|opdownload|filepart|tmp|temp|download|downloading|upload|uploading|unfinished"
    r"|inprogress|in-progress|transferring|writing|cyberducksegment|mega|aria2|st|lftp-pget-status)"
)
_LEFTOVERS = tuple(
    re.compile(pattern)
    for pattern in (
        r"\.azDownload-[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}-(?P<name>.+)",
        r"\.azDownload-[^-]+-(?P<name>.+)",
        r"\.syncthing\.(?P<name>.+)\.tmp",
        r"(?P<name>.+)_\.gstmp(?:_[0-9]+)?",
        r"(?P<name>.+)\.part\.minio",
        r"(?P<name>.+?)(?:\.[0-9a-f]{8})?\.partial",
        r"(?P<name>.+?)(?:\.[0-9a-f]{40}|\.[0-9a-f]{64}|\.[0-9a-f]{32})?\.incomplete",
        r"\.unison\.(?P<name>.+?)(?:\.[0-9a-f]+)?\.unison\.tmp",
        # Firefox puts random characters between the name and the word.
        rf"(?P<name>{_FILE})(?:\.[A-Za-z0-9_-]{{8,40}})?\.{_SAYS}",
        rf"(?P<name>checkpoint_[0-9]+)\.{_SAYS}",
        rf"\.(?P<name>{_FILE})\.~[0-9a-f]+",
        # Go's random number. One with eight digits may be a date.
        rf"(?P<name>{_FILE})[0-9]{{9,10}}",
        # rsync: six letters or digits. NAME has a suffix or a number, or is hidden itself.
        r"\.(?P<name>\.[^/.][^/]*|[^/.][^/]*[.0-9][^/]*)\.(?:[A-Za-z0-9]{6}|tmp|temp|part)",
        # One of the eight hexadecimal digits must be a letter. Otherwise it could be a step.
        rf"(?P<name>{_FILE})\.(?=[0-9]*[a-fA-F])[0-9a-fA-F]{{8}}",
    )
)
_NAMELESS = re.compile(r"Unconfirmed [0-9]+\.crdownload")
_REMOVED = re.compile(r"\.fuse_hidden[0-9a-fA-F]+")
_FOLDERS = re.compile(
    r"(?P<folder>(?:.*/)?)(?:\.rsync-partial|\.~tmp~|(?P<own>[^/]+)\.download)/(?P<name>[^/]+)"
)
_HUB = re.compile(
    r"(?P<folder>(?:.*/)?)\.cache/huggingface/download/(?P<below>(?:.*/)?)(?P<name>[^/]+)\.incomplete"
)


# Every leftover's path contains one of these, so most files are ruled out quickly.
_MAYBE = re.compile(
    rf"(?:^|/)(?:\.|Unconfirmed )|_\.gstmp|\.minio$|\.(?:partial|incomplete|{_SAYS})$|download"
    r"|\.[0-9a-fA-F]{8}$|[0-9]{9}$"
)


def unfinished(path: str) -> str | None:
    """Return the intended path of a leftover.

    None: the path is not a leftover. Empty: it is one, but its name does not say for which file.
    """
    if not _MAYBE.search(path):
        return None
    folder, _, name = path.rpartition("/")
    prefix = folder + "/" if folder else ""
    if _REMOVED.fullmatch(name) or _NAMELESS.fullmatch(name):
        return ""
    if match := _HUB.fullmatch(path):
        plain = re.sub(r"\.[0-9a-f]{32,64}$", "", match["name"])
        # A SHA-1 in Base64 has 28 characters.
        return "" if re.match(r"[A-Za-z0-9_-]{27}=", plain) else match["folder"] + match["below"] + plain
    if (match := _FOLDERS.fullmatch(path)) and match["own"] in (None, match["name"]):
        return match["folder"] + match["name"]
    for pattern in _LEFTOVERS:
        if match := pattern.fullmatch(name):
            return prefix + match["name"]
    return None


def marks_unfinished(path: str) -> str:
    """Return the path of the file that a control file marks as incomplete; empty: not a control file."""
    return next((path.removesuffix(end) for end in _CONTROLS if path.endswith(end)), "")


def may_be_missing(path: str, known: Container[str], names: dict[str, tuple[str, ...]]) -> bool:
    """Tell whether a leftover without a name may belong to a missing file.

    Args:
        known: the paths of the existing files.
        names: folder -> the names of the files in it.
    """
    if _REMOVED.fullmatch(path.rpartition("/")[2]):
        return False
    if match := _HUB.fullmatch(path):
        folder = (match["folder"] + match["below"]).rstrip("/")
        return not any(match["name"].startswith(_hub_name(name)) for name in names.get(folder, ()))
    return path not in known


def _hub_name(name: str) -> str:
    digest = hashlib.sha1(f"{name}.metadata".encode(), usedforsecurity=False).digest()
    return base64.urlsafe_b64encode(digest).decode()
