"""Containers of the image, started like OSMO starts a task: with a command, without the entry point.

The root file system is read-only, there are no capabilities and no way to get any, and the user has any
number. Inputs belong to OSMO's uid 1001 and are mounted read-only. The network is the host's, where the
emulated Azure listens.
"""

from __future__ import annotations

import subprocess
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builders.program import Done

OSMO = 1001
INPUT = "/osmo/data/input/0"
TOKEN = "/var/run/secrets/azure/tokens/azure-identity-token"  # workload identity mounts it here
CA = "/etc/emulator/ca.pem"
LOCKED_DOWN = (
    *("--read-only", "--tmpfs", "/tmp"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
)


def in_azure(env: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return a scope's variables for a container, and the mounts of the files that they name."""
    inside = {**env, "AZURE_FEDERATED_TOKEN_FILE": TOKEN, "REQUESTS_CA_BUNDLE": CA}
    mounts = [f"{env['AZURE_FEDERATED_TOKEN_FILE']}:{TOKEN}:ro", f"{env['REQUESTS_CA_BUNDLE']}:{CA}:ro"]
    return inside, mounts


@dataclass
class Image:
    """The image under test."""

    docker: str
    reference: str
    started: list[str] = field(default_factory=list)

    def call(self, *arguments: str | Path, check: bool = True) -> str:
        """Return the client's stdout."""
        done = subprocess.run([self.docker, *map(str, arguments)], capture_output=True, text=True)
        assert not check or not done.returncode, done.stdout + done.stderr
        return done.stdout

    def start(
        self,
        *arguments: str,
        env: dict[str, str] | None = None,
        mounts: list[str] | None = None,
        options: tuple[str, ...] = ("--network", "host"),
        command: str | None = "aml-mirror",
    ) -> str:
        """Start a container and return its name. ``command`` None keeps the image's own entry point."""
        name = f"aml-mirror-test-{uuid.uuid4().hex[:12]}"
        self.started.append(name)
        self.call(
            *("run", "--detach", "--name", name),
            *LOCKED_DOWN,
            *options,
            *(() if command is None else ("--entrypoint", command)),
            *(word for key, value in (env or {}).items() for word in ("--env", f"{key}={value}")),
            *(word for mount in mounts or [] for word in ("--volume", mount)),
            *(self.reference, *arguments),
        )
        return name

    def wait(self, name: str) -> Done:
        """Wait for a container's end."""
        code = int(self.call("wait", name))
        done = subprocess.run([self.docker, "logs", name], check=True, capture_output=True, text=True)
        return Done(code, done.stdout, done.stderr)

    def run(self, *arguments: str, code: int = 0, **how: Any) -> Done:
        """Run a container to its end. ``how`` is that of ``start``."""
        done = self.wait(self.start(*arguments, **how))
        assert done.code == code, f"exit {done.code}\n{done.out}\n{done.err}"
        return done

    def shell(self, script: str) -> str:
        """Return the output of a shell script that runs as root in a container of the image."""
        return self.call("run", "--rm", "--user", "0", "--entrypoint", "sh", self.reference, "-c", script)

    def give_to_osmo(self, folder: Path) -> str:
        """Give a folder the owner and modes of an OSMO download, and return its mount."""
        own = f"chown -R {OSMO}:{OSMO} /given && chmod -R u=rwX,go=rX /given"
        self.call(
            *("run", "--rm", "--user", "0", "--volume", f"{folder}:/given"),
            *("--entrypoint", "sh", self.reference, "-c", own),
        )
        return f"{folder}:{INPUT}:ro"

    def remove_all(self) -> None:
        """Remove the containers that were started."""
        if self.started:
            self.call("rm", "--force", *self.started, check=False)
