"""The whole program from the command line, compared with azcopy and a script that registers the version."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from azure_emulator.client import Azure
from bench import emulator, environments, runs
from bench.harness import BenchError, Comparison, Result, Sample, Side, compare, run_side

MIB = 1 << 20
SIZE = 256 * MIB
# What a version consists of. The other file of the checkpoint is a log of the training.
_FILES = "model.safetensors;config.json"


def results(rounds: int | None) -> Iterator[Result]:
    """See the module's first line."""
    with emulator.scope() as azure:
        yield compare(comparison(azure), rounds)


def comparison(azure: Azure, size: int = SIZE) -> Comparison:
    """Both sides store the files of a checkpoint in the datastore, and register a version of them."""
    run = runs.run("whole", 0, 1, size)
    # azcopy's own login also asks login.microsoftonline.com, which is not emulated. So it gets a SAS.
    azure.set_account(shared_key=True)
    sas = generate_container_sas(
        azure.account,
        azure.container,
        account_key=azure.call("GET")["accounts"][0]["key"],
        permission=ContainerSasPermissions(read=True, write=True, create=True, list=True),
        expiry=datetime.now(UTC) + timedelta(days=1),
    )

    def ours() -> Sample:
        name = f"whole-{uuid.uuid4().hex[:8]}"
        program = environments.ours().with_name("aml-mirror")
        # A new run id, because otherwise the program would find the files of the round before.
        command = [program, "--source", run, "--run-id", name, "--model-name", name, "--json"]
        return _registered(azure, name, run_side(command, emulator.environment(azure), prints_sample=False))

    def by_hand() -> Sample:
        name = f"whole-{uuid.uuid4().hex[:8]}"
        binary, variables = environments.azcopy()
        scratch = environments.scratch() / name
        variables |= {
            "SSL_CERT_FILE": azure.facts["ca"],
            "AZCOPY_LOG_LOCATION": str(scratch),
            "AZCOPY_JOB_PLAN_LOCATION": str(scratch),
            "AZCOPY_DISABLE_SYSLOG": "true",
        }
        address = f"https://{azure.account}.blob.core.azure.test/{azure.container}/by-hand/{name}/model?{sas}"
        options = ("--from-to", "LocalBlob", "--recursive", "--as-subdir=false", "--include-pattern", _FILES)
        command = [binary, "copy", run / "checkpoint-100", address, *options]
        command += ["--log-level", "NONE", "--skip-version-check"]
        copied = run_side(command, emulator.environment(azure, **variables), prints_sample=False)
        given = {"name": name, "path": f"azureml://datastores/workspaceblobstore/paths/by-hand/{name}/model"}
        command = [environments.peers(), environments.SIDES / "register_model.py", json.dumps(given)]
        script = run_side(command, emulator.environment(azure), prints_sample=False)
        both = Sample(
            copied.seconds + script.seconds,
            max(copied.resident, script.resident),
            cpu=copied.cpu + script.cpu,
            facts={"of it the script, s": script.seconds},
        )
        return _registered(azure, name, both)

    return Comparison(
        "whole",
        f"The whole program: a checkpoint of {size // MIB} MiB, registered as a model version",
        [
            Side(
                "ours",
                "from the command line: examines, hashes, sends, moves, checks, writes manifest and card, "
                "registers",
                ours,
            ),
            Side(
                "azcopy and a script",
                "azcopy as it comes, with a SAS; then azure-ai-ml registers the path; nothing hashed",
                by_hand,
            ),
        ],
        [],
        "ours",
        note="Azurite, on the same two cores, stores the files of both. To move a file, it reads and writes "
        "it again. So times say little about Azure.",
    )


def _registered(azure: Azure, name: str, sample: Sample) -> Sample:
    """The sample with what is stored under the path of the version. The files are removed afterwards."""
    versions = azure.models().get(name, {})
    if len(versions) != 1:
        raise BenchError(f"{name} has {len(versions)} versions")
    (version,) = versions.values()
    path = version["modelUri"].partition("/paths/")[2].rstrip("/") + "/"
    service = azure.blob_service()
    stored = {}
    for blob in azure.blobs(path):
        client = service.get_blob_client(azure.container, blob)
        digest = hashlib.sha256()
        for chunk in client.download_blob().chunks():
            digest.update(chunk)
        stored[blob.removeprefix(path)] = digest.hexdigest()
        client.delete_blob()
    return replace(sample, work={"files": json.dumps(stored, sort_keys=True)})
