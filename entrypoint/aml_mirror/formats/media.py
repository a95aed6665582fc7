"""Pictures, films, meshes and tables: recognised by their first bytes, read without an interpreter."""

from __future__ import annotations

from aml_mirror.formats.base import Format, Kind

MEDIA = Format(
    "picture or film",
    (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".mp4", ".avi",
     ".mkv", ".webm", ".mov", ".wav"),
    Kind.NO_CODE,
)  # fmt: skip
MESH = Format("mesh", (".stl", ".obj", ".ply", ".glb", ".dae", ".mtl"), Kind.NO_CODE)
TABLE = Format("table", (".parquet", ".arrow", ".feather"), Kind.NO_CODE)
EVENTS = Format("TensorBoard events", (".tfevents",), Kind.NO_CODE)
SENTENCEPIECE = Format("SentencePiece vocabulary", (".model", ".spm"), Kind.NO_CODE)
