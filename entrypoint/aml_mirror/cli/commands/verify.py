"""``aml-mirror verify``."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from aml_mirror.cli import output
from aml_mirror.cli.commands.base import Call, Command
from aml_mirror.core.errors import ConfigurationError, UsageError
from aml_mirror.pull.reference import parse


def run(call: Call) -> int:
    """Print whether a version is what was mirrored; 65 if it differs."""
    if (folder := pulled_folder(call.settings.reference)) is not None:
        from aml_mirror.pull.verify_folder import verify_folder

        found = verify_folder(folder, call.settings.public_key, call.console)
        output.print_text(json.dumps(found.as_dict()) if call.settings.json else found.text())
        return 0 if found.holds else 65
    if importlib.util.find_spec("mlflow") is None:
        raise ConfigurationError(
            "aml-mirror-pull, which is installed here, only verifies pulled folders",
            "pull the version, which verifies it, or install aml-mirror",
        )
    from aml_mirror.verify.verify import text, verify

    result = verify(call.settings, call.console)
    output.print_text(json.dumps(result.as_dict()) if call.settings.json else text(result))
    return 0 if result.holds else 65


def pulled_folder(text: str) -> Path | None:
    """Return the folder that a person means; None: a version in a registry.

    Raises:
        UsageError: the text names an existing folder, and also a version.
    """
    try:
        parse(text)
    except UsageError:
        # A text that cannot be a version is a folder, even one that does not exist.
        return Path(text) if text and ("/" in text or Path(text).exists()) and "://" not in text else None
    if Path(text).is_dir():
        raise UsageError(
            f"{text} is a folder here, but may also be a version", f"pass ./{text} for the folder"
        )
    return None


COMMAND = Command(
    "verify",
    "compare every byte of a registered version, or of a pulled folder, with what was mirrored",
    (
        "aml-mirror verify ppo-reach:3 --tracking-uri sqlite:///mlflow.db",
        "aml-mirror verify ppo-reach:3 --public-key release.pub",
        "aml-mirror verify policies/ppo",
    ),
    run,
)
