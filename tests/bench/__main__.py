"""``python -m bench [NAME…]``: compare the program with what people would use instead.

Each comparison is a module. The figures are written to ``bench.json`` and printed as tables. With
``--readme``, they also replace the section in the README. Nothing here is a test: the bench shows what a
machine can do and asserts nothing. ``tests/bench/test_bench.py`` tests that the arithmetic is right and that
all sides do the same work.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import time

from bench import environments, report
from bench.harness import BenchError, machine

NAMES = (
    "events", "nothing", "points", "upload", "download", "slow-volume", "reuse", "pull-reuse",
    "server-copy", "mlflow-server", "whole", "start", "scale",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which of {', '.join(NAMES)}; all. readme: only write")
    parser.add_argument("--rounds", type=int, help="how often each side runs")
    parser.add_argument("--readme", action="store_true", help="write the README's section from bench.json")
    parser.add_argument("--large", action="store_true", help="scale: also measure the large sizes")
    options = parser.parse_args()
    names = list(options.names or NAMES)
    if options.readme or "readme" in names:
        # Last, so that the section contains all figures in bench.json.
        names = [name for name in names if name != "readme"] + ["readme"]
    failed = 0
    for name in names:
        started = time.monotonic()
        print(f"== {name}", file=sys.stderr)
        try:
            _one(name, options.rounds, options.large)
        except BenchError as error:
            print(f"bench: {name}: {error}", file=sys.stderr)
            failed = 1
        finally:
            shutil.rmtree(environments.scratch(), ignore_errors=True)
        print(f"== {name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return failed


def _one(name: str, rounds: int | None, large: bool) -> None:
    if name == "readme":
        report.write_readme()
        report.draw_growth()
        return
    if name not in NAMES:
        raise BenchError(f"there is no such comparison; there are {', '.join(NAMES)}")
    module = importlib.import_module(f"bench.{name.replace('-', '_')}")
    if name == "scale":
        report.keep_growth(list(module.curves(large)), machine())
        print(report.growth_table(report.load()["growth"]))
        results = module.large_upload(rounds) if large else ()
    else:
        results = module.results(rounds)
    for result in results:
        report.keep(result, machine())
        print(report.table(result.as_dict()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
