"""Compressed files and archives: their contents decide, as far as they are unpacked here."""

from __future__ import annotations

from aml_mirror.formats.base import Format, Kind

COMPRESSED = Format(
    "compressed file", (".gz", ".bz2", ".xz", ".lzma", ".zst", ".z", ".lz4", ".br", ".pbz2", ".pklz", ".pgz"),
    Kind.PICKLE,
)  # fmt: skip
ARCHIVE = Format(
    "archive", (".tar", ".tgz", ".tbz2", ".txz", ".7z", ".rar", ".nemo", ".mar", ".cab", ".iso",
     ".dmg", ".deb", ".rpm"),
    Kind.CODE, run_by="whoever unpacks it",
)  # fmt: skip
