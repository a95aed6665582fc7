"""Describes a registered model, for its page."""

from __future__ import annotations

from collections.abc import Mapping

from aml_mirror.registries import keys
from aml_mirror.support.markdown import cell


def about_model(tags: Mapping[str, str]) -> str:
    """Return the description of a model, in Markdown.

    Args:
        tags: the tags of its first version.
    """
    task = tags.get(keys.TASK, "")
    return (
        f"Policies{f' for {cell(task)}' if task else ''}, mirrored from finished trainings by aml-mirror. "
        "Each version is one checkpoint of one run. Its card says which, and how good it was."
    )
