"""The entry point. It loads nothing for ``--version``, which scripts call often."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given == ["--version"]:
        from aml_mirror import __version__

        print(f"aml-mirror {__version__}", flush=True)
        return 0
    from aml_mirror.cli.program import run

    return run(given)


if __name__ == "__main__":
    sys.exit(main())
