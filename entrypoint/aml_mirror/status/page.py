"""``status --html``: the runs of a backlog as one static file that loads nothing from outside.

The page contains the rows as JSON, and ``page.js`` shows a hundred at a time: 10,000 runs take about 3 MB.
Names come from runs, so they may contain anything. They reach the page only as text: the JSON contains no
``<``, and the script sets ``textContent``. A policy in the page's head allows its own style and script, by
their digests, and no requests.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from aml_mirror import __version__
from aml_mirror.core.errors import SourceNotFound, UsageError
from aml_mirror.status.curves import Curve
from aml_mirror.support import redaction
from aml_mirror.support.progress import one_line

Cells = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class PageRow:
    """One run, as a row of the page."""

    name: str
    state: str
    """A state of :class:`aml_mirror.status.prefix_status.RunStatus`, or ``skipped``."""
    framework: str = ""
    model: str = ""
    versions: tuple[tuple[str, str, str], ...] = ()
    """For each version: its number, its URI, and any remark, for example `` (archived)``."""
    checkpoint: str = ""
    step: int | None = None
    written: float = 0.0
    """When its newest file was written, in seconds since the epoch; 0: unknown."""
    why: str = ""
    """What is missing, and why."""
    curve: Curve | None = None

    def cells(self) -> Cells:
        """The row in the form that ``page.js`` reads."""
        curve = self.curve
        return (
            _clean(self.name), self.state, self.framework, _clean(self.model),
            [[_clean(number), _clean(uri), more] for number, uri, more in self.versions],
            _clean(self.checkpoint), self.step, round(self.written), _clean(self.why),
            [
                _clean(curve.name), [float(f"{value:.5g}") for value in curve.values if math.isfinite(value)],
                curve.last_step, curve.last,
            ] if curve else None,
        )  # fmt: skip


def page(place: str, registry: str, rows: Iterable[PageRow], footer: str = "") -> str:
    """Return the page.

    Args:
        place: the URI of the folder of the runs.
        registry: its name in the status.
        rows: the runs.
        footer: a sentence below the table.
    """
    shown = [row.cells() for row in rows]
    models = {row[3] for row in shown if row[3]}
    style, script = _part("page.css"), _part("page.js")
    now = datetime.now(UTC).replace(microsecond=0)
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    data = json.dumps(shown, separators=(",", ":"), allow_nan=False)
    for char in "<>&":
        data = data.replace(char, f"\\u{ord(char):04x}")
    name = _clean(place)
    model = f"<div><dt>Model</dt><dd><bdi>{_text(min(models, default=''))}</bdi></dd></div>\n"
    values = {
        "policy": policy,
        "title": _text(f"Runs in {name}"),
        "heading": f"Runs in <bdi>{_text(name)}</bdi>",
        "registry": _text(_clean(registry)),
        "model": model if len(models) == 1 else "",
        "made": now.isoformat(),
        "made_text": f"{now:%Y-%m-%d %H:%M} UTC",
        "version": __version__,
        "footer": _text(footer),
        "data": data,
        "style": style,
        "script": script,
    }
    # Piece by piece, because a value may look like a placeholder.
    pieces = []
    for part in _part("page.html").split("{"):
        key, brace, rest = part.partition("}")
        pieces.append(values[key] + rest if brace else part)
    return "".join(pieces)


def require_writable(path: Path) -> None:
    """Check before the work that a page can be written.

    Raises:
        UsageError: the path is a folder.
        SourceNotFound: its folder does not exist.
    """
    if path.is_dir():
        raise UsageError(f"--html {path} is a folder", "pass the name of a file: --html runs.html")
    if not path.absolute().parent.is_dir():
        raise SourceNotFound(
            f"--html {path}: there is no folder {path.parent}", "create it, then run the command again"
        )


def write(text: str, path: Path) -> None:
    """Write a page to a temporary file and rename it, so that nobody reads an incomplete one.

    Raises:
        OSError: it cannot be written; an earlier page stays.
    """
    number, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name[:100]}.", suffix=".part")
    try:
        with open(number, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@lru_cache(maxsize=4096)
def _clean(text: str) -> str:
    return one_line(redaction.text(text))


def _text(text: str) -> str:
    return html.escape(text)
