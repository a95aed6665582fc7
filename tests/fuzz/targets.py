"""The fuzzing targets: each accepts bytes and raises nothing. See README.md."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import BinaryIO

from aml_mirror.cli.arguments import parser
from aml_mirror.core.errors import MirrorError
from aml_mirror.core.settings import resolve
from aml_mirror.formats.pickle_values import pickled_pairs
from aml_mirror.layouts import known_layouts
from aml_mirror.layouts.base import Checkpoint
from aml_mirror.metrics.readers.event_file import EventFile, masked_crc32c
from aml_mirror.metrics.readers.wandb_log import BLOCK, MAGIC, WandbLog
from aml_mirror.metrics.series import read_metrics
from aml_mirror.pipeline.completeness import judge
from aml_mirror.safety import verdict as safety
from aml_mirror.safety.file_scan import CLEAN
from aml_mirror.sources.base import Entry, Listing
from aml_mirror.sources.tree import Tree


class MemorySource:
    """Files in memory. See :class:`aml_mirror.sources.base.Source`."""

    uri, name, has_etags = "memory", "run", False

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files

    def scan(self) -> Listing:
        return Listing({path: Entry(path, len(data), "1") for path, data in self._files.items()})

    def open(self, entry: Entry) -> BinaryIO:
        return io.BytesIO(self._files[entry.path])

    def read(self, entry: Entry, offset: int, length: int) -> bytes:
        return self._files[entry.path][offset : offset + length]

    def is_unchanged(self, entry: Entry) -> bool:
        return True


def tree_of(files: dict[str, bytes]) -> Tree:
    """A tree of files in memory."""
    source = MemorySource(files)
    return Tree(source, source.scan())


def events(data: bytes) -> None:
    """An event file, and a W&B log: any bytes give points, and a reason why reading ended."""
    length = struct.pack("<Q", len(data))
    # With the right checksums, the input is the content of a record.
    record = length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))
    for found in (data, record, record + data):
        file = EventFile(io.BytesIO(found), "events")
        assert len(list(file)) == file.points
    if len(data) <= BLOCK - 14:
        part = struct.pack("<IHB", zlib.crc32(data, zlib.crc32(b"\x01")), len(data), 1) + data
        for found in (MAGIC + data, MAGIC + part, MAGIC + part + data):
            log = WandbLog(io.BytesIO(found), "run-a.wandb")
            assert len(list(log)) == log.points


def _judged(name: str, data: bytes) -> None:
    said = judge(tree_of({name: data}), Checkpoint(name, 1, "final", (name,), (name,)))
    assert isinstance(said, str)


def safetensors(data: bytes) -> None:
    """A file of weights: any bytes are complete, or there is a reason why not."""
    _judged("model.safetensors", data)


def archive(data: bytes) -> None:
    """A zip archive, as torch's and as Stable-Baselines3's."""
    _judged("model.pt", data)
    _judged("model.zip", data)


def pickled(data: bytes) -> None:
    """A pickle: never an exception, and never clean unless it is a pickle to its end."""
    found = safety.inspect(
        tree_of({"a.pkl": data, "b.bin": data, "c.npy": data}), ["a.pkl", "b.bin", "c.npy"], []
    )
    if found.files[0].safety == CLEAN and data[:2] != b"PK":
        assert b"." in data
    pickled_pairs(data, frozenset({"a", "step"}))


# The files that the layouts look for. The input is the content of one of them; the others are valid.
_FILES = {
    "config.json": b"{}",
    "checkpoint-10/trainer_state.json": b'{"global_step": 10, "log_history": []}',
    "checkpoint-10/model.safetensors": b"",
    "checkpoint-10/model.safetensors.index.json": b'{"weight_map": {}}',
    "checkpoints/000010/pretrained_model/config.json": b"{}",
    "checkpoints/000010/pretrained_model/train_config.json": b"{}",
    "checkpoints/000010/training_state/training_step.json": b'{"step": 10}',
    "checkpoints/agent_10.pt": b"",
    "checkpoints/latest.ckpt": b"",
    "experiment_cfg/conf.yaml": b"",
    "lightning_logs/version_0/hparams.yaml": b"",
    "lightning_logs/version_0/checkpoints/epoch=1-step=10.ckpt": b"",
    "lightning_logs/version_0/metrics.csv": b"",
    "logs.json.txt": b"",
    ".hydra/config.yaml": b"",
    "nn/last_x_ep_10_rew_1.0.pth": b"",
    "params/agent.yaml": b"a: 1",
    "model_10.pt": b"",
    "evaluations.npz": b"",
    "progress.csv": b"",
    "10/params/_METADATA": b"{}",
    "10/params/manifest.ocdbt": b"",
    "10/_CHECKPOINT_METADATA": b"{}",
}  # fmt: skip


def layouts(data: bytes) -> None:
    """Each layout, and the logs that it names, on a run with the input as one file.

    Only our own errors are allowed.
    """
    if not data:
        return
    names = list(_FILES)
    files = {**_FILES, names[data[0] % len(names)]: data[1:]}
    tree = tree_of(files)
    for layout in known_layouts():
        try:
            for root in layout.find(tree):
                run = tree.below(root)
                read_metrics(run, layout.read(run).logs)
        except MirrorError:
            continue


def settings(data: bytes) -> None:
    """A .env file and a command line, in two parts at the first NUL."""
    dotenv, _, line = data.partition(b"\0")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / ".env").write_bytes(dotenv)
        words = line.decode("utf-8", "replace").split("\0")
        try:
            with redirect_stdout(io.StringIO()):
                flags = parser().parse_args(["mirror", *words] if words != [""] else ["mirror"])
            resolve(flags, {}, Path(folder))
        except (MirrorError, SystemExit):
            return


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        made.writestr("a/data.pkl", pickle.dumps({"step": 3}, 2))
        made.writestr("a/data/0", b"\0" * 8)
    return stream.getvalue()


_HEADER = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
# A row of W&B's history: a number, its step, its time.
_ROW = (
    b"\x12\x32\x0a\x0c\x12\x04loss\x82\x01\x030.5"
    b"\x0a\x1e\x12\x0a_timestamp\x82\x01\x0f1796000000.5000\x12\x02\x08\x09"
)

TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "events": (events, [b"", struct.pack("<QI", 4, 0) + b"abcd" + b"\0" * 4, _ROW]),
    "safetensors": (safetensors, [struct.pack("<Q", len(_HEADER)) + _HEADER + b"\0" * 8]),
    "archive": (archive, [_zip()]),
    "pickle": (
        pickled,
        [pickle.dumps({"a": [1, {"step": 2}]}, protocol) for protocol in range(6)] + [_zip()],
    ),
    "layouts": (layouts, [bytes([number]) + b'{"step": 1}' for number in range(len(_FILES))]),
    "settings": (settings, [b"A=1\nMLFLOW_TRACKING_URI=x\0--tag\0a=b", b"export A='x\n"]),
}
