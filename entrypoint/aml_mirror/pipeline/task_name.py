"""The tag ``task``: what the policy does, as the run's configuration names it.

Sources: Isaac Lab's ``run.json`` (its train scripts write library and task; older releases write neither);
LeRobot's ``train_config.json`` (``env.task``, else the data set, ``dataset.repo_id``); IsaacGymEnvs'
``config.yaml`` (``task_name``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aml_mirror.support import redaction

# In the order in which they are believed.
_WHERE = (
    ("run", "task"),
    ("agent", "task_name"),
    ("env", "task"),
    ("dataset", "repo_id"),
)
MAX_LENGTH = 250


def task_in(params: Mapping[str, Any]) -> str:
    """Return the task that a run's configuration names; empty: it names none.

    Args:
        params: nested, as :attr:`aml_mirror.core.run.Run.params`.
    """
    for group, name in _WHERE:
        inside = params.get(group)
        found = inside.get(name) if isinstance(inside, Mapping) else None
        if isinstance(found, str) and found.strip():
            return str(redaction.value(name, found.strip()))[:MAX_LENGTH]
    return ""


def contradiction(params: Mapping[str, Any], given: str) -> list[str]:
    """Return a warning where a person names another task than the configuration does."""
    found = task_in(params)
    if not given or not found or given == found:
        return []
    return [f"the run's configuration names the task {found}; the version gets {given}, as --task-name says"]
