"""Names of stages as a person writes them."""

from __future__ import annotations

from aml_mirror.core.errors import UsageError
from aml_mirror.pull.reference import parse
from aml_mirror.registries.stages import check_stage


def parse_stage_reference(text: str, command: str) -> tuple[str, str]:
    """Parse ``MODEL@STAGE``, in any form that ``pull`` accepts; return both.

    Raises:
        UsageError: the text names no stage.
    """
    try:
        found = parse(text)
    except UsageError:
        found = None
    if found is None or not found.stage:
        raise UsageError(
            f"{text!r} does not name a stage of a model" if text else "no stage of a model is named",
            f"for example: aml-mirror {command} act-pick@production",
        )
    return found.model, check_stage(found.stage)
