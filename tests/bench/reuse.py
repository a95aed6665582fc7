"""Reuse: the next checkpoint of a training whose backbone is frozen, as the whole program sends it."""

from __future__ import annotations

import json
import shutil
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from azure_emulator.client import Azure
from bench import emulator, environments
from bench.environments import DATA
from bench.harness import BenchError, Comparison, Goal, Measured, Result, Sample, Side, compare, run_side

MIB = 1 << 20
SIZE = 192 * MIB
FROZEN = 0.65
LAYERS = 24
ROUNDS = 1

Tensors = dict[str, np.ndarray]


def results(rounds: int | None) -> Iterator[Result]:
    """See the module's first line."""
    with emulator.scope() as azure:
        yield compare(comparison(azure), rounds)


def tensors(seed: int, frozen: float = FROZEN) -> Tensors:
    """Weights in the order of a state dict. The first layers are frozen; the others depend on the seed."""
    each = SIZE // LAYERS
    return {
        f"layers.{number:02d}.weight": np.random.default_rng(
            (number, 0 if number < round(frozen * LAYERS) else seed)
        ).integers(0, 255, each, dtype=np.uint8)
        for number in range(LAYERS)
    }


def one_file(folder: Path, found: Tensors) -> None:
    """A safetensors file."""
    save_file(found, folder / "model.safetensors")


def shards(folder: Path, found: Tensors) -> None:
    """Four safetensors files with an index."""
    names = list(found)
    index = {}
    for number in range(4):
        part = names[number * LAYERS // 4 : (number + 1) * LAYERS // 4]
        file = f"model-{number + 1:05d}-of-00004.safetensors"
        save_file({name: found[name] for name in part}, folder / file)
        index.update(dict.fromkeys(part, file))
    text = json.dumps({"metadata": {"total_size": SIZE}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text)


def torch_zip(folder: Path, found: Tensors) -> None:
    """A file as ``torch.save`` writes it: records at multiples of 64 bytes, after a pickle of varying
    length.
    """
    step = int.from_bytes(found[f"layers.{LAYERS - 1:02d}.weight"][:2].tobytes(), "little")
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        archive.writestr("pytorch_model/data.pkl", b"\x80\x02}q\x00." + bytes(step % 5000))
        for number, values in enumerate(found.values()):
            info = zipfile.ZipInfo(f"pytorch_model/data/{number}")
            begin = archive.fp.tell() + 30 + len(info.filename) + 4  # type: ignore[union-attr]
            padding = -begin % 64
            info.extra = b"FB" + padding.to_bytes(2, "little") + bytes(padding)
            archive.writestr(info, values.tobytes())


def comparison(azure: Azure) -> Comparison:
    """Each side mirrors a checkpoint, without being measured, and then its successor."""
    program = environments.ours().with_name("aml-mirror")

    def side(write: Callable[[Path, Tensors], None], frozen: float = FROZEN) -> Callable[[], Sample]:
        def call() -> Sample:
            name = f"reuse-{uuid.uuid4().hex[:8]}"
            for seed in (1, 2):
                folder = DATA / name / f"run-{seed}" / "checkpoint-100"
                folder.mkdir(parents=True)
                write(folder, tensors(seed, frozen))
                (folder / "config.json").write_text('{"model_type": "policy"}')
                (folder / "trainer_state.json").write_text('{"global_step": 100, "log_history": []}')
                command = [program, "--source", folder.parent, "--model-name", name, "--json"]
                sample = run_side(command, emulator.environment(azure), prints_sample=False)
            shutil.rmtree(DATA / name)
            receipt = json.loads(sample.said.splitlines()[-1])
            if receipt["outcome"] != "mirrored":
                raise BenchError(f"{write.__name__}: {receipt['outcome']}")
            size = receipt["bytes"]
            facts = {
                "% sent": 100 * receipt["bytes_sent"] / size,
                "% taken from the version before": 100 * receipt["bytes_reused"] / size,
            }
            return Sample(sample.seconds, sample.resident, {"checkpoints": 2}, facts, sample.cpu)

        return call

    def sent(measured: dict[str, Measured]) -> float:
        return measured["safetensors"].facts["% sent"]

    return Comparison(
        "reuse",
        f"Reuse: a successor of {SIZE // MIB} MiB with {FROZEN:.0%} frozen, the whole program into Azurite",
        [
            Side("safetensors", "one file", side(one_file)),
            Side("shards", "four safetensors files", side(shards)),
            Side(
                "torch zip",
                "records at shifted offsets, because the pickle before them grows",
                side(torch_zip),
            ),
            Side("nothing frozen", "one file with different weights", side(one_file, 0.0)),
        ],
        [Goal("≤ 40 % of the bytes sent", 40, True, sent, "%")],  # type: ignore[arg-type]
        "safetensors",
        ROUNDS,
        "Azurite reads and writes a block to copy it from another blob, so times say nothing about Azure.",
    )
