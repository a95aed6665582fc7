"""The tag ``task``: the task of the policy, as the run's configuration names it.

Sources: Isaac Lab's ``run.json`` (its train scripts write library and task; older releases write neither);
LeRobot's ``train_config.json`` (``env.task``, else the data set, ``dataset.repo_id``); IsaacGymEnvs'
``config.yaml`` (``task_name``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aml_mirror.support import redaction

# In the order in which they are trusted.
_WHERE = (
    ("run", "task"),
    ("agent", "task_name"),
    ("env", "task"),
    ("dataset", "repo_id"),
)
MAX_LENGTH = 250


def task_in(params: Mapping[str, Any]) -> str:
    """Return the task in a run's configuration; empty: none.

    Args:
        params: nested, like :attr:`aml_mirror.core.run.Run.params`.
    """
    for group, name in _WHERE:
        inside = params.get(group)
        found = inside.get(name) if isinstance(inside, Mapping) else None
        if isinstance(found, str) and found.strip():
            return str(redaction.value(name, found.strip()))[:MAX_LENGTH]
    return ""


def contradiction(params: Mapping[str, Any], given: str) -> list[str]:
    """Return a warning if a person names another task than the configuration."""
    found = task_in(params)
    if not given or not found or given == found:
        return []
    return [f"the run's configuration names the task {found}, but the version gets {given} from --task-name"]
