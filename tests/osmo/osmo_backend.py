"""The cluster behind the stub: runs the tasks of a submitted workflow in the way that OSMO starts them.

osmo_backend.py NAME
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
from datetime import UTC, datetime

from osmo_stub import World

SPLIT_BYTES = 32 << 10  # osmo_exec splits longer lines


def run(name):
    """The backend: runs all tasks of a workflow at the same time, each in its own process group."""
    with World() as world:
        _, found = world.workflow(name)
        found["status"] = "RUNNING"
        for task in found["tasks"]:
            task["status"] = "RUNNING"
        tasks = [dict(task) for task in found["tasks"]]
        template, path = world.state.get("pod_env", {}), world.state["pod_path"]
    threads = [threading.Thread(target=run_task, args=(name, task, template, path)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with World() as world:
        _, found = world.workflow(name)
        if found["status"] == "RUNNING":
            fine = all(task["status"] == "COMPLETED" for task in found["tasks"])
            found["status"] = "COMPLETED" if fine else "FAILED"


def run_task(name, task, template, path):
    tokens = {"workflow_id": name, "output": "/osmo/data/output"}

    def filled(text):
        return re.sub(r"{{ *(\w+) *}}", lambda match: tokens.get(match[1], match[0]), text)

    with tempfile.TemporaryDirectory(prefix="pod-") as home:
        environment = {
            "PATH": path,
            "HOME": home,
            "TMPDIR": home,
            "KUBERNETES_SERVICE_HOST": "10.0.0.1",
            **{key: filled(value) for key, value in task["run"]["environment"].items()},
            "OSMO_CONFIG_FILE_DIR": os.environ["OSMO_CONFIG_FILE_DIR"],
            "NVIDIA_VISIBLE_DEVICES": "",
            **template,
        }
        try:
            process = subprocess.Popen(
                [filled(word) for word in task["run"]["command"]],
                cwd=home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        except FileNotFoundError as error:
            process, code = None, 2
            keep(name, task, [f"panic: exec: {error.filename}: executable file not found in $PATH"])
        if process:
            update(name, task["name"], pid=process.pid)
            for line in process.stdout:
                text = line.decode(errors="replace").rstrip("\n")
                keep(
                    name, task, [text[at : at + SPLIT_BYTES] for at in range(0, len(text) or 1, SPLIT_BYTES)]
                )
            code = process.wait()
            code = 255 if code < 0 else code
    update(name, task["name"], exit_code=code, status="COMPLETED" if code == 0 else "FAILED", pid=None)


def keep(name, task, lines):
    date = datetime.now(UTC).strftime("%Y/%m/%d %H:%M:%S")
    with World() as world:
        world.workflow(name)[1]["logs"] += [f"{date} [{task['name']}] {line}" for line in lines]


def update(name, task_name, **changes):
    with World() as world:
        for task in world.workflow(name)[1]["tasks"]:
            if task["name"] == task_name and not task["status"].startswith("FAILED"):
                task.update(changes)


if __name__ == "__main__":
    run(sys.argv[1])
