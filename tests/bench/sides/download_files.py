"""Download the blobs of a container to a folder, in one of Python's ways."""

from __future__ import annotations

from pathlib import Path

from measure import Timer, arguments, report

given = arguments()
way, account, sas, target = given["way"], given["account"], given["sas"], Path(given["target"])

if way == "ours":
    from aml_mirror.core.errors import ServiceUnavailable
    from aml_mirror.pull.azure_files import AzureFiles
    from aml_mirror.pull.download import Download
    from aml_mirror.pull.pull import pull
    from aml_mirror.pull.wanted import Wanted
    from aml_mirror.support.retry import Retry

    assert pull
    with Timer() as timer:
        retry = Retry(60, lambda error: ServiceUnavailable(str(error)), print)
        files = AzureFiles(account, "files", "model", retry, 16, sas)
        wanted = [
            Wanted(path, one.bytes, given["sha256"], etag=one.etag) for path, one in files.listing().items()
        ]
        assert not Download(files, target / "model", 16).run(wanted).wrong
else:
    from azure.ai.ml._artifacts._blob_storage_helper import BlobStorageClient

    with Timer() as timer:
        # MLClient.models.download calls this after it has found the version.
        client = BlobStorageClient(credential=sas, account_url=account, container_name="files")
        client.download(starts_with="model/", destination=str(target))

files_there = [path for path in target.rglob("*") if path.is_file()]
report(timer, {"files": len(files_there), "bytes": sum(path.stat().st_size for path in files_there)})
