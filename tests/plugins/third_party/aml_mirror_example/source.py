"""A run in a zip archive: ``--source zip:///DIR/run.zip``."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from aml_mirror.core.errors import DataError, SourceNotFound, UsageError
from aml_mirror.core.settings import Settings
from aml_mirror.sources.base import Entry, Listing, Source
from aml_mirror.sources.source_type import SourceType


class ZipType(SourceType):
    """See :class:`aml_mirror.sources.source_type.SourceType`."""

    name = "zip"
    form = "zip:///DIR/RUN.zip"
    schemes = ("zip",)

    def open(self, uri: str, settings: Settings, notice: Callable[[str], None]) -> Source:
        parts = urlsplit(uri)
        if parts.netloc or not parts.path.endswith(".zip"):
            raise UsageError(f"the source {uri} names no zip archive", f"for example: --source {self.form}")
        return ZipSource(Path(parts.path))


class ZipSource:
    """See :class:`aml_mirror.sources.base.Source`."""

    has_etags = False

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def uri(self) -> str:
        return f"zip://{self._path}"

    @property
    def name(self) -> str:
        return self._path.stem

    def scan(self) -> Listing:
        if not self._path.is_file():
            raise SourceNotFound(f"there is no {self._path}", "check the path")
        with zipfile.ZipFile(self._path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
        return Listing({info.filename: _entry(info) for info in infos})

    def open(self, entry: Entry) -> BinaryIO:
        try:
            with zipfile.ZipFile(self._path) as archive:
                info = archive.getinfo(entry.path)
                if _entry(info).stamp == entry.stamp:
                    return io.BytesIO(archive.read(info))
        except (KeyError, OSError, zipfile.BadZipFile):
            pass
        raise DataError(f"{entry.path} is not the file that was listed", "run again")

    def read(self, entry: Entry, offset: int, length: int) -> bytes:
        with self.open(entry) as stream:
            stream.seek(offset)
            return stream.read(length)

    def is_unchanged(self, entry: Entry) -> bool:
        try:
            self.open(entry).close()
        except DataError:
            return False
        return True

    def changed(self, entries: Iterable[Entry]) -> list[str]:
        return [entry.path for entry in entries if not self.is_unchanged(entry)]


def _entry(info: zipfile.ZipInfo) -> Entry:
    return Entry(info.filename, info.file_size, f"{info.CRC:08x}-{info.file_size}-{info.date_time}")
