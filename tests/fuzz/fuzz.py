"""Hand a target to Atheris: ``fuzz.py NAME [option …]``; ``fuzz.py NAME FILE`` runs one file."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

# Only our code is measured for coverage; the libraries are many times larger.
with atheris.instrument_imports(include=["aml_mirror"]):
    from targets import TARGETS

# Longer inputs find little more, and are slow.
MAX_BYTES = 4096


def main() -> None:
    name, *rest = sys.argv[1:]
    target, seeds = TARGETS[name]
    if rest and Path(rest[0]).is_file():
        target(Path(rest[0]).read_bytes())
        return
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds):
            (Path(corpus) / str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], *rest, f"-max_len={MAX_BYTES}", corpus], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
