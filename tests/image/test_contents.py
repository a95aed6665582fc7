"""The contents of the image, and that the same sources produce the same files."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from builders.bill_of_materials import problem_of
from builders.containers import Image
from builders.making import ROOT, build, make

MEGABYTE = 1_000_000


def test_runs_as_a_number_gets_signals_and_says_what_it_is(image: Image, built: dict[str, str]) -> None:
    found = json.loads(image.call("image", "inspect", image.reference))[0]["Config"]
    user, group = map(int, found["User"].split(":"))
    assert user and group
    # There is no shell between the engine and the program.
    assert found["Entrypoint"] == ["aml-mirror"]
    assert not found["Cmd"]
    assert found["StopSignal"] == "SIGTERM"
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in found["Labels"].items()}
    revision = subprocess.run(
        ["git", "log", "-1", "--format=%H %cI"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    assert labels["revision"].removesuffix("-dirty") == revision[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", labels["created"])
    assert labels["version"] in image.run("--version", command=None).out
    assert labels["licenses"] == "MIT"
    assert labels["source"]


def test_holds_what_runs_and_nothing_that_builds(image: Image) -> None:
    tools = "pip pip3 uv gcc cc g++ make ld git curl"
    assert image.shell(f"for tool in {tools}; do command -v $tool || true; done") == ""
    assert image.shell("find / -xdev -type d '(' -name pip -o -name setuptools ')'") == ""
    # Every module has its byte code, because pods should not compile and could not write it.
    missing = image.shell(
        "cd /opt/aml-mirror/lib/python3*/site-packages; find . -name '*.py' | while read -r path; do "
        "folder=${path%/*}; name=${path##*/}; "
        'test -e "$folder/__pycache__/${name%.py}".*.pyc || echo "$path"; done'
    )
    assert missing == ""
    # The user who runs the image cannot change any of our files.
    assert image.shell("find /opt/aml-mirror /usr/local /usr/share/aml-mirror -not -type l -perm /022") == ""


def test_is_small(image: Image, built: dict[str, str]) -> None:
    def size(reference: str) -> int:
        return int(image.call("image", "inspect", "--format", "{{.Size}}", reference))

    assert size(image.reference) <= 340 * MEGABYTE
    assert size(image.reference) - size(built["base"]) <= 255 * MEGABYTE


def test_lists_its_packages(image: Image) -> None:
    text = image.shell("cat /usr/share/aml-mirror/sbom.cdx.json")
    found = json.loads(text)
    assert found["bomFormat"] == "CycloneDX"
    assert problem_of(text) == ""
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", found["serialNumber"])
    locked_hashes = set(re.findall(r"--hash=sha256:([0-9a-f]{64})", (ROOT / "requirements.txt").read_text()))
    for component in found["components"]:
        if component["purl"].startswith("pkg:deb/"):
            assert component["licenses"], component["name"]
            assert not component["licenses"][0]["license"]["name"].startswith("unknown"), component["name"]
        elif component["name"] != "aml-mirror":
            (digest,) = component["hashes"]
            assert digest["alg"] == "SHA-256" and digest["content"] in locked_hashes, component["name"]
    assert found["metadata"]["component"]["name"] == "aml-mirror"
    listed = [package(one["purl"]) for one in found["components"]]
    python, platform = image.shell(
        "/opt/aml-mirror/bin/python -c 'import platform, sys; print(platform.python_version(), sys.platform)'"
    ).split()
    locked = {
        (canonicalize_name(requirement.name), str(requirement.specifier).removeprefix("=="))
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if re.match(r"[a-z]", line)
        if (requirement := Requirement(line.rstrip(" \\")))
        if requirement.marker is None
        or requirement.marker.evaluate({"python_full_version": python, "sys_platform": platform})
    }
    pypi = {(name, version) for kind, name, version in listed if kind == "pypi"}
    assert {one for one in pypi if one[0] != "aml-mirror"} == locked
    debian = set(image.shell("dpkg-query --show --showformat '${Package}\\n'").split())
    assert {name for kind, name, _ in listed if kind == "deb"} == debian


def test_brings_the_licences_of_its_packages(image: Image) -> None:
    text = image.shell("cat /usr/share/aml-mirror/THIRD_PARTY_LICENSES.txt")
    sections = dict(re.findall(r"={100}\n(\S+) [^\n]+\nLicence: ([^\n]+)", text))
    listed = json.loads(image.shell("cat /usr/share/aml-mirror/sbom.cdx.json"))["components"]
    python = {canonicalize_name(one["name"]) for one in listed if one["purl"].startswith("pkg:pypi/")}
    assert python <= {canonicalize_name(name) for name in sections}
    assert "not stated" not in sections.values()
    # The licence texts are there, not only their names.
    assert "Permission is hereby granted, free of charge" in text
    assert "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION" in text


def package(purl: str) -> tuple[str, str, str]:
    """Kind, name and version of a package URL."""
    found = re.fullmatch(r"pkg:(pypi|deb)/(?:debian/)?([^@]+)@([^?]+)(?:\?.*)?", purl)
    assert found, purl
    kind, name, version = found.groups()
    return kind, canonicalize_name(name) if kind == "pypi" else unquote(name), unquote(version)


@pytest.mark.nightly
def test_two_builds_hold_the_same_files(built: dict[str, str], context: Path, image: Image) -> None:
    # The second build reuses only the downloads of the first.
    again = build(context, "aml-mirror:pytest-again", NO_CACHE="1")
    try:
        assert again["files"] == built["files"]
    finally:
        image.call("rmi", "--force", "aml-mirror:pytest-again")


def test_pushed_it_runs_by_digest(image: Image, built: dict[str, str], context: Path, registry: str) -> None:
    done = make(
        *("push", f"CONTEXT={context}", f"REFERENCE={image.reference}", "TAG=pytest"),
        *(f"REGISTRY={registry}", "ALLOW_DIRTY=1"),
    )
    (reference,) = done.stdout.splitlines()
    assert re.fullmatch(rf"{registry}/aml-mirror@sha256:[0-9a-f]{{64}}", reference)
    # Remove the name, so that the image must come from the registry.
    image.call("rmi", f"{registry}/aml-mirror:pytest")
    pulled = Image(image.docker, reference)
    try:
        assert "Downloaded" in image.call("pull", reference) or "up to date" in image.call("pull", reference)
        assert pulled.run("--version").out.startswith("aml-mirror ")
    finally:
        pulled.remove_all()
        image.call("rmi", "--force", reference, check=False)


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ((), "no REGISTRY to push to: make push REGISTRY="),
        (("REGISTRY=127.0.0.1:9",), "has changes that no commit has"),
    ],
)
def test_push_refuses(tmp_path: Path, variables: tuple[str, ...], says: str) -> None:
    # A separate checkout, so that the result does not depend on changes in this one.
    for arguments in (
        ("clone", "-q", "--no-hardlinks", str(ROOT), "checkout"),
        ("-C", "checkout", "config", "user.email", "t@example.com"),
    ):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True)
    for name in ("Makefile", "image"):
        subprocess.run(["cp", "-r", ROOT / name, tmp_path / "checkout"], check=True)
    (tmp_path / "checkout" / "new").write_text("not committed")
    done = subprocess.run(
        ["make", "-C", tmp_path / "checkout", "push", *variables], capture_output=True, text=True
    )
    assert done.returncode
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_release_becomes_the_default_of_the_workflows(tmp_path: Path) -> None:
    sources = sorted((ROOT / "workflows").glob("*.yaml"))
    for source in sources:
        shutil.copy(source, tmp_path)
    copies = sorted(tmp_path.glob("*.yaml"))
    script = ROOT / "image" / "set_default.sh"
    reference = f"registry.example:5000/team/aml-mirror@sha256:{'5' * 64}"
    subprocess.run([script, reference, *copies], check=True)
    changed = {}
    for source, copy in zip(sources, copies, strict=True):
        pairs = zip(source.read_text().splitlines(), copy.read_text().splitlines(), strict=True)
        changed[copy.name] = [new for old, new in pairs if old != new]
    assert changed["replay-azureml.yaml"] == changed["backfill-azureml.yaml"] == [f"  image: {reference}"]
    assert all(lines in ([], [f"  image: {reference}"]) for lines in changed.values())
    manifest = shutil.copy(ROOT / "workflows" / "kubernetes" / "watch-cronjob.yaml", tmp_path / "cronjob")
    subprocess.run([script, reference, *copies, manifest], check=True)
    assert Path(manifest).read_text().count(f" image: {reference}\n") == 1
    # A tag can be moved, so it is refused and nothing is written.
    done = subprocess.run(
        [script, "registry.example/aml-mirror:1.0", *copies], capture_output=True, text=True
    )
    assert done.returncode == 64
    assert "is no name by digest" in done.stderr
