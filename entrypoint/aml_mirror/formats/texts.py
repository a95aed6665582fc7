"""Texts: a loader only reads values from them. A YAML file's tags are examined."""

from __future__ import annotations

from aml_mirror.formats.base import Format, Kind

YAML = Format("YAML", (".yaml", ".yml"), Kind.NO_CODE)
TEXT = Format(
    "text",
    (
        ".txt", ".md", ".rst", ".csv", ".tsv", ".jsonl", ".ndjson", ".toml", ".ini", ".cfg", ".log", ".xml",
        ".urdf", ".xacro", ".mjcf", ".model.cfg", ".bib", ".gitattributes", ".gitignore", ".jinja", ".diff",
        ".pbtxt", ".vocab", ".merges", ".bpe", ".tiktoken",
    ),
    Kind.NO_CODE,
)  # fmt: skip
