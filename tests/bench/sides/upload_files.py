"""Send the files of a folder to blobs below an address, in one of Python's ways."""

from __future__ import annotations

import importlib
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from measure import Timer, arguments, report

given = arguments()
way, folder, address, sas = given["way"], Path(given["folder"]), given["address"], given["sas"]
account, _, rest = address.rpartition("/")
container, prefix = rest, given["prefix"]
files = sorted(path for path in folder.iterdir() if path.is_file())
total = sum(path.stat().st_size for path in files)
facts: dict[str, float] = {}

if way == "ours":
    from azure.core.credentials import AzureSasCredential

    from aml_mirror.registries.azureml.read_once import earlier_blocks
    from aml_mirror.sources.local import LocalSource
    from aml_mirror.sources.tree import Tree
    from aml_mirror.storage.blob_client import container_client
    from aml_mirror.transfer.block_reuse import EarlierBlocks
    from aml_mirror.transfer.one_pass import ONE_PASS_BLOCKS, OnePass
    from aml_mirror.transfer.requests import Requests
    from aml_mirror.transfer.staging_folder import remove_staging_folder
    from aml_mirror.transfer.transfer import Transfer
    from aml_mirror.transfer.transfer_options import BLOCK_BYTES, CONCURRENCY

    # Load everything that the program has loaded by then, so that the memory compares.
    for name in (
        "aml_mirror.pipeline.mirror",
        "aml_mirror.registries.azureml.workspace",
        "azure.ai.ml.entities",
    ):
        importlib.import_module(name)
    from aml_mirror.cli.arguments import parser
    from aml_mirror.core.settings import resolve
    from aml_mirror.registries.azureml.workspace_loader import load_workspace
    from aml_mirror.sources.hashing import hash_files

    model = given.get("model")
    looked_up: list[EarlierBlocks] = []
    if model:
        # As in the program, the clients are connected by now.
        settings = resolve(parser().parse_args(["mirror"]), os.environ, Path.cwd())
        workspace = load_workspace(settings, print)
        assert workspace.azure.container and workspace.models.get(model, "1")

    def earlier() -> EarlierBlocks:
        looked_up.append(earlier_blocks(workspace, model))
        return looked_up[0]

    assert {"azure.ai.ml", "azureml.mlflow", "mlflow"} <= sys.modules.keys()
    source = LocalSource(str(folder))
    tree = Tree(source, source.scan())
    client = container_client(account, container, credential=AzureSasCredential(sas), connections=CONCURRENCY)
    transfer = Transfer(client, CONCURRENCY, BLOCK_BYTES)
    paths = {path.name: path.name for path in files}
    arrivals: list[float] = []

    def arrived(count: int) -> None:
        arrivals.append(time.perf_counter())

    with Timer() as timer:
        if total > ONE_PASS_BLOCKS * BLOCK_BYTES:
            requests = Requests(client, 60, lambda text: None)
            staging = f"{prefix}-work/.staging/key"
            reading = OnePass(requests, staging, CONCURRENCY, BLOCK_BYTES, earlier if model else None)
            manifest = reading.hash_files(tree, paths, arrived, lambda path: None)
            facts["read and sent after, s"] = time.perf_counter() - timer.started
            moved = transfer.put(tree, manifest.items, prefix, arrived, staged=reading.staged)
            remove_staging_folder(requests, reading.staged.folder)
            sent = moved.sent + reading.staged.sent
            if looked_up:
                facts["blocks looked up"] = len(looked_up[0]._known)
        else:
            # Small files are hashed first, because their target depends on their content.
            with Timer() as hashing:
                manifest = hash_files(tree, paths)
            facts["of it hashing, s"] = hashing.seconds
            moved = transfer.put(tree, manifest.items, prefix, arrived)
            sent = moved.sent
    facts["from first to last arrival, s"] = arrivals[-1] - arrivals[0]
    assert (sent, moved.copied) == (total, 0)
elif way == "upload_blob":
    from azure.storage.blob import ContainerClient

    client = ContainerClient.from_container_url(
        f"{address}?{sas}", max_single_put_size=given["block"], max_block_size=given["block"]
    )

    def send(path: Path) -> None:
        with path.open("rb") as stream:
            client.upload_blob(
                f"{prefix}/{path.name}", stream, overwrite=True, max_concurrency=given["concurrency"]
            )

    with Timer() as timer, ThreadPoolExecutor(given["files"]) as pool:
        list(pool.map(send, files))
elif way == "plugin":
    import mlflow
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential
    from mlflow import MlflowClient

    workspace = MLClient(
        DefaultAzureCredential(),
        os.environ["AZURE_SUBSCRIPTION_ID"],
        os.environ["AZURE_RESOURCE_GROUP"],
        os.environ["AZUREML_WORKSPACE_NAME"],
    )
    uri = workspace.workspaces.get(workspace.workspace_name).mlflow_tracking_uri
    # The plugin's artifact store reads this variable and ignores the client's argument.
    mlflow.set_tracking_uri(uri)
    client = MlflowClient(uri, uri)
    run = client.create_run(client.create_experiment(f"upload-{given['prefix']}"))
    with Timer() as timer:
        client.log_artifacts(run.info.run_id, str(folder), "model")
else:
    raise SystemExit(f"no way {way}")

report(timer, {"files": len(files), "bytes": total}, **facts)
