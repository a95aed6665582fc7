"""``python mutate.py [PART[:SHARE]…]``: change one thing at a time, and see whether a test notices.

Runs in a separate environment with cosmic-ray. Every change is made in a copy of the checkout. A part
(``parts.toml``) is divided into shares, and the changes are dealt to them in turn.

A change that no test notices must be in ``survivors.toml`` with a reason. Fails if one is missing, or if the
tests notice less than 90 % of the changes without ``equivalent = true``. The figures are in
``.mutation/figures.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FORKS = HERE / "pytest_forks.py"
PROGRAM = Path("entrypoint/aml_mirror")
FIGURES = ROOT / ".mutation" / "figures.json"
WANTED = 0.9
TIMEOUT = 120  # seconds of one change; a test that hangs has noticed it
# ``str | None`` is only read by type checkers.
ANNOTATIONS = "core/ReplaceBinaryOperator_BitOr_"
Survivor = tuple[str, str, str]
"""Module, what a line was, what it becomes."""
COPIED = (
    "entrypoint",
    "tests",
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
    "scripts",
    "terraform",
    "image",
    "workflows",
)


def main() -> int:
    parts: dict[str, dict[str, Any]] = tomllib.loads((HERE / "parts.toml").read_text())
    parser = argparse.ArgumentParser(prog="mutate", description=__doc__)
    parser.add_argument("what", nargs="*", help=f"PART or PART:SHARE; the parts are {', '.join(parts)}")
    options = parser.parse_args()
    failed = 0
    for name, share in _wanted(options.what, parts):
        failed |= _run(name, share, parts[name])
    return failed


def _wanted(what: list[str], parts: dict[str, dict[str, Any]]) -> list[tuple[str, int]]:
    found = []
    for text in what or list(parts):
        name, _, share = text.partition(":")
        if name not in parts:
            raise SystemExit(f"there is no part {name}; there are {', '.join(parts)}")
        shares = [int(share)] if share else range(1, parts[name]["shares"] + 1)
        found += [(name, number) for number in shares]
    return found


def _run(name: str, share: int, part: dict[str, Any]) -> int:
    """Run one share; return 1 if a change was not noticed and has no reason."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="aml-mirror-mutation-") as folder:
        copy = Path(folder) / "copy"
        _copy(copy)
        python, call = ROOT / ".venv" / "bin" / "python", Path(folder) / "calls"
        tests = " ".join(f"tests/{test}" for test in part["tests"])
        command = f"{python} -I -S {FORKS} run {call} -x -q -p no:cacheprovider {tests}"
        count = noticed = 0
        survivors: list[Survivor] = []
        with subprocess.Popen([python, FORKS, "serve", call], stdin=subprocess.PIPE) as server:
            while not call.exists() and server.poll() is None:
                time.sleep(0.05)
            _require_pass(copy, command, call)
            for module in part["modules"]:
                tried, found, left = _changes(copy, Path(folder), module, command, share, part["shares"])
                count, noticed, survivors = count + tried, noticed + found, survivors + left
    known = tomllib.loads((HERE / "survivors.toml").read_text()).get("survivor", [])
    reasons = {(one["module"], one["was"], one["becomes"]): one for one in known}
    unexplained = [one for one in survivors if one not in reasons]
    equivalent = sum(bool(reasons[one].get("equivalent")) for one in survivors if one in reasons)
    rate = noticed / max(count - equivalent, 1)
    seconds = time.monotonic() - started
    print(
        f"{name}:{share}: {noticed} of {count} changes noticed, {equivalent} change nothing ({rate:.1%}), "
        f"{seconds:.0f} s"
    )
    for module, was, becomes in unexplained:
        print(f"  not noticed, no reason given: {module}\n    was     {was}\n    becomes {becomes}")
    _keep(
        f"{name}:{share}",
        {"changes": count, "noticed": noticed, "equivalent": equivalent, "seconds": seconds},
    )
    return int(bool(unexplained) or rate < WANTED)


def _copy(target: Path) -> None:
    target.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "node_modules", "*.egg-info", ".terraform*")
            shutil.copytree(source, target / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(source, target / name)
    (target / "tests/azure/node_modules").symlink_to(ROOT / "tests/azure/node_modules")
    (target / ".venv-mlflow2").symlink_to(ROOT / ".venv-mlflow2")


def _environment(copy: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(copy / "entrypoint"), "PYTHONDONTWRITEBYTECODE": "1"}


def _require_pass(copy: Path, command: str, call: Path) -> None:
    if subprocess.run(command.split(), cwd=copy, env=_environment(copy)).returncode:
        said = call.with_suffix(".out").read_text(errors="replace")
        raise SystemExit(f"the tests fail without any change:\n{said[-3000:]}")


def _call(copy: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=copy, env=_environment(copy), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")


def _cosmic_ray(copy: Path, *words: str) -> None:
    _call(copy, str(Path(sys.executable).with_name("cosmic-ray")), *words)


def _changes(
    copy: Path, folder: Path, module: str, command: str, share: int, shares: int
) -> tuple[int, int, list[Survivor]]:
    """Make the changes of one module; return how many, how many were noticed, and the others."""
    name = module.replace("/", "-")
    session, config = folder / f"{name}.sqlite", folder / f"{name}.toml"
    config.write_text(
        f'[cosmic-ray]\nmodule-path = "{PROGRAM / module}"\ntimeout = {TIMEOUT}.0\n'
        f"excluded-modules = []\ntest-command = {json.dumps(command)}\n"
        '[cosmic-ray.distributor]\nname = "local"\n'
    )
    _cosmic_ray(copy, "init", str(config), str(session))
    _keep_share(session, share, shares)
    _cosmic_ray(copy, "exec", str(config), str(session))
    noticed, survivors = _results(session)
    return noticed + len(survivors), noticed, [(module, was, becomes) for was, becomes in survivors]


def _keep_share(session: Path, share: int, shares: int) -> None:
    """Mark what is not in the share as skipped."""
    with use_db(str(session), WorkDB.Mode.open) as work:
        items = [item for item in work.work_items if item.mutations]
        real = [item for item in items if not item.mutations[0].operator_name.startswith(ANNOTATIONS)]
        kept = {item.job_id for item in real[share - 1 :: shares]}
        for item in items:
            if item.job_id not in kept:
                work.set_result(item.job_id, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))


def _results(session: Path) -> tuple[int, list[tuple[str, str]]]:
    """Return how many changes were noticed, and (was, becomes) of those that were not."""
    noticed, survivors = 0, []
    with use_db(str(session), WorkDB.Mode.open) as work:
        for _, result in work.results:
            if result.worker_outcome in (WorkerOutcome.SKIPPED, WorkerOutcome.NO_TEST):
                continue
            if result.test_outcome != TestOutcome.SURVIVED:
                noticed += 1
                continue
            lines = (result.diff or "").splitlines()
            was = [line[1:].strip() for line in lines if line.startswith("-") and not line.startswith("---")]
            now = [line[1:].strip() for line in lines if line.startswith("+") and not line.startswith("+++")]
            survivors.append((" ".join(filter(None, was)), " ".join(filter(None, now))))
    return noticed, survivors


def _keep(name: str, figures: dict[str, float]) -> None:
    kept = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    FIGURES.parent.mkdir(exist_ok=True)
    FIGURES.write_text(json.dumps({**kept, name: figures}, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())
