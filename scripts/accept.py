#!/usr/bin/env python3
"""Try aml-mirror in a real Azure ML workspace, and print a table to paste into an issue.

Usage: accept.py [FOLDER]      (FOLDER is deleted first; default: .accept)

AZURE_SUBSCRIPTION_ID, AZURE_RESOURCE_GROUP and AZUREML_WORKSPACE_NAME name the workspace. The script makes a
small run and mirrors it. It kills the first mirror with SIGKILL; the second continues. Then it mirrors the
run again, and once more after its log has grown. It changes a stored file, which `verify` must find and
`repair` must restore. `doctor --probe` answers the open questions. At the end the script removes everything
that it made, as far as the service allows, and names what is left. The table contains no name, address or id
of the workspace.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import demo
from azure.core.exceptions import AzureError

from aml_mirror import __version__
from aml_mirror.core.errors import MirrorError
from aml_mirror.core.settings import Settings
from aml_mirror.registries import keys
from aml_mirror.registries.azureml.limits import FOLDER, safe_part
from aml_mirror.registries.azureml.probe import NAME as PROBE
from aml_mirror.registries.azureml.version_folder import datastore_path
from aml_mirror.registries.azureml.workspace import AzureMLRegistry
from aml_mirror.registries.azureml.workspace_loader import load_workspace
from aml_mirror.support.library_internals import metric_history_page

COORDINATES = ("AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP", "AZUREML_WORKSPACE_NAME")
PROGRAM = str(Path(sys.executable).with_name("aml-mirror"))
POLL_SECONDS = 0.2
MORE_STEPS = 50


class Failed(Exception):
    """A step had another result than expected."""


def wanted(found: Any, right: Any, what: str) -> None:
    """Fail unless two values are equal."""
    if found != right:
        raise Failed(f"{what} is {found!r}, not {right!r}")


def program(*arguments: str) -> subprocess.Popen[str]:
    """Start the aml-mirror program."""
    return subprocess.Popen([PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class Acceptance:
    """One trial in one workspace.

    Args:
        workspace: the workspace to try.
        folder: the folder for the run.
        start: a function that starts aml-mirror with arguments and returns the process.
    """

    def __init__(
        self, workspace: AzureMLRegistry, folder: Path, start: Callable[..., subprocess.Popen[str]]
    ) -> None:
        self._workspace = workspace
        self._start = start
        self._name = f"aml-mirror-accept-{os.urandom(4).hex()}"
        self._run = folder / "runs" / self._name
        self._mlflow_run = ""
        self.questions: list[tuple[str, str]] = []

    def steps(self) -> list[tuple[str, Callable[[], str]]]:
        """Return the steps in order. Each returns what it found, or raises."""
        return [
            ("mirror a run, and kill the mirror", self._killed),
            ("mirror it: go on", self._continued),
            ("mirror it again", self._again),
            ("its log grows", self._grown),
            ("a stored file is changed: verify", self._damaged),
            ("repair, verify", self._repaired),
            ("open questions", self._probed),
        ]

    def _call(self, *arguments: str, code: int = 0) -> str:
        process = self._start(*arguments)
        out, err = process.communicate()
        if process.returncode != code:
            raise Failed(f"exit code {process.returncode}, not {code}: {err.strip().splitlines()[-1:]}")
        return out

    def _mirror(self, *more: str, code: int = 0) -> dict[str, Any]:
        text = self._call("--source", str(self._run), "--model-name", self._name, "--json", *more, code=code)
        found: dict[str, Any] = json.loads(text.splitlines()[-1])
        return found

    def _killed(self) -> str:
        demo.make_run(self._run)
        process = self._start("--source", str(self._run), "--model-name", self._name)
        while process.poll() is None:
            if any(True for _ in self._blobs()):
                process.send_signal(signal.SIGKILL)
            time.sleep(POLL_SECONDS)
        process.communicate()
        if process.returncode != -signal.SIGKILL:
            raise Failed(f"it ended with {process.returncode} before it could be killed")
        return "killed when its first file was there"

    def _continued(self) -> str:
        receipt = self._mirror()
        wanted((receipt["outcome"], receipt["model_version"]), ("mirrored", "1"), "the outcome")
        self._mlflow_run = str(receipt["mlflow_run_id"])
        return f"{receipt['bytes_sent']:,} bytes sent, {self._points(demo.STEPS)}"

    def _again(self) -> str:
        receipt = self._mirror()
        wanted((receipt["outcome"], receipt["model_version"]), ("already-mirrored", "1"), "the outcome")
        return f"already mirrored, {receipt['seconds']} s"

    def _points(self, last: int) -> str:
        """Compare the mirrored points of a series with the logged ones."""
        rows = metric_history_page(self._workspace.client, self._mlflow_run, "train/loss", 999)
        steps = sorted(row.step for row in rows)
        if steps != list(range(1, last + 1)):
            raise Failed(f"{len(steps)} points of train/loss, {len(set(steps))} steps; logged were {last}")
        return f"each of {last} points once"

    def _grown(self) -> str:
        log = next((self._run / "runs").rglob("*tfevents*"))
        session = log.parent.with_name("more")
        demo.write_events(session, demo.STEPS + 1, demo.STEPS + MORE_STEPS)
        with log.open("ab") as stream:
            stream.write(next(session.iterdir()).read_bytes())
        shutil.rmtree(session)
        receipt = self._mirror()
        wanted((receipt["outcome"], receipt["model_version"]), ("updated", "1"), "the outcome")
        return f"updated, {self._points(demo.STEPS + MORE_STEPS)}"

    def _damaged(self) -> str:
        version = self._workspace.find_version(self._name, "1")
        place = datastore_path(version.path) if version else None
        if place is None:
            raise Failed("version 1 is not there, or has no path in a datastore")
        blob = self._workspace.azure.container.get_blob_client(f"{place[1]}/model.safetensors")
        data = bytearray(blob.download_blob().readall())
        data[len(data) // 2] ^= 1
        blob.upload_blob(bytes(data), overwrite=True)
        found = json.loads(self._call("verify", f"{self._name}:1", "--json", code=65))
        wanted([row["path"] for row in found["wrong"]], ["model.safetensors"], "what is wrong")
        return "found: exit code 65"

    def _repaired(self) -> str:
        found = json.loads(self._call("repair", f"{self._name}:1", "--json"))
        wanted((found["outcome"], found["written"]), ("repaired", ["model.safetensors"]), "the repair")
        return f"repaired and verified, {found['bytes_written']:,} bytes written"

    def _probed(self) -> str:
        lines = self._call(
            "doctor", str(self._run), "--probe", "--json", "--model-name", self._name
        ).splitlines()
        found = [json.loads(line) for line in lines]
        self.questions = [
            (row["check"].removeprefix("probe: "), row["found"])
            for row in found
            if row["check"].startswith("probe: ") or row["check"] in ("artifact service", "request quota")
        ]
        return f"{len(self.questions)} answers, below"

    def _blobs(self) -> list[str]:
        prefix = f"{FOLDER}/{safe_part(self._name)}/"
        return [
            str(blob.name) for blob in self._workspace.azure.container.list_blobs(name_starts_with=prefix)
        ]

    def _numbers(self, model: str) -> list[str]:
        try:
            found = {number for number, _ in self._workspace.service.versions(model)}
        except AzureError:
            found = set()  # there is no such model
        # A list may be out of date. Numbers are assigned in order, and reading one version by its number is
        # always current.
        following = 1
        while str(following) in found or self._workspace.find_version(model, str(following)):
            found.add(str(following))
            following += 1
        return sorted(found)

    def remove(self) -> str:
        """Remove what the trial made, and name what is left."""
        workspace, left = self._workspace, list[str]()

        def trying(what: str, remove: Callable[[], object]) -> None:
            try:
                remove()
            except (AzureError, MirrorError, OSError, ValueError) as failure:
                left.append(f"{what} ({type(failure).__name__})")
            except Exception as failure:  # noqa: BLE001 - MLflow's own
                left.append(f"{what} ({type(failure).__name__})")

        container = workspace.azure.container
        names = self._blobs() + [f"{FOLDER}/numbers/{safe_part(name)}" for name in (self._name, PROBE)]
        for experiment in (self._name, PROBE):
            found = workspace.find_experiment(experiment)
            if not found:
                continue
            for run in workspace.each_run(found, keys.MODEL_NAME, experiment):
                identity = run.data.tags.get(keys.IDENTITY, "")
                names.append(f"{FOLDER}/claims/{identity}/{safe_part(self._name)}")
                trying("a run", partial(workspace.client.delete_run, run.info.run_id))
            trying("an experiment", partial(workspace.client.delete_experiment, found))
        for model in (self._name, PROBE):
            for number in self._numbers(model):
                trying("a version", partial(workspace.service.delete, model, number))
        for name in names:
            blob = container.get_blob_client(name)
            if blob.exists():
                trying("a blob", blob.delete_blob)
        return "all removed" if not left else f"left: {', '.join(sorted(set(left)))}"


def hidden(text: str, secrets: list[str]) -> str:
    """Return a text without the names of the workspace."""
    for number, secret in enumerate(secrets):
        text = text.replace(secret, f"<name {number + 1}>") if secret else text
    return text.replace("|", "\\|").replace("\n", " ")


def main(start: Callable[..., subprocess.Popen[str]] = program) -> int:
    """Run the trial that the environment names; return the exit code."""
    missing = [name for name in COORDINATES if not os.environ.get(name)]
    if missing or len(sys.argv) > 2 or (sys.argv[1:2] and sys.argv[1].startswith("-")):
        print(f"{', '.join(missing)} not set" if missing else str(__doc__).split("\n\n")[1], file=sys.stderr)
        return 64
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".accept")
    shutil.rmtree(folder, ignore_errors=True)
    values = [os.environ[name] for name in COORDINATES]
    settings = Settings(
        subscription_id=values[0], resource_group=values[1], workspace_name=values[2], retry_seconds=60.0
    )
    workspace = load_workspace(settings, lambda text: print(text, file=sys.stderr))
    trial = Acceptance(workspace, folder, start)
    rows: list[tuple[str, str, float]] = []
    failed = False
    steps = [*trial.steps(), ("remove what was made", trial.remove)]
    for name, step in steps:
        if failed and step != trial.remove:
            continue
        print(f"{name} …", file=sys.stderr, flush=True)
        started = time.monotonic()
        try:
            result = step()
        except (Failed, MirrorError, AzureError, OSError, ValueError, KeyError) as failure:
            failed, result = True, f"FAILED: {failure}"
        rows.append((name, result, time.monotonic() - started))
    store = workspace.azure.datastore
    secrets = [*values, store.account, store.container]
    print(f"aml-mirror {__version__}, Python {sys.version.split()[0]}\n")
    print("| step | result | s |\n|---|---|---|")
    for name, result, seconds in rows:
        print(f"| {name} | {hidden(result, secrets)} | {seconds:.1f} |")
    if trial.questions:
        print("\n| question | answer |\n|---|---|")
        for name, answer in trial.questions:
            print(f"| {name} | {hidden(answer, secrets)} |")
    shutil.rmtree(folder, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
