"""The promises of entrypoint/consumers.md: what Azure's own client must see, and what readers do with it.

physical-ai-toolchain's readers (August 2026): ``download_aml_model.py`` downloads with azure-ai-ml and uses
the folder with ``*.safetensors`` or ``*.bin`` files: the download folder or a folder directly in it. If there
is none, it uses the download folder. ``submit-azureml-isaaclab-evaluation.sh`` reads ``.tags.framework``,
``.tags.task`` and ``.properties.success_threshold``. ``build-aml-model-image.sh`` moves the download folder
to ``model/``.
"""

from __future__ import annotations

import re
from pathlib import Path

from azure.ai.ml import MLClient

from aml_mirror.core.settings import Settings
from aml_mirror.layouts.known_layouts import BUILT_IN
from aml_mirror.pipeline.decide import plans
from aml_mirror.storage.azure_login import credential as login
from aml_mirror.support.progress import Console
from azure_emulator.client import Azure
from builders.runs import huggingface_run
from mirroring import Mirroring

PAGE = Path(__file__).parents[2] / "entrypoint" / "consumers.md"
RUNS = Path(__file__).parents[1] / "data" / "runs"


def reader_finds(paths: list[str]) -> bool:
    """Whether download_aml_model.py finds the folder with the weights.

    It searches ``NAME/`` and the folders directly in it. Azure's download puts our ``model/`` there.
    """
    folders = {path.rpartition("/")[0] for path in paths if path.endswith((".safetensors", ".bin"))}
    return "" in folders


def test_what_azures_own_download_makes(here: Azure, mirroring: Mirroring, tmp_path: Path) -> None:
    run = huggingface_run(tmp_path / "run-7", steps=(20,), points=1)
    receipt = mirroring.mirror(run, "reach", "--task-name", "reach", "--success-threshold", "0.8").json
    facts = here.facts
    client = MLClient(login(), facts["subscription"], facts["resource_group"], facts["workspace"])
    client.models.download(name="reach", version="1", download_path=str(tmp_path / "down"))
    made = {
        p.relative_to(tmp_path / "down").as_posix() for p in (tmp_path / "down").rglob("*") if p.is_file()
    }
    assert made == {"reach/model/model.safetensors", "reach/model/config.json"}
    # The fields that submit-azureml-isaaclab-evaluation.sh reads with `az ml model show`.
    shown = here.models()["reach"]["1"]
    assert {name: shown["tags"][name] for name in ("framework", "task", "step", "role")} == {
        "framework": "huggingface", "task": "reach", "step": "20", "role": "final",
    }  # fmt: skip
    assert shown["properties"]["success_threshold"] == "0.8"
    account, container, path = receipt["files_uri"].removeprefix("azure://").split("/", 2)
    assert (account, container) == (here.account, here.container)
    assert {name.removeprefix(path + "/") for name in here.blobs(path)} == {
        "model.safetensors",
        "config.json",
    }


def versions() -> dict[str, list[str]]:
    """The paths of a version's files, for each layout with a stored run."""
    found: dict[str, list[str]] = {}
    for run in sorted(path for path in RUNS.iterdir() if path.is_dir()):
        try:
            (plan, *_) = plans(Settings(source=str(run)), Console())
        except Exception:  # noqa: BLE001 - a run that needs a choice has no version of its own here
            continue
        found[plan.located.detected.layout.name] = [item.path for item in plan.manifest.items]
    return found


def test_the_page_says_which_layouts_the_downloader_finds() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (yes|no) \|", text, re.M))
    seen = {name: "yes" if reader_finds(paths) else "no" for name, paths in versions().items()}
    assert len(seen) >= 10
    assert {name: rows.get(name) for name in seen} == seen
    assert rows.keys() <= {layout.name for layout in BUILT_IN}


def test_every_promise_has_a_test() -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) >= 8
    for file, name in named:
        assert f"def {name}(" in (PAGE.parents[1] / file).read_text(encoding="utf-8"), (file, name)
