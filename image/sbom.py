"""Print the CycloneDX bill of materials of the image: all packages, with hashes and licences.

``python sbom.py PYTHON DEBIAN REPORT`` in the Dockerfile:

- PYTHON is the interpreter whose packages are listed. cyclonedx-py reads them, with their licences.
- DEBIAN is what ``dpkg-query --show`` printed in the stage that the image is made from: one line per package
  with name, version and architecture, separated by tabs. Their licences come from the machine-readable
  ``copyright`` files of that stage (https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/).
- REPORT is pip's installation report. It contains the SHA-256 of each installed wheel
  (https://pip.pypa.io/en/stable/reference/installation-report/).

Packages are named as vulnerability scanners know them (https://github.com/package-url/purl-spec).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

DOC = Path("/usr/share/doc")
# Names the serial number. RFC 9562 makes a version 5 UUID from a namespace and a name.
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "aml-mirror.sbom")
_LICENSE_LINE = re.compile(r"^License:[ \t]*(\S[^\n]*)$", re.MULTILINE)


def main(python: str, packages: Path, report: Path) -> None:
    """Print the document. The same packages produce the same bytes, so it contains no time."""
    listed = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("cyclonedx-py")), "environment", python),
            *("--pyproject", "pyproject.toml", "--mc-type", "application"),
            *("--output-format", "JSON", "--output-reproducible"),
        ],
        check=True,
        stdout=subprocess.PIPE,
    )
    document: dict[str, Any] = json.loads(listed.stdout)
    hashes = wheel_hashes(report)
    for component in document["components"]:
        digest = hashes.get((_normalized(component["name"]), component["version"]))
        if digest:
            component["hashes"] = [{"alg": "SHA-256", "content": digest}]
    document["components"] = sorted(
        [*document["components"], *debian(packages)], key=lambda one: (one["name"].lower(), one["version"])
    )
    # The serial number depends on the contents: another package, version or hash changes it.
    body = json.dumps(document, sort_keys=True)
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(NAMESPACE, body)}"
    json.dump(document, sys.stdout, indent=1, sort_keys=True)
    print()


def wheel_hashes(report: Path) -> dict[tuple[str, str], str]:
    """Return the SHA-256 of each installed wheel in hexadecimal, by normalized name and version."""
    return {
        (_normalized(item["metadata"]["name"]), item["metadata"]["version"]): item["download_info"][
            "archive_info"
        ]["hashes"]["sha256"]
        for item in json.loads(report.read_text())["install"]
    }


def debian(packages: Path) -> Iterator[dict[str, Any]]:
    """Yield Debian's packages as components, from dpkg's lines."""
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if line)
    distro = f"debian-{release['VERSION_ID'].strip(chr(34))}"
    for line in packages.read_text().splitlines():
        name, version, architecture = line.split("\t")
        purl = f"pkg:deb/debian/{quote(name)}@{quote(version, safe='')}?arch={architecture}&distro={distro}"
        yield {
            "type": "library",
            "name": name,
            "version": version,
            "purl": purl,
            "bom-ref": purl,
            "licenses": [{"license": {"name": license}} for license in debian_licenses(name)],
        }


def debian_licenses(package: str, documentation: Path = DOC) -> list[str]:
    """Return the short names of a package's licences, sorted.

    If the file is not machine-readable, the only name says where to read it.
    """
    path = documentation / package / "copyright"
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return ["unknown: the package has no copyright file"]
    names = {name.strip() for name in _LICENSE_LINE.findall(text)} if text.startswith("Format:") else set()
    return sorted(names) or [f"see {path}"]


def _normalized(name: str) -> str:
    """The form in which two spellings of a Python package's name are equal (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
