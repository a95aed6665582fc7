"""Sets up the stub ``osmo`` and its world for a test."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

STUB = Path(__file__).with_name("osmo_stub.py")


class OsmoWorld:
    """A separate control plane: ``bin`` contains the program, ``config`` the login."""

    def __init__(self, folder: Path, version: str = "6.3") -> None:
        self.bin, self.config = folder / "osmo-bin", folder / "osmo-config"
        self.bin.mkdir(parents=True)
        self.config.mkdir()
        self._path = self.config / "world.json"
        self._path.write_text(
            json.dumps(
                {"version": version, "workflows": {}, "faults": [], "calls": [], "default_pool": "default"}
            )
        )
        program = self.bin / "osmo"
        # Only submitting needs more than the standard library. Without site packages Python starts faster.
        program.write_text(
            f'#!/bin/sh\n[ "$2" = submit ] && exec "{sys.executable}" "{STUB}" "$@"\n'
            f'exec "{sys.executable}" -E -S "{STUB}" "$@"\n'
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead to the program and its login."""
        return {
            "PATH": f"{os.environ['PATH']}{os.pathsep}{self.bin}",
            "OSMO_CONFIG_FILE_DIR": str(self.config),
        }

    @contextmanager
    def changed(self) -> Iterator[dict[str, Any]]:
        """Yield the world's state, and store the changes made to it."""
        with open(f"{self._path}.lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = json.loads(self._path.read_text())
            yield state
            self._path.write_text(json.dumps(state))

    @property
    def state(self) -> dict[str, Any]:
        """The current state of the world."""
        with self.changed() as state:
            return dict(state)

    @property
    def calls(self) -> list[list[str]]:
        """The arguments of every call, in order."""
        return [call["arguments"] for call in self.state["calls"]]

    def log_out(self) -> None:
        """Log out."""
        self._path.unlink()

    def open_to_all(self) -> None:
        """Let any user read the login, as OSMO mounts it into pods."""
        self.config.chmod(0o755)
        self._path.chmod(0o644)

    def fault(self, on: str, times: int = 1, **fault: Any) -> None:
        """Let the next calls of a command fail; see osmo_stub.py."""
        with self.changed() as state:
            state["faults"].append({"on": on, "times": times, **fault})

    def add(
        self,
        name: str,
        tasks: Mapping[str, Sequence[Any]] | None = None,
        status: str = "COMPLETED",
        task_status: Mapping[str, str] | None = None,
        spec: str | None = None,
        **more: Any,
    ) -> str:
        """Add a run; returns its UUID.

        Args:
            tasks: name -> its declared outputs: URLs, or whole entries of ``outputs``; ``checkpoint`` entries
                are those with a ``frequency``.
            spec: what ``workflow spec`` prints, if it is not built from ``tasks``.
            more: further fields of the workflow, described in osmo_stub.py.
        """
        tasks = {"train": []} if tasks is None else tasks
        groups = []
        for task, declared in tasks.items():
            entries = [{"url": one} if isinstance(one, str) else one for one in declared]
            made = {"name": task, "image": "registry.example/training:1", "command": ["python"], "lead": True}
            for key, wanted in (("outputs", False), ("checkpoint", True)):
                if found := [entry for entry in entries if ("frequency" in entry) is wanted]:
                    made[key] = found
            groups.append({"name": f"{task}-group", "tasks": [made]})
        document = {"version": 2, "workflow": {"name": name.rpartition("-")[0] or name, "groups": groups}}
        identifier = uuid.uuid4().hex
        with self.changed() as state:
            state["workflows"][name] = {
                "uuid": identifier,
                "status": status,
                "spec": yaml.dump(document) if spec is None else spec,
                "outputs": "",
                "logs": [],
                "tasks": [
                    {
                        "name": task,
                        "group": f"{task}-group",
                        "status": (task_status or {}).get(task, status),
                        "exit_code": 0 if status == "COMPLETED" else None,
                        "task_uuid": uuid.uuid4().hex,
                    }
                    for task in tasks
                ],
                **more,
            }
        return identifier
