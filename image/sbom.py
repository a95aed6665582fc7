"""Write the CycloneDX list of all that the image holds to stdout: Python's packages and Debian's.

``python sbom.py PYTHON DEBIAN`` in the Dockerfile. PYTHON is the interpreter whose packages are meant, which
cyclonedx-py lists. DEBIAN is what ``dpkg-query --show`` printed in the stage that the image is made of: a
line each of name, version and architecture, with tabs between them. They are listed under the names that
vulnerability scanners know them by (https://github.com/package-url/purl-spec, type ``deb``).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote


def main(python: str, packages: Path) -> None:
    """Print the list. The same packages give the same bytes: no time, no serial number."""
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("cyclonedx-py")), "environment", python),
            *("--pyproject", "pyproject.toml", "--mc-type", "application"),
            *("--output-format", "JSON", "--output-reproducible"),
        ],
        check=True,
        stdout=subprocess.PIPE,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    found["components"] = sorted(
        [*found["components"], *debian(packages)], key=lambda one: (one["name"].lower(), one["version"])
    )
    json.dump(found, sys.stdout, indent=1, sort_keys=True)
    print()


def debian(packages: Path) -> list[dict[str, Any]]:
    """Debian's packages as components, from dpkg's lines."""
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if line)
    distro = f"debian-{release['VERSION_ID'].strip(chr(34))}"
    components = []
    for line in packages.read_text().splitlines():
        name, version, architecture = line.split("\t")
        purl = f"pkg:deb/debian/{quote(name)}@{quote(version, safe='')}?arch={architecture}&distro={distro}"
        components.append(
            {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}
        )
    return components


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
