"""A model with versions and evaluations, for the tests of stages: the same on every registry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from builders.evaluations import lerobot
from builders.runs import huggingface_run

GATE = "schema: aml-mirror/gate/v1\nepisodes: 10\nsuccess_rate: {at_least: 0.8}\n"
SIGNED = "schema: aml-mirror/gate/v1\nversion: {signed: true}\nevidence: {signed: true}\n"

Command = Callable[..., Any]
"""Runs the program: arguments, and ``code=`` for the expected exit code."""


class Gated:
    """One model, ``act``.

    Args:
        call: runs the program against the registry.
        folder: for runs, results and policies.
        model: the model's name.
    """

    def __init__(self, call: Command, folder: Path, model: str = "act") -> None:
        self.call, self.folder, self.model = call, folder, model

    def mirror(self, step: int, *more: str) -> str:
        """Mirror a run whose checkpoint has this step; return the number of its version."""
        run = huggingface_run(self.folder / f"run-{step}", steps=(step,), points=step)
        done = self.call("mirror", run, "--model-name", self.model, *more)
        return str(done.json["model_version"])

    def result(self, successes: int, episodes: int, seed: int = 0) -> Path:
        """Write a result of LeRobot's evaluation."""
        path = self.folder / f"eval-{successes}-{episodes}-{seed}.json"
        path.write_text(json.dumps(lerobot(successes, episodes, seed)))
        return path

    def evaluate(self, number: str, successes: int, episodes: int, *more: str, code: int = 0) -> Any:
        """Attach a result to a version."""
        result = self.result(successes, episodes)
        return self.call("evaluate", f"{self.model}:{number}", "--result", result, "--json", *more, code=code)

    def promote(self, number: str, *more: str | Path, stage: str = "production", code: int = 0) -> Any:
        """Promote a version."""
        return self.call("promote", f"{self.model}:{number}", "--to", stage, "--json", *more, code=code)

    def policy(self, text: str = GATE) -> str:
        """Write a policy; return its path."""
        path = self.folder / "gate.yaml"
        path.write_text(text)
        return str(path)

    def history(self, stage: str = "production") -> dict[str, Any]:
        """The history of a stage."""
        found = self.call("history", f"{self.model}@{stage}", "--json").json
        assert isinstance(found, dict)
        return found

    def holder(self, stage: str = "production") -> str | None:
        """The number of the version that has a stage."""
        found = self.history(stage)["stages"][stage]
        return None if found is None else str(found)


def key_pair(folder: Path, name: str) -> tuple[str, str]:
    """Write a new key pair; return the paths of the private and the public key."""
    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return str(private), str(public)
