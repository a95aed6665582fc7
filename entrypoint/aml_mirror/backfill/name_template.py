"""The names of runs and models.

A run's id is the path of its own root below the prefix. It stays the same whatever is put beside the run, and
two runs ``a/seed0`` and ``b/seed0`` differ. But a run may have been mirrored under another id: alone, under
its folder's name; from a prefix further up or down; by an earlier release, under the topmost folder that
contained no other run. All these are consecutive parts of its full path. A run is recognised under any of
them as long as its files have not changed. New runs are mirrored under their path.
"""

from __future__ import annotations

from string import Formatter

from aml_mirror.core.errors import DataError, UsageError

MAX_RUN_ID = 256  # characters
# How many parent folders of the prefix a backfill may have been started from.
_ABOVE = 4

PLACEHOLDERS = {
    "run_id": "the run's id",
    "name": "the name of its folder",
    "parent": "the name of the folder around that",
    "framework": "its layout",
}


def other_names(path: str, above: str = "") -> list[str]:
    """Return the ids, besides its path, under which a run may have been mirrored, the most likely first.

    Args:
        path: the path of its root below the prefix.
        above: the prefix, a path or a URI.
    """
    upper = [part for part in above.partition("://")[2 if "://" in above else 0].split("/") if part]
    upper = upper[-_ABOVE:]
    parts = [*upper, *path.split("/")]
    names = [
        "/".join(parts[start:end])
        for start in range(len(parts) - 1, -1, -1)
        for end in range(max(start, len(upper)) + 1, len(parts) + 1)
    ]
    return [name for name in dict.fromkeys(names) if name != path]


def check_run_id(path: str) -> None:
    """Check that a path can be an id.

    Raises:
        DataError: it cannot.
    """
    if len(path) > MAX_RUN_ID or not path.isprintable():
        raise DataError(
            f"its path cannot be a run's id: it has more than {MAX_RUN_ID} characters, or unprintable ones",
            "mirror it by itself: aml-mirror mirror --source DIR --run-id ID",
        )


class ModelNames:
    """``--model-name`` with placeholders.

    Raises:
        UsageError: a placeholder is unknown.
    """

    def __init__(self, template: str, prefix_name: str) -> None:
        self._template = template
        self._prefix_name = prefix_name
        hint = "the placeholders are: " + ", ".join(
            f"{{{name}}}, {what}" for name, what in PLACEHOLDERS.items()
        )
        try:
            parsed = list(Formatter().parse(template))
        except ValueError as error:
            raise UsageError(f"--model-name {template!r} cannot be read: {error}", hint) from error
        for _, name, spec, conversion in parsed:
            if name is not None and (name not in PLACEHOLDERS or spec or conversion):
                raise UsageError(f"--model-name {template!r} has an unknown placeholder {{{name}}}", hint)
        self.is_template = any(name is not None for _, name, _, _ in parsed)

    def of(self, run_id: str, framework: str) -> str:
        """Return the model of a run. A ``/`` in an id becomes ``-``, because no model name can contain it."""
        parts = [self._prefix_name, *run_id.split("/")]
        return self._template.format(
            run_id=run_id.replace("/", "-"), name=parts[-1], parent=parts[-2], framework=framework
        )
