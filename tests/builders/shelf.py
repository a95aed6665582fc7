"""Mirrors into a registry in a folder, in this process: that of the example of a third-party package."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

from aml_mirror.core.settings import Settings
from aml_mirror.pipeline.mirror import Mirror
from aml_mirror.pipeline.receipt import Progress, Receipt
from aml_mirror.support.progress import Console

sys.path.insert(0, str(Path(__file__).parents[1] / "plugins" / "third_party"))
from aml_mirror_example.registry import Shelf, ShelfReader, ShelfWriter

__all__ = ["CONSOLE", "Shelf", "ShelfReader", "ShelfWriter", "mirror", "settings", "status"]

CONSOLE = Console(io.StringIO())


def settings(run: Path, **more: Any) -> Settings:
    """Settings for the model m. The address of the registry is only checked: it is given."""
    return Settings(source=str(run), model_name="m", tracking_uri="sqlite:///none.db", **more)


def mirror(run: Path, shelf: Shelf, **more: Any) -> Receipt:
    """Mirror the final checkpoint of a run."""
    (receipt,) = Mirror(settings(run, **more), CONSOLE, Progress(), registry=shelf).run()
    return receipt


def status(shelf: Shelf) -> str:
    """The status of the only run."""
    (path,) = (shelf.folder / "runs").glob("*.json")
    return str(json.loads(path.read_text())["status"])
