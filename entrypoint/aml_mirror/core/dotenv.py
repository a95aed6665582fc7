"""Reads ``.env`` in the working directory."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from aml_mirror.core.errors import ConfigurationError

# A .env file has some dozen lines. When parsed, each takes a hundred times its size.
MAX_DOTENV_BYTES = 256 << 10


def read_dotenv(directory: Path) -> dict[str, str]:
    """Read the ``.env`` file of a directory; no file counts as an empty one.

    Raises:
        ConfigurationError: it exists but cannot be read, or a line of it is not ``NAME=value``.
    """
    path = directory / ".env"
    try:
        if not path.is_file():
            return {}
        if path.stat().st_size > MAX_DOTENV_BYTES:
            raise ConfigurationError(
                f"{path} is larger than {MAX_DOTENV_BYTES >> 10} KiB",
                "check whether it is a .env file, or remove it",
            )
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", "fix the file or remove it") from error
    return parse(text, path)


def parse(text: str, path: Path) -> dict[str, str]:
    """Parse the text of a ``.env`` file; ``path`` is used in errors.

    Raises:
        ConfigurationError: a line is not ``NAME=value``. The line itself may contain a secret and is not
            quoted.
    """
    # Imported late: most calls have no .env.
    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    for binding in parse_stream(StringIO(text)):
        if binding.error:
            line = binding.original.line + _blank_lines(binding.original.string)
            raise ConfigurationError(
                f"{path}, line {line}: not NAME=value",
                "fix the line, or put # before it to make it a comment",
            )
    values = dotenv_values(stream=StringIO(text))
    return {name: value for name, value in values.items() if value is not None}


def _blank_lines(text: str) -> int:
    """Count the empty lines at the beginning. The parser counts them as a part of the next line."""
    body = text.lstrip()
    return text[: len(text) - len(body)].count("\n")
