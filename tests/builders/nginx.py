"""nginx from Debian in front of a server, with the configuration of a test."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from builders.mlflow_servers import free_port

# Debian installs it outside a user's PATH.
_PLACES = f"{os.environ['PATH']}:/usr/sbin:/sbin"


@contextmanager
def nginx(folder: Path, locations: str, server: str = "", ssl: bool = False) -> Iterator[str]:
    """Run nginx; yield its address.

    Args:
        folder: created for its files.
        locations: the ``location`` blocks of its server.
        server: further lines of its server.
        ssl: whether it uses TLS; ``server`` then names certificate and key.
    """
    program = shutil.which("nginx", path=_PLACES)
    if program is None:
        pytest.fail("nginx is needed for the tests of proxies: apt-get install nginx-light", pytrace=False)
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    places = "\n".join(
        f"    {name}_temp_path {folder}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"""daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
{places}
    server {{
        listen 127.0.0.1:{port}{" ssl" if ssl else ""};
{server}
{locations}
    }}
}}
"""
    )
    # Its workers would change to another user, who cannot enter the tests' folders.
    more = ["-g", "user root;"] if os.getuid() == 0 else []
    command = [
        program,
        "-c",
        str(folder / "nginx.conf"),
        "-p",
        str(folder),
        "-e",
        f"{folder}/error.log",
        *more,
    ]
    with (folder / "nginx.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(600):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
                break
            assert process.poll() is None, (folder / "nginx.log").read_text()
            time.sleep(0.05)
        yield f"{'https' if ssl else 'http'}://127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(600)
