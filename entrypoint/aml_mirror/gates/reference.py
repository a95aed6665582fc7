"""Names of versions, models and stages as a person writes them."""

from __future__ import annotations

import re

from aml_mirror.core.errors import UsageError
from aml_mirror.registries.stages import check_stage


def parse_stage_reference(text: str, command: str) -> tuple[str, str]:
    """Read ``MODEL@STAGE``, ``models:/MODEL@STAGE`` or ``azureml:MODEL@STAGE``.

    Raises:
        UsageError: none of them.
    """
    plain = text.removeprefix("models:/").removeprefix("azureml:")
    match = re.fullmatch(r"([^/:@]+)@([^/:@]+)", plain)
    if match is None:
        raise UsageError(
            f"{text!r} does not name a stage of a model" if text else "no stage of a model is named",
            f"for example: aml-mirror {command} act-pick@production",
        )
    return match[1], check_stage(match[2])
