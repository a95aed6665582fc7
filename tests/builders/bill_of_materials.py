"""Runs the standard validator of a CycloneDX bill of materials, in a separate process.

It needs a package that takes more than a second of CPU time to load, and that tests/absent hides from all
other tests.
"""

from __future__ import annotations

import json
import subprocess
import sys


def problem_of(bill: str) -> str:
    """Return what is wrong with a bill of materials by the strict schema of its version; empty: nothing."""
    done = subprocess.run([sys.executable, __file__], input=bill, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # The complete message repeats the schema, which has thousands of lines.
    return done.stdout.strip()[:500]


if __name__ == "__main__":
    import rfc3987_syntax  # noqa: F401 - jsonschema would do without
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = sys.stdin.read()
    version = SchemaVersion.from_version(json.loads(text)["specVersion"])
    print(JsonStrictValidator(version).validate_str(text) or "")
