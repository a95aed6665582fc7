"""A process that has loaded the clients. It forks for each pass of a watcher, at a given time.

    python watcher.py

It reads one call per line as JSON, with ``now`` in seconds, ``arguments``, ``environment`` and the file
``out``. It forks and prints the child's pid; when that has ended, its exit code. The child makes one pass
whose clock begins at ``now``.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from typing import Any


def one_pass(call: dict[str, Any]) -> int:
    """Make the pass, and write the receipts and the summary into a file, one line each."""
    from aml_mirror.support.progress import Console
    from aml_mirror.watch.watch import Watch
    from builders.watching import settings_of

    began = time.monotonic()
    with open(call["out"], "a", encoding="utf-8") as out:

        def tell(line: str) -> None:
            out.write(line + "\n")
            out.flush()

        settings = settings_of(*call["arguments"], **call["environment"])
        watch = Watch(
            settings, Console(io.StringIO()), lambda done: tell(done.line()), lambda summary: None,
            lambda: call["now"] + time.monotonic() - began,
        )  # fmt: skip
        summary = watch.one_pass()
        tell(summary.line())
    return summary.stop_code


def main() -> None:
    """Serve calls until stdin ends."""
    import aml_mirror.registries.mlflow.state_store
    import aml_mirror.registries.mlflow.tracking_server
    import aml_mirror.watch.watch  # noqa: F401
    import builders.watching  # noqa: F401

    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            code = 70
            # MLflow's client prints there.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            try:
                code = one_pass(json.loads(line))
            finally:
                sys.stdout.flush()
                os._exit(code)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
