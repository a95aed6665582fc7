"""Quotes values for MLflow's filter language, which has two kinds of quotes and no escape for either."""

from __future__ import annotations


def quotable(value: str) -> bool:
    """Whether a value can be used in a filter."""
    return "'" not in value or '"' not in value


def quoted(value: str) -> str:
    """The value in quotes that do not occur in it."""
    return f"'{value}'" if "'" not in value else f'"{value}"'
