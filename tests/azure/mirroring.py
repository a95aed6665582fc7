"""Runs the program in a scope of the emulator, and checks what a mirror must have left there."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azure.core.exceptions import ResourceNotFoundError

from azure_emulator.client import Azure
from builders.forks import AZURE, Forked, Forks, forks
from builders.program import PROGRAM, clean_environment

# Requests that the program does not send itself, or whose order varies.
ASIDE = r"/metadata/endpoints|/oauth2/"
RENEWAL = r"comp=lease"


@dataclass(frozen=True)
class Done:
    """The result of a call of the program."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The last JSON object on stdout."""
        found = json.loads(self.out.splitlines()[-1])
        assert isinstance(found, dict)
        return found


class Mirroring:
    """Calls of the program in one scope, in an empty folder.

    Lists and searches do not show a call's changes at once. The next call waits until they do. With
    ``settles`` set to False it does not wait.
    """

    def __init__(self, azure: Azure, folder: Path) -> None:
        self.azure, self.folder = azure, folder
        self.settles = True

    def _settle(self) -> None:
        if self.settles:
            self.azure.settle()

    def environment(self, **more: str) -> dict[str, str]:
        """The variables that lead into the scope, and the given ones. An empty one is removed."""
        found = clean_environment(**{**self.azure.env(), **more})
        return {key: value for key, value in found.items() if value}

    def _forks(self) -> Forks:
        # The plugin requests the cloud's metadata when it is loaded, so an emulator must be running.
        return forks(AZURE, lambda: clean_environment(**self.azure.control.scope("main").env()))

    def start(self, *arguments: str | Path, **environment: str) -> Forked:
        """Start the program in a fork of a process that has loaded the clients, and do not wait for it."""
        given = [str(argument) for argument in arguments]
        self._settle()
        return self._forks().start(given, self.folder, self.environment(**environment))

    def start_from_nothing(self, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
        """Start the program as a user does, and do not wait for it."""
        self._settle()
        return subprocess.Popen(
            [PROGRAM, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(
        self, *arguments: str | Path, code: int | None = 0, fork: bool = True, **environment: str
    ) -> Done:
        """Run the program to its end; without ``fork``, start it as a user does."""
        start = self.start if fork else self.start_from_nothing
        process = start(*arguments, **environment)
        out, err = process.communicate(timeout=600)
        assert process.returncode is not None
        done = Done(process.returncode, out, err)
        assert code is None or done.code == code, f"exit {done.code}\n{out}\n{err}"
        return done

    def mirror(
        self,
        run: str | Path,
        model: str,
        *more: str,
        code: int | None = 0,
        fork: bool = True,
        **environment: str,
    ) -> Done:
        """Mirror a run."""
        return self("--source", run, "--model-name", model, *more, code=code, fork=fork, **environment)


def runs_of(azure: Azure, experiment: str) -> list[Any]:
    """The runs of an experiment that are not retired."""
    found = azure.mlflow.get_experiment_by_name(experiment)
    runs = azure.mlflow.search_runs([found.experiment_id]) if found else []
    return [run for run in runs if run.data.tags.get("mirror.state") != "retired"]


def complete_versions(azure: Azure, model: str) -> dict[str, dict[str, Any]]:
    """The versions of a model that are marked complete, by number."""
    found = azure.models().get(model, {})
    return {
        number: version
        for number, version in found.items()
        if (version["tags"] or {}).get("mirror.state") == "complete"
    }


def assert_no_claim_is_held(azure: Azure) -> None:
    """Check that the claim is a blob that any program can lease."""
    service = azure.blob_service()
    for name in azure.blobs("aml-mirror/claims/"):
        assert service.get_blob_client(azure.container, name).get_blob_properties().lease.state != "leased", (
            name
        )


def files_of(azure: Azure, version: dict[str, Any]) -> dict[str, str]:
    """Path -> SHA-256 of each blob of a version."""
    prefix = str(version["modelUri"]).partition("/paths/")[2]
    return {
        name.removeprefix(prefix): hashlib.sha256(azure.read(name)).hexdigest()
        for name in azure.blobs(prefix)
    }


def points_of(azure: Azure, run_id: str, name: str) -> list[int]:
    """The steps of a metric in order, with duplicates."""
    return sorted(point.step for point in azure.mlflow.get_metric_history(run_id, name))


def artifacts_of(azure: Azure, run_id: str) -> dict[str, bytes]:
    """The artifacts of a run that have bytes."""
    found = {}
    for path, place in sorted(azure.artifact_places(run_id).items()):
        with suppress(ResourceNotFoundError):
            found[path] = azure.read(**place)
    return found


def wait_until_asked(azure: Azure, process: subprocess.Popen[str], text: str) -> None:
    """Return once a request that contains the text was seen. Fail if the program ends before."""
    while not azure.requests(text):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)


def assert_exactly_once(
    azure: Azure, model: str, run: Path, points: int, folder: str = "checkpoint-20"
) -> str:
    """One finished run, one complete version, the right bytes, each point once; returns the run's id."""
    (found,) = runs_of(azure, model)
    assert found.info.status == "FINISHED"
    assert found.data.tags["mirror.state"] == "complete"
    (number,) = azure.models()[model]
    version = complete_versions(azure, model)[number]
    assert found.data.tags["mirror.model_version"] == number
    assert version["properties"]["mlflow_run_id"] == found.info.run_id
    assert version["properties"]["identity"] == found.data.tags["identity"]
    run_id = str(found.info.run_id)
    assert "train/loss" in found.data.metrics
    for name in found.data.metrics:
        assert points_of(azure, run_id, name) == list(range(1, points + 1)), name
    expected = {
        name: hashlib.sha256((run / folder / name).read_bytes()).hexdigest()
        for name in ("model.safetensors", "config.json")
    }
    assert files_of(azure, version) == expected
    artifacts = artifacts_of(azure, run_id)
    for name in ("manifest.json", "receipt.json", "MODEL_CARD.md"):
        assert name in artifacts, artifacts.keys()
        assert artifacts[name], name
    events = next((run / "runs").rglob("events*"))
    path = f"tensorboard/{events.relative_to(run)}"
    assert artifacts[path] == events.read_bytes()
    return run_id
