"""Record a real run in a terminal as an SVG: ``python scripts/record_terminal.py FILE``.

The commands run in a pseudo-terminal, in an empty folder, with a new database. The recording replaces only
the name of that folder.
"""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).parents[1]
COLUMNS = 100
TARGET = ("--tracking-uri", "sqlite:///mlflow.db")
COMMANDS = (
    ("aml-mirror", "plan", "runs/pendulum-7", "--model-name", "pendulum"),
    ("aml-mirror", "runs/pendulum-7", "--model-name", "pendulum"),
    ("aml-mirror", "runs/pendulum-7", "--model-name", "pendulum"),
    ("aml-mirror", "verify", "pendulum:1"),
)
# Rich's template, without the fonts that it would load from the network, and without animation.
FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<title>aml-mirror in a terminal</title>
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
    font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def shown(command: tuple[str, ...], folder: Path) -> str:
    """Run a command in a pseudo-terminal and return its output with the colour codes."""
    program = Path(sys.executable).with_name(command[0])
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TERM": "xterm-256color",
        "COLUMNS": str(COLUMNS),
        "MLFLOW_TRACKING_URI": TARGET[1],
    }
    master, slave = pty.openpty()
    with subprocess.Popen(
        [program, *command[1:]], cwd=folder, env=variables, stdin=slave, stdout=slave, stderr=slave
    ) as process:
        os.close(slave)
        written = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # Linux reports a closed other end this way
                break
            if not part:
                break
            written += part
    os.close(master)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{written.decode()}")
    return kept(written.decode()).replace(str(folder), "/lab")


def kept(written: str) -> str:
    """Return the text that stays on the screen. A progress bar moves up one line and clears it."""
    lines = [""]
    for part in re.split(r"(\r?\n|\x1b\[1A|\x1b\[2K|\r|\x1b\[\?25[lh])", written):
        if part in ("\n", "\r\n"):
            lines.append("")
        elif part == "\x1b[1A":
            lines.pop()
        elif part == "\x1b[2K":
            lines[-1] = ""
        elif part != "\r" and not part.startswith("\x1b[?25"):
            lines[-1] += part
    return "\n".join(lines).strip("\n")


def main() -> None:
    """Write the recording."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(
            ROOT / "tests" / "data" / "runs" / "stable_baselines3", folder / "runs" / "pendulum-7"
        )
        console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
        for command in COMMANDS:
            console.print(Text("$ ", style="bold green") + Text(" ".join(command), style="bold"))
            console.print(Text.from_ansi(shown(command, folder)))
            console.print()
    svg = console.export_svg(
        title="export MLFLOW_TRACKING_URI=sqlite:///mlflow.db",
        theme=MONOKAI,
        code_format=FORMAT,
        unique_id="t",
    )
    Path(sys.argv[1]).write_text(re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE))


if __name__ == "__main__":
    main()
