"""A version pushed to a real registry (docker-registry), and used by a real Docker engine."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from aml_mirror.core.errors import UsageError
from aml_mirror.export.container_registry import ImageName, parse
from builders import matrix
from builders.killing import Killed, killed_at_request
from builders.mlflow_servers import free_port
from builders.program import Call
from builders.runs import huggingface_run

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / "image" / "engine.sh"


@pytest.fixture
def registry(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """``127.0.0.1:PORT`` of Debian's docker-registry, with a login if the test asks for one."""
    if not (program := shutil.which("docker-registry")):
        pytest.fail("docker-registry is needed: apt-get install docker-registry")
    port = free_port()
    configuration = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        # Otherwise it redirects a proxy's client past the proxy.
        "http": {"addr": f"127.0.0.1:{port}", "relativeurls": getattr(request, "param", None) == "relative"},
        "log": {"level": "warn"},
    }
    if getattr(request, "param", None) == "login":
        # bcrypt of "secret", as htpasswd -B writes it.
        entry = "robot:$2b$05$F8HyL7ChP6QhOuIhtqHfguo.fxUdU0LquuHAcxiUFhpSP1jvQTM6i\n"
        (tmp_path / "htpasswd").write_text(entry)
        configuration["auth"] = {"htpasswd": {"realm": "lab", "path": str(tmp_path / "htpasswd")}}
    (tmp_path / "registry.yml").write_text(json.dumps(configuration))
    with (tmp_path / "registry.log").open("wb") as log:
        process = subprocess.Popen([program, "serve", tmp_path / "registry.yml"], stdout=log, stderr=log)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=2)
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "registry.log").read_text()
                time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(600)


@pytest.fixture
def mirrored(aml_mirror: Call, database: str, tmp_path: Path) -> Path:
    """A run of two files, one in a folder, as version 1 of ``act``; returns its checkpoint."""
    run = huggingface_run(tmp_path / "run-1", steps=(10,), points=1, size=700)
    (run / "checkpoint-10" / "assets").mkdir()
    (run / "checkpoint-10" / "assets" / "ünorm.json").write_text('{"mean": 0}')
    aml_mirror("mirror", run, "--model-name", "act", "--tracking-uri", database)
    return run / "checkpoint-10"


def expected(checkpoint: Path) -> dict[str, bytes]:
    names = ("config.json", "model.safetensors", "assets/ünorm.json")
    return {name: (checkpoint / name).read_bytes() for name in names}


def layers_of(registry: str, digest: str) -> tuple[dict[str, object], dict[str, bytes]]:
    """The manifest and the files in the layers, read back from the registry."""
    base = f"http://{registry}/v2/policies/act"
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    manifest = requests.get(f"{base}/manifests/{digest}", headers=accept, timeout=600)
    assert f"sha256:{hashlib.sha256(manifest.content).hexdigest()}" == digest
    found: dict[str, bytes] = {}
    for layer in manifest.json()["layers"]:
        data = requests.get(f"{base}/blobs/{layer['digest']}", timeout=600).content
        assert (len(data), layer["digest"]) == (layer["size"], f"sha256:{hashlib.sha256(data).hexdigest()}")
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            (member,) = archive.getmembers()
            assert (member.mtime, member.uid, member.mode) == (0, 0, 0o644)
            path = member.name.removeprefix("model/")
            assert layer["annotations"]["org.cncf.model.filepath"] == path
            file = archive.extractfile(member)
            assert file is not None
            found[path] = file.read()
    return manifest.json(), found


def test_the_same_version_is_the_same_image(
    aml_mirror: Call, database: str, mirrored: Path, registry: str
) -> None:
    place = ("--tracking-uri", database)
    first = aml_mirror("export", "act:1", f"{registry}/policies/act:1", *place).json
    assert first["outcome"] == "exported"
    manifest, files = layers_of(registry, first["digest"])
    assert files == expected(mirrored)
    annotations = manifest["annotations"]
    assert isinstance(annotations, dict)
    assert annotations["org.opencontainers.image.title"] == "act"
    again = aml_mirror("export", "act:1", f"{registry}/policies/act:1", *place).json
    assert (again["outcome"], again["bytes_sent"]) == ("already-exported", 0)
    other = aml_mirror("export", "act:1", f"{registry}/policies/act:latest", *place).json
    assert (other["outcome"], other["digest"], again["digest"]) == (
        "exported", first["digest"], first["digest"],
    )  # fmt: skip


def test_a_wrong_byte_gets_no_image(
    aml_mirror: Call, database: str, mirrored: Path, registry: str, tmp_path: Path
) -> None:
    (weights,) = tmp_path.rglob("artifacts/model/model.safetensors")
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    image = f"{registry}/policies/act:1"
    done = aml_mirror("export", "act:1", image, "--tracking-uri", database, code=65)
    assert "model.safetensors of version 1 of act is not what was mirrored" in done.err
    tags = requests.get(f"http://{registry}/v2/policies/act/tags/list", timeout=600)
    assert not (tags.json().get("tags") if tags.ok else None)


@pytest.mark.parametrize("registry", ["login"], indirect=True)
def test_a_registry_with_a_login(
    aml_mirror: Call, database: str, mirrored: Path, registry: str, tmp_path: Path
) -> None:
    image, place = f"{registry}/policies/act:1", ("--tracking-uri", database)
    done = aml_mirror("export", "act:1", image, *place, code=77, DOCKER_CONFIG=str(tmp_path))
    assert f"docker login {registry}" in done.err
    for secret, code in (("wrong", 77), ("secret", 0)):
        auth = base64.b64encode(f"robot:{secret}".encode()).decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {registry: {"auth": auth}}}))
        done = aml_mirror("export", "act:1", image, *place, code=code, DOCKER_CONFIG=str(tmp_path))
        assert auth not in done.err + done.out


@pytest.mark.parametrize("registry", ["relative"], indirect=True)
@pytest.mark.parametrize("part", matrix.PARTS)
def test_killed_at_any_request(
    aml_mirror: Call, database: str, mirrored: Path, registry: str, tmp_path: Path,
    request: pytest.FixtureRequest, part: int,
) -> None:  # fmt: skip
    place = ["--tracking-uri", database]

    def export(tag: str, at: matrix.Moment | None) -> Killed:
        def given(url: str) -> list[str]:
            return [f"{url.removeprefix('http://')}/policies/act:{tag}", *place]

        return killed_at_request(["export", "act:1"], f"http://{registry}", tmp_path, at, given=given)

    digest = aml_mirror("export", "act:1", f"{registry}/policies/act:first", *place).json["digest"]
    # The configuration is already there. For each file the upload starts, sends and commits. The tag is read
    # first and written last.
    whole = export("count", None)
    assert whole.requests == 3 * len(expected(mirrored)) + 3
    for at in matrix.sample(whole.requests, 3, part):
        tag = f"killed-{at.number}-{at.moment}"
        struck = export(tag, at).struck
        assert struck
        held = tag_of(registry, tag)
        # The tag is written last, so an image is complete or absent.
        assert held in (None, digest), struck
        assert held is None or (struck.startswith("PUT") and "/manifests/" in struck)
        done = aml_mirror("export", "act:1", f"{registry}/policies/act:{tag}", *place).json
        assert (done["outcome"], done["digest"]) == ("already-exported" if held else "exported", digest)
        assert layers_of(registry, digest)[1] == expected(mirrored)
        row = f"{struck.partition(' ')[0]} {'manifest' if '/manifests/' in struck else 'blob'}"
        matrix.note(request, "export killed at a request", row, at.moment, done["outcome"])
    # Whatever upload was interrupted, each blob matches the digest in its name.
    stored = [path for path in (tmp_path / "registry").rglob("data") if "_uploads" not in path.parts]
    assert stored
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.parent.name for path in stored)


def tag_of(registry: str, tag: str) -> str | None:
    """The digest of the image with this tag. None if there is no such image."""
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    url = f"http://{registry}/v2/policies/act/manifests/{tag}"
    answer = requests.get(url, headers=accept, timeout=30)
    return f"sha256:{hashlib.sha256(answer.content).hexdigest()}" if answer.ok else None


def test_docker_builds_from_it_and_copies_out_of_it(
    aml_mirror: Call, database: str, mirrored: Path, registry: str, tmp_path: Path
) -> None:
    check = subprocess.run([ENGINE, "check"], capture_output=True, text=True)
    if check.returncode:
        reason = os.environ.get("NO_ENGINE") or check.stderr.strip()
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    client = subprocess.run([ENGINE, "client"], check=True, capture_output=True, text=True).stdout.strip()

    def docker(*arguments: object) -> str:
        command = [client, *map(str, arguments)]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout.strip()

    image = f"{registry}/policies/act:1"
    aml_mirror("export", "act:1", image, "--tracking-uri", database)
    context = tmp_path / "context"
    context.mkdir()
    (context / "note").write_text("built from it")
    (context / "Dockerfile").write_text(f"FROM {image}\nCOPY note /note\n")
    built = f"aml-mirror-export-{os.getpid()}"
    container = ""
    try:
        docker("build", "-q", "-t", built, context)
        container = docker("create", built, "/none")
        docker("cp", f"{container}:/model", tmp_path / "out")
        docker("cp", f"{container}:/note", tmp_path / "note")
    finally:
        for command in (["rm", container], ["rmi", "-f", built, image]):
            subprocess.run([client, *command], capture_output=True)
    root = tmp_path / "out"
    assert {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()} == (
        expected(mirrored)
    )
    assert (tmp_path / "note").read_text() == "built from it"


def test_names_of_images() -> None:
    assert parse("lab.azurecr.io/policies/act:3") == ImageName("lab.azurecr.io", "policies/act", "3")
    for text in ("", "act:3", "lab.azurecr.io/act", "policies/act:3", "lab.azurecr.io/Act:3", "h.io/a:b:c"):
        with pytest.raises(UsageError, match="image"):
            parse(text)
