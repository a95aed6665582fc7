"""Whether a version is still what was mirrored, with a real MLflow server whose files are changed."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import in_toto_attestation.v1.statement as in_toto_statement
import in_toto_attestation.v1.statement_pb2 as in_toto_pb
import pytest
from google.protobuf.json_format import ParseDict
from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from securesystemslib.dsse import Envelope

from aml_mirror.core.errors import ConfigurationError, DataError, MirrorError, SourceNotFound, UsageError
from aml_mirror.core.manifest import Manifest, ManifestEntry
from aml_mirror.core.settings import Settings
from aml_mirror.pipeline.mirror import Mirror
from aml_mirror.pipeline.provenance import signing, statement
from aml_mirror.pipeline.provenance.signed_statement import fits
from aml_mirror.pipeline.receipt import Progress, Receipt
from aml_mirror.registries.records import Version
from aml_mirror.support.progress import Console
from aml_mirror.verify.verify import Verification, parse_reference, text, verify
from builders.program import Call
from builders.runs import huggingface_run


class Registered:
    """One mirrored version on the server, and methods that change its content."""

    def __init__(self, url: str, client: MlflowClient, model: str, run: Path, scratch: Path) -> None:
        self.settings = Settings(
            tracking_uri=url, source=str(run), model_name=model, retry_seconds=30.0, run_id=model
        )
        self.client, self.model, self.scratch = client, model, scratch

    def mirror(self, **more: object) -> Receipt:
        settings = replace(self.settings, **more)  # type: ignore[arg-type]
        *_, receipt = Mirror(settings, Console(io.StringIO()), Progress()).run()
        self.run_id = str(receipt.mlflow_run_id)
        self.version = str(receipt.model_version)
        return receipt

    def verify(self, **more: object) -> Verification:
        reference = f"{self.model}:{self.version}"
        return verify(replace(self.settings, reference=reference, **more), Console(io.StringIO()))  # type: ignore[arg-type]

    def read(self, path: str) -> bytes:
        return Path(self.client.download_artifacts(self.run_id, path, str(self.scratch))).read_bytes()

    def put(self, path: str, data: bytes) -> None:
        folder, _, name = path.rpartition("/")
        (self.scratch / name).write_bytes(data)
        self.client.log_artifact(self.run_id, str(self.scratch / name), folder or None)

    def remove(self, path: str) -> None:
        uri = self.client.get_run(self.run_id).info.artifact_uri
        get_artifact_repository(uri, tracking_uri=self.settings.tracking_uri).delete_artifacts(path)

    def tag(self, name: str, value: str) -> None:
        self.client.set_model_version_tag(self.model, self.version, name, value)


@pytest.fixture
def registered(mlflow_url: str, client: MlflowClient, model_name: str, tmp_path: Path) -> Registered:
    run = huggingface_run(tmp_path / "run", steps=(10,), points=3)
    (tmp_path / "scratch").mkdir()
    found = Registered(mlflow_url, client, model_name, run, tmp_path / "scratch")
    found.mirror()
    return found


def test_a_version_that_nobody_touched_is_verified(registered: Registered) -> None:
    result = registered.verify()
    assert result.holds
    assert result.checked == {"sha256": 2, "md5": 0, "size": 0}
    found = result.as_dict()
    assert (found["outcome"], found["exit_code"], found["files"]) == ("verified", 0, 2)
    assert found["safety"] == "safetensors"
    assert "2 by SHA-256" in text(result)


def test_each_change_is_found_and_named(registered: Registered) -> None:
    whole = registered.read("model/model.safetensors")
    for at in (0, len(whole) // 2, len(whole) - 1):
        registered.put("model/model.safetensors", whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        result = registered.verify()
        assert [path for path, _ in result.wrong] == ["model.safetensors"]
        assert "SHA-256" in result.wrong[0][1]
    registered.put("model/model.safetensors", whole + b"x")
    assert f"it has {len(whole) + 1} bytes" in registered.verify().wrong[0][1]
    registered.put("model/model.safetensors", whole)
    registered.put("model/deep/extra.txt", b"x")
    registered.put("model/x\x1b[31m\u202e.txt", b"x")
    registered.remove("model/config.json")
    result = registered.verify()
    assert (result.wrong, result.missing, len(result.extra)) == ([], ["config.json"], 2)
    assert "deep/extra.txt" in result.extra
    words = text(result)
    assert "missing  config.json" in words
    assert "\x1b" not in words and "\u202e" not in words
    assert result.as_dict()["exit_code"] == 65


def test_a_manifest_that_was_changed_with_the_file_is_found(registered: Registered) -> None:
    # An attacker who changes a file and its digest in the manifest cannot change the digest of the manifest.
    changed = b"{}"
    registered.put("model/config.json", changed)
    manifest = json.loads(registered.read("manifest.json"))
    (entry,) = [entry for entry in manifest["files"] if entry["path"] == "config.json"]
    entry.update(bytes=len(changed), sha256=hashlib.sha256(changed).hexdigest())
    registered.put("manifest.json", json.dumps(manifest).encode())
    with pytest.raises(DataError, match="was changed: it is not the one with the digest"):
        registered.verify()
    registered.tag("manifest_sha256", "0" * 64)
    with pytest.raises(DataError, match="contradict each other"):
        registered.verify()


def test_a_digest_that_was_moved_to_another_field_is_found(registered: Registered) -> None:
    # The digest of the manifest stays the same, because it covers each file's SHA-256, or its ETag if there
    # is none.
    whole = registered.read("model/config.json")
    registered.put("model/config.json", b"x" * len(whole))
    manifest = json.loads(registered.read("manifest.json"))
    (entry,) = [entry for entry in manifest["files"] if entry["path"] == "config.json"]
    for none in (None, ""):
        entry.update(sha256=none, md5=None, etag=entry["etag"] or entry["sha256"], evidence="copied")
        registered.put("manifest.json", json.dumps(manifest).encode())
        with pytest.raises(DataError, match="was changed: it is not the one with the digest"):
            registered.verify()


def test_what_is_signed_covers_every_digest() -> None:
    # For a file that the storage service copied, the manifest's digest covers the ETag, not the MD5.
    items = (ManifestEntry("", "a", 1, None, "old", "0x1"), ManifestEntry("", "b", 1, None, None, "0x2"))
    version = Version("m", "1", {"manifest_sha256": Manifest(items).sha256})
    signed = {
        "predicate": {"model_name": "m", "manifest_sha256": Manifest(items).sha256},
        "subject": [{"name": "a", "digest": {"md5": "old"}}],
    }
    assert fits(signed, version, Manifest(items))
    for changed in (replace(items[0], md5="new"), replace(items[0], md5=None)):
        assert not fits(signed, version, Manifest((changed, items[1])))
    assert not fits(signed, version, Manifest((items[0], replace(items[1], md5="new"))))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'{"schema": "aml-mirror/manifest/v1", "files": [{"path": 3, "bytes": 1}]}',
        b"[" * 9999,
    ],
)
def test_a_damaged_manifest_is_refused(registered: Registered, data: bytes) -> None:
    registered.put("manifest.json", data)
    with pytest.raises(DataError, match=r"manifest of version 1 of .* (was changed|is missing)"):
        registered.verify()


def test_a_manifest_that_is_gone_and_a_version_that_is_not_ours(registered: Registered) -> None:
    registered.remove("manifest.json")
    with pytest.raises(DataError, match="is missing"):
        registered.verify()
    registered.tag("mirror.state", "incomplete")
    with pytest.raises(DataError, match="is not complete"):
        registered.verify()
    made = registered.client.create_model_version(registered.model, f"runs:/{registered.run_id}/model")
    registered.version = made.version
    with pytest.raises(DataError, match="was not made by aml-mirror"):
        registered.verify()
    for version in ("999", "newest"):
        registered.version = version
        with pytest.raises(SourceNotFound, match=f"no version {version}"):
            registered.verify()


def key_pair(folder: Path, *options: str) -> tuple[str, str]:
    """A private and a public key in PEM, as openssl writes them."""
    private, public = str(folder / "key.pem"), str(folder / "key.pub")
    subprocess.run(["openssl", "genpkey", *options, "-out", private], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    return private, public


_ED25519 = ("-algorithm", "ed25519")
_P256 = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")


@pytest.mark.parametrize("options", [_ED25519, _P256], ids=["Ed25519", "P-256"])
def test_a_signed_version(
    mlflow_url: str, client: MlflowClient, model_name: str, tmp_path: Path, options: tuple[str, ...]
) -> None:
    private, public = key_pair(tmp_path, *options)
    (tmp_path / "other").mkdir()
    _, others = key_pair(tmp_path / "other", *options)
    (tmp_path / "scratch").mkdir()
    run = huggingface_run(tmp_path / "run", steps=(10,), points=3)
    registered = Registered(mlflow_url, client, model_name, run, tmp_path / "scratch")
    registered.mirror(sign_key=private)
    result = registered.verify(public_key=public)
    assert result.holds
    assert result.signed_by == signing.key_id(signing.public_key(public))
    with pytest.raises(DataError, match="is not by the key"):
        registered.verify(public_key=others)
    # Without our program, as entrypoint/safety.md says.
    envelope = json.loads(registered.read(signing.ARTIFACT))
    (tmp_path / "payload").write_bytes(payload := _decoded(envelope["payload"]))
    assert payload == registered.read(statement.ARTIFACT)
    if options == _P256:
        (tmp_path / "pae").write_bytes(Envelope(payload, signing.PAYLOAD_TYPE, {}).pae())
        (tmp_path / "sig").write_bytes(_decoded(envelope["signatures"][0]["sig"]))
        subprocess.run(
            [
                "openssl",
                "dgst",
                "-sha256",
                "-verify",
                public,
                "-signature",
                tmp_path / "sig",
                tmp_path / "pae",
            ],
            check=True,
        )
    # A signature of another version of the same model does not fit this one.
    signed = registered.read(signing.ARTIFACT)
    weights = run / "checkpoint-10" / "config.json"
    weights.write_text('{"model_type": "other"}')
    registered.mirror(sign_key=private)
    assert registered.version == "2"
    assert registered.verify(public_key=public).holds
    registered.put(signing.ARTIFACT, signed)
    with pytest.raises(DataError, match="the signature is not for version 2"):
        registered.verify(public_key=public)
    registered.put(signing.ARTIFACT, b"{}")
    with pytest.raises(DataError, match="is damaged"):
        registered.verify(public_key=public)
    registered.remove(signing.ARTIFACT)
    with pytest.raises(DataError, match="is not signed"):
        registered.verify(public_key=public)


def _decoded(text: str) -> bytes:
    return base64.b64decode(text)


def test_a_key_that_cannot_be_used_ends_a_mirror_before_anything_is_sent(
    mlflow_url: str, client: MlflowClient, model_name: str, tmp_path: Path
) -> None:
    run = huggingface_run(tmp_path / "run", steps=(10,), points=3)
    settings = Settings(tracking_uri=mlflow_url, source=str(run), model_name=model_name)
    private, public = key_pair(tmp_path, *_ED25519)
    (tmp_path / "rsa").mkdir()
    rsa, _ = key_pair(tmp_path / "rsa", "-algorithm", "RSA")
    locked = str(tmp_path / "locked.pem")
    subprocess.run(
        ["openssl", "pkey", "-in", private, "-aes256", "-passout", "pass:secret", "-out", locked], check=True
    )
    for key, said in (
        (public, "is not a usable private key"),
        (rsa, "is not a usable private key"),
        (locked, "has a passphrase"),
        (str(tmp_path / "none.pem"), "cannot be read"),
        (str(tmp_path), "cannot be read"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            list(Mirror(replace(settings, sign_key=key), Console(io.StringIO()), Progress()).run())
    assert client.get_experiment_by_name(model_name) is None
    for key in (private, rsa, str(tmp_path / "none.pem")):
        with pytest.raises(ConfigurationError):
            verify(replace(settings, reference="m:1", public_key=key), Console(io.StringIO()))


def test_the_statement_is_in_toto_s_and_sha256sum_reads_it(registered: Registered, tmp_path: Path) -> None:
    found = json.loads(registered.read(statement.ARTIFACT))
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == statement.PREDICATE_TYPE
    # in-toto's own library accepts it. It refuses a copy without a digest, so it does check.
    theirs = in_toto_statement.Statement.copy_from_pb(ParseDict(found, in_toto_pb.Statement()))
    theirs.validate()
    theirs.pb.subject[0].digest.clear()
    with pytest.raises(ValueError):
        theirs.validate()
    manifest = json.loads(registered.read("manifest.json"))
    assert {item["name"]: item["digest"] for item in found["subject"]} == {
        entry["path"]: {"sha256": entry["sha256"]} for entry in manifest["files"]
    }
    assert found["predicate"]["manifest_sha256"] == manifest["manifest_sha256"]
    assert found["predicate"]["run_id"] == registered.model
    # The commands of entrypoint/safety.md.
    place = tmp_path / "download"
    place.mkdir()
    registered.client.download_artifacts(registered.run_id, "", str(place))
    command = _readme_command("sha256sum")
    shell = lambda: subprocess.run(["sh", "-c", command], cwd=place, capture_output=True, text=True)  # noqa: E731
    done = shell()
    assert done.returncode == 0, done.stderr
    assert "model.safetensors: OK" in done.stdout
    (place / "model" / "config.json").write_text("{}")
    assert "config.json: FAILED" in shell().stdout


def _readme_command(word: str) -> str:
    lines = (Path(__file__).parents[2] / "entrypoint" / "safety.md").read_text().splitlines()
    (found,) = [line.strip() for line in lines if line.startswith("    ") and f"| {word}" in line]
    return found


def test_a_local_database_and_the_program(aml_mirror: Call, database: str, tmp_path: Path) -> None:
    run = huggingface_run(tmp_path / "run", steps=(10,), points=3)
    target = ("--tracking-uri", database, "--retry-for", "30s")
    aml_mirror("--source", run, "--model-name", "m", *target)
    done = aml_mirror("verify", "models:/m/1", *target, "--json")
    assert done.json["outcome"] == "verified"
    (weights,) = (tmp_path / "db").rglob("model.safetensors")
    weights.chmod(0o644)
    shutil.copyfile(run / "checkpoint-10" / "config.json", weights)
    done = aml_mirror("verify", "m:1", *target, "--json", code=65)
    assert done.json["wrong"][0]["path"] == "model.safetensors"
    assert aml_mirror("verify", "m:7", *target, code=66).err.startswith(
        "error: there is no version 7 of the model m"
    )


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("m:3", ("m", "3")),
        ("models:/m.x/12", ("m.x", "12")),
        ("azureml:m:3", ("m", "3")),
        ("azureml:/subscriptions/s/providers/x/workspaces/w/models/m/versions/3", ("m", "3")),
        ("a b:3", ("a b", "3")),
    ],
)
def test_how_a_version_is_named(given: str, meant: tuple[str, str]) -> None:
    assert parse_reference(given) == meant


@pytest.mark.parametrize(
    "given", ["", "m", "m:", ":3", "models:/m", "m@champion", "models:/m@best", "a:b:c", "m/x:3"]
)
def test_what_names_no_version_is_a_usage_error(given: str) -> None:
    with pytest.raises(UsageError):
        parse_reference(given)


def test_every_failure_is_one_of_ours() -> None:
    check: Callable[[], object] = lambda: verify(Settings(reference="m:1"), Console(io.StringIO()))  # noqa: E731
    with pytest.raises(MirrorError):
        check()
