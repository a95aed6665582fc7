"""A cluster on which workflows appear, end, fail and vanish, and a watcher that is disturbed in many passes.

The simulation has its own time, with a pass every ten minutes. OSMO is its REST API (osmo_rest.py); the
registry is a real MLflow server behind a proxy that can fail; the watcher is a process that can be killed.
After each pass the simulation reads the registry's content with MLflow's own client.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from builders.program import clean_environment
from builders.proxy import Proxy
from builders.saved import safetensors, write_json
from osmo_rest import TOKEN, OsmoRest

EVERY = 600.0
DAY_PASSES = 144
START = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
OTHERS = 10_000
TESTS = Path(__file__).parents[1]


@dataclass
class Truth:
    """The true state of one workflow. ``ended`` and similar fields are numbers of passes."""

    name: str
    opted_in: bool
    end: str
    whole: bool
    duration: int
    ended: int | None = None
    fixed: int | None = None
    vanished: int | None = None
    mirrored: int | None = None
    undisturbed: int = 0
    """Passes without disturbance that it waited for, the one that mirrored it among them."""
    disturbed: int = 0

    @property
    def due(self) -> bool:
        """Whether the watcher must mirror it now."""
        return (
            self.ended is not None
            and self.opted_in
            and self.end == "COMPLETED"
            and self.whole
            and self.vanished is None
        )


@dataclass
class Figures:
    """The result of a simulation."""

    passes: int = 0
    kills: int = 0
    two_at_once: int = 0
    osmo_failed: int = 0
    osmo_slow: int = 0
    registry_failed: int = 0
    long_lists: int = 0
    workflows: Counter[str] = field(default_factory=Counter)
    waited: Counter[int] = field(default_factory=Counter)
    """Undisturbed passes until a run was mirrored -> runs."""
    most_requests: int = 0
    attempts_at_broken: int = 0

    def lines(self) -> list[str]:
        """The figures as text."""
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.workflows.items()))
        waited = ", ".join(f"{count:,} after {passes}" for passes, count in sorted(self.waited.items()))
        return [
            f"{self.passes:,} passes: {self.kills} watchers killed, {self.two_at_once} times two at once, "
            f"{self.osmo_failed} times OSMO failed, {self.osmo_slow} times it was slow, "
            f"{self.registry_failed} times the registry failed, {self.long_lists} lists of over {OTHERS:,}",
            f"workflows: {kinds}",
            f"mirrored, by undisturbed passes that it took: {waited}",
            f"most requests to OSMO in one pass: {self.most_requests}; attempts at incomplete runs: "
            f"{self.attempts_at_broken}",
        ]


class Watcher:
    """The process of watcher.py."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("watcher.py"))],
            cwd=TESTS,
            env=clean_environment(
                PYTHONPATH=os.pathsep.join(map(str, (TESTS, TESTS / "osmo"))),
                MLFLOW_DISABLE_TELEMETRY="true",
                # No retries of a failing server, so that only the watcher's own repetition is tested.
                MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, **call: Any) -> int:
        """Start a pass; return its process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(call) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def end(self) -> int:
        """Wait for its end; return the exit code, which is negative if a signal ended it."""
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def stop(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(600)


class Cluster:
    """The world, and the passes over it.

    Args:
        folder: the folder for its volume.
        mlflow_url: the address of the registry.
        model: a model that nothing else uses.
        seed: the seed of all random choices.
    """

    def __init__(self, folder: Path, mlflow_url: str, model: str, seed: int) -> None:
        self.dice = random.Random(seed)
        self.truths: dict[str, Truth] = {}
        self.figures = Figures()
        self.number = 0
        self._model = model
        self._volume = folder / "volume"
        self._volume.mkdir()
        self._lines = folder / "lines"
        self._client = MlflowClient(mlflow_url, mlflow_url)
        self._state: dict[str, Any] = {"version": "6.4", "workflows": {}}
        self._lock = threading.Lock()
        self.rest = OsmoRest(self._world)
        self.proxy = Proxy(mlflow_url).__enter__()
        self._watchers = [Watcher(), Watcher()]
        token = folder / "token"
        token.write_text(TOKEN)
        self._arguments = [
            "--label", "mirror=on", "--model-name", model, "--tracking-uri", self.proxy.url, "--osmo-url",
            self.rest.url, "--osmo-token-file", str(token), "--retry-for", "0s", "--since", "7d",
        ]  # fmt: skip

    @contextmanager
    def _world(self) -> Iterator[dict[str, Any]]:
        with self._lock:
            yield self._state

    def stop(self) -> None:
        """End all processes."""
        for watcher in self._watchers:
            watcher.stop()
        self.rest.stop()
        self.proxy.__exit__(None, None, None)

    def one_pass(self, calm: bool = False) -> None:
        """Let ten minutes pass, and the watcher look once, disturbed unless ``calm``."""
        self.number += 1
        if not calm:
            self._live()
        disturbed = self._look("" if calm else self._disturbance())
        self.figures.passes += 1
        self._judge(disturbed)

    def _now(self) -> float:
        return START + self.number * EVERY

    def _live(self) -> None:
        """Workflows appear, end, fail and vanish."""
        dice = self.dice
        for _ in range(dice.choice((0, 0, 1, 1, 2))):
            truth = Truth(
                name=f"train-{len(self.truths) + 1}",
                opted_in=dice.random() < 0.7,
                end="COMPLETED" if dice.random() < 0.8 else dice.choice(("FAILED", "FAILED_CANCELED")),
                whole=dice.random() < 0.9,
                duration=dice.randint(0, 8),
            )
            truth.ended = None
            self.truths[truth.name] = truth
            with self._world() as state:
                state["workflows"][truth.name] = {
                    "uuid": truth.name, "status": "RUNNING", "spec": "", "tasks": [],
                    "labels": {"mirror": "on"} if truth.opted_in else {}, "submit_time": _text(self._now()),
                }  # fmt: skip
            truth.duration += self.number
        for truth in self.truths.values():
            if truth.vanished is not None:
                continue
            if truth.ended is None and truth.duration <= self.number:
                self._end(truth)
            elif truth.ended is not None and not truth.whole and dice.random() < 0.01:
                _write_run(self._volume / truth.name, truth.name)
                truth.whole, truth.fixed = True, self.number
            elif dice.random() < 0.002:
                truth.vanished = self.number
                with self._world() as state:
                    del state["workflows"][truth.name]
                shutil.rmtree(self._volume / truth.name, ignore_errors=True)

    def _end(self, truth: Truth) -> None:
        truth.ended = self.number
        _write_run(self._volume / truth.name, truth.name)
        if not truth.whole:
            weights = self._volume / truth.name / "checkpoint-1" / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[:-5])
        with self._world() as state:
            state["workflows"][truth.name] |= {"status": truth.end, "end_time": _text(self._now())}

    def _disturbance(self) -> str:
        kinds = ("kill", "osmo fails", "osmo is slow", "registry fails", "two", "long list")
        return self.dice.choices(("", *kinds), (50, 15, 8, 7, 8, 8, 4))[0]

    def _look(self, disturbance: str) -> bool:
        """Make the pass; return whether it was prevented from doing its work."""
        dice, figures = self.dice, self.figures
        self.rest.requests.clear()
        self.proxy.seen.clear()
        self.rest.fault = lambda method, path: None
        self.proxy.interfere = lambda number, moment, method, path: None
        others: dict[str, Any] = {}
        if disturbance == "osmo fails":
            figures.osmo_failed += 1
            status = dice.choice((500, 502, 503, 429))
            self.rest.fault = lambda method, path: (status, "busy")
        elif disturbance == "osmo is slow":
            figures.osmo_slow += 1
            self.rest.fault = lambda method, path: time.sleep(0.2)
        elif disturbance == "registry fails":
            figures.registry_failed += 1
            first = dice.randint(0, 40)
            self.proxy.interfere = lambda number, moment, method, path: 503 if number >= first else None
        elif disturbance == "long list":
            figures.long_lists += 1
            entry = {
                "uuid": "x",
                "status": "COMPLETED",
                "spec": "",
                "tasks": [],
                "submit_time": _text(self._now()),
            }
            others = {
                f"other-{number}": {**entry, "end_time": _text(self._now())} for number in range(OTHERS)
            }
            self._state["workflows"].update(others)
        count = 2 if disturbance == "two" else 1
        figures.two_at_once += count == 2
        pids = [
            watcher.begin(
                now=self._now(),
                arguments=self._arguments,
                environment={"OUTPUT_BASE": str(self._volume)},
                out=f"{self._lines}-{place}",
            )
            for place, watcher in enumerate(self._watchers[:count])
        ]
        if disturbance == "kill":
            figures.kills += 1
            time.sleep(dice.random() * dice.choice((0.3, 1.5)))
            subprocess.run(["kill", "-9", str(pids[0])], check=False, stderr=subprocess.DEVNULL)
        codes = [watcher.end() for watcher in self._watchers[:count]]
        assert all(code in (0, 75) or (code == -9 and disturbance == "kill") for code in codes), codes
        assert disturbance in ("kill", "osmo fails", "registry fails") or codes[0] == 0, (disturbance, codes)
        for name in others:
            del self._state["workflows"][name]
        asked = len(self.rest.requests)
        figures.most_requests = max(figures.most_requests, asked // count)
        return disturbance in ("kill", "osmo fails", "registry fails")

    def _judge(self, disturbed: bool) -> None:
        found = self.versions()
        for truth in self.truths.values():
            if truth.due and truth.mirrored is None:
                if disturbed:
                    truth.disturbed += 1
                else:
                    truth.undisturbed += 1
                if truth.name in found:
                    truth.mirrored = self.number
                    truth.undisturbed = max(truth.undisturbed, 1)

    def versions(self) -> dict[str, int]:
        """Run id -> number of complete versions."""
        counts: Counter[str] = Counter()
        token = None
        while True:
            page = self._client.search_model_versions(
                f"name = '{self._model}'", max_results=1000, page_token=token
            )
            counts.update(
                item.tags["osmo.run_id"] for item in page if item.tags["mirror.state"] == "complete"
            )
            token = page.token
            if not token:
                return dict(counts)

    def check(self) -> Figures:
        """Check that every required run was mirrored, once and in time, and nothing else.

        Raises:
            AssertionError: a run is missing, late or superfluous.
        """
        found = self.versions()
        assert set(found.values()) <= {1}, {name: count for name, count in found.items() if count > 1}
        attempts = Counter(
            line["run_id"]
            for path in self._lines.parent.glob("lines-*")
            for line in map(json.loads, path.read_text().splitlines())
            if line.get("outcome") == "failed" and line.get("exit_code") == 65
        )
        for truth in self.truths.values():
            kind = self._kind(truth)
            self.figures.workflows[kind] += 1
            if truth.due:
                assert truth.mirrored is not None and truth.name in found, truth
                if truth.fixed is None:
                    self.figures.waited[truth.undisturbed] += 1
                    # After a third failure the pauses grow.
                    assert truth.undisturbed <= 2 + (
                        2 ** (truth.disturbed - 2) if truth.disturbed > 2 else 0
                    ), truth
                else:
                    assert truth.mirrored - truth.fixed <= DAY_PASSES + 3 + truth.disturbed, truth
            elif truth.vanished is None:
                assert truth.name not in found, truth
            elif truth.name in found:
                assert truth.opted_in and truth.end == "COMPLETED" and truth.ended is not None, truth
            # At most daily, and once more by each of two watchers at once.
            days = (self.number - (truth.ended or self.number)) / DAY_PASSES
            assert attempts[truth.name] <= 2 + days + truth.disturbed, (truth, attempts[truth.name])
        self.figures.attempts_at_broken = sum(attempts.values())
        return self.figures

    def _kind(self, truth: Truth) -> str:
        if truth.vanished is not None:
            return "vanished"
        if not truth.opted_in:
            return "not opted in"
        if truth.ended is None:
            return "still running"
        if truth.end != "COMPLETED":
            return "failed"
        if not truth.whole:
            return "incomplete"
        return "mirrored" if truth.fixed is None else "mirrored after they were repaired"


def _write_run(root: Path, name: str) -> None:
    folder = root / "checkpoint-1"
    safetensors(folder / "model.safetensors", seed=int(name.rpartition("-")[2]))
    write_json(folder / "config.json", {"model_type": "policy"})
    write_json(folder / "trainer_state.json", {"global_step": 1, "log_history": []})


def _text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
