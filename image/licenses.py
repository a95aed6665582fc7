"""Print the licences of the Python packages in the image, each with the text in the package.

``python licenses.py PYTHON`` in the Dockerfile. Debian's packages keep theirs in
``/usr/share/doc/PACKAGE/copyright``, as Debian's policy requires. The list only points there.
"""

from __future__ import annotations

import subprocess
import sys

# Run by the interpreter whose packages are listed, which has neither pip nor any other tool.
LIST = r"""
import importlib.metadata
import re

LICENSE = re.compile(r"(?:^|/)(?:licen[cs]es?/.+|(?:licen[cs]e|copying|notice|authors)[^/]*)$", re.IGNORECASE)
RULE = "=" * 100

print("Third-party licences of the Python packages in this image.")
print("Those of Debian's packages are in /usr/share/doc/PACKAGE/copyright.")
packages = {one.metadata["Name"].lower(): one for one in importlib.metadata.distributions()}
for name, package in sorted(packages.items()):
    data = package.metadata
    stated = [text for text in (data.get("License-Expression"), data.get("License")) if text]
    classifiers = [text for text in data.get_all("Classifier", []) if text.startswith("License")]
    stated += [text.split(" :: ")[-1] for text in classifiers]
    first = next((text.strip().splitlines()[0] for text in stated if text.strip()), "not stated")
    print(f"\n{RULE}\n{data['Name']} {package.version}\nLicence: {first}")
    for path in sorted(map(str, package.files or ())):
        if ".dist-info/" in path and LICENSE.search(path.partition(".dist-info/")[2]):
            text = package.locate_file(path).read_text(errors="replace").rstrip()
            print(f"\n--- {path.partition('.dist-info/')[2]}\n\n{text}")
"""


def main(python: str) -> None:
    """Print the packages by name, each with the licence that it states and its licence files."""
    subprocess.run([python, "-I", "-c", LIST], check=True)


if __name__ == "__main__":
    main(sys.argv[1])
