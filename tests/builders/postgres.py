"""A real PostgreSQL in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest

from builders.mlflow_servers import free_port


@dataclass(frozen=True)
class Postgres:
    """A running server: its address for SQLAlchemy, its process, its folder."""

    uri: str
    pid: int
    folder: str

    def stop(self) -> None:
        """End it, and remove its folder."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, 3)  # SIGQUIT: at once, nothing of it is kept
        shutil.rmtree(self.folder, ignore_errors=True)


def start() -> Postgres:
    """Start a server with an empty database, and wait until it answers."""
    programs = _programs()
    # It refuses to run as root, and its user cannot enter the folders of the tests.
    user = "postgres" if os.getuid() == 0 else None
    folder = tempfile.mkdtemp(prefix="aml-mirror-postgres-")
    if user:
        found = pwd.getpwnam(user)
        os.chown(folder, found.pw_uid, found.pw_gid)
    more = {"user": user, "group": user, "extra_groups": []} if user else {}
    data, port = f"{folder}/data", free_port()
    subprocess.run(
        [f"{programs}/initdb", "-D", data, "-A", "trust", "-U", "mlflow", "--no-sync", "--locale=C.UTF-8"],
        check=True, capture_output=True, cwd=folder, **more,
    )  # fmt: skip
    settings = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off")
    with open(f"{folder}/server.log", "w") as log:
        process = subprocess.Popen(
            [f"{programs}/postgres", "-D", data, "-p", str(port), *(f"--{one}" for one in settings)],
            stdout=log, stderr=log, cwd=folder, start_new_session=True, **more,
        )  # fmt: skip
    place = f"mlflow@127.0.0.1:{port}/postgres"
    for _ in range(600):
        with suppress(psycopg2.OperationalError):
            psycopg2.connect(f"postgresql://{place}").close()
            # Without the driver's name, SQLAlchemy 2.1 uses another one.
            return Postgres(f"postgresql+psycopg2://{place}", process.pid, folder)
        assert process.poll() is None, Path(folder, "server.log").read_text()
        time.sleep(0.1)
    raise AssertionError(Path(folder, "server.log").read_text())


def _programs() -> str:
    """Return the folder with its programs, which Debian does not put on the PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = shutil.which("initdb") or (str(debian[-1]) if debian else "")
    if not found:
        pytest.fail("PostgreSQL is needed: apt-get install postgresql", pytrace=False)
    return str(Path(found).resolve().parent)
