"""Labs: folders like those of a group of people after months of training, with a known truth.

``lab(root, seed)`` writes one and returns the paths of its runs. Everything else in it looks like a run but
is not one: downloads, environments, trash, snapshots, the state of an optimizer, latents, runs that lost
their checkpoints.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from builders import torch_zip
from builders.runs import write_events
from builders.saved import safetensors, write_bytes, write_json


@dataclass
class Lab:
    """The truth about a lab."""

    root: Path
    runs: set[str] = field(default_factory=set)
    """The paths of the runs to be registered, each once."""
    broken: set[str] = field(default_factory=set)
    """The paths of runs without a complete checkpoint: each is a separate failure."""

    def path(self, folder: Path) -> str:
        """Return a folder's path below the lab."""
        return folder.relative_to(self.root).as_posix()


# --- runs ---------------------------------------------------------------------------------------------


def huggingface(folder: Path, dice: random.Random) -> None:
    for step in (10, 20):
        safetensors(folder / f"checkpoint-{step}" / "model.safetensors", seed=dice.randrange(1 << 30))
        write_json(folder / f"checkpoint-{step}" / "config.json", {"model_type": "policy"})
        write_json(folder / f"checkpoint-{step}" / "trainer_state.json", {"global_step": step})
    if dice.random() < 0.5:
        events(folder / "runs" / "Jan02_03-04-05_host")


def rsl_rl(folder: Path, dice: random.Random) -> None:
    for step in (0, 50):
        weights(folder / f"model_{step}.pt", dice, model_state_dict={}, iter=step, infos=None)
    events(folder)
    write_bytes(folder / "params" / "agent.yaml", b"max_iterations: 50\n")


def lightning(folder: Path, dice: random.Random) -> None:
    for step in (100, 200):
        saved = {"epoch": 1, "global_step": step, "pytorch-lightning_version": "2.6.6", "state_dict": {}}
        weights(folder / "checkpoints" / f"epoch=1-step={step}.ckpt", dice, **saved)
    write_bytes(folder / "hparams.yaml", b"lr: 0.1\n")
    events(folder)


def own_script(folder: Path, dice: random.Random) -> None:
    """Of no known framework: numbered files, with one of the signs of a training."""
    place = folder / dice.choice(("checkpoints", "ckpt", "weights"))
    for epoch in (1, 2):
        weights(place / f"epoch_{epoch}.pt", dice, state_dict={}, epoch=epoch)
    evidence = dice.randrange(4)
    if evidence == 0:
        write_bytes(folder / "config.yaml", b"lr: 0.1\n")
    elif evidence == 1:
        events(folder / "logs")
    elif evidence == 2:
        write_bytes(folder / "train.log", b"epoch 1\n")
    else:
        weights(place / "optimizer_2.pt", dice, state={}, param_groups=[])


KINDS: tuple[Callable[[Path, random.Random], None], ...] = (huggingface, rsl_rl, lightning, own_script)


def weights(path: Path, dice: random.Random, **saved: object) -> None:
    torch_zip.save(path, saved, dice.randbytes(64))


def events(folder: Path) -> None:
    write_events(folder / "events.out.tfevents.1760000000.host.1.0", [("loss", 1, 0.5), ("loss", 2, 0.4)])


# --- what looks like a run ----------------------------------------------------------------------------


def hub_cache(around: Path, dice: random.Random) -> None:
    hub = around / dice.choice((".cache/huggingface/hub", "hf_home/hub", "hub", ".hf"))
    snapshot = hub / "models--someone--base" / "snapshots" / "0123abc"
    safetensors(snapshot / "model.safetensors", seed=dice.randrange(1 << 30))
    write_json(snapshot / "config.json", {"model_type": "llama", "architectures": ["Llama"]})
    write_bytes(snapshot / "training_args.bin", b"\x80\x02}.")


def environment(around: Path, dice: random.Random) -> None:
    packages = around / dice.choice(
        ("venv/lib/python3.11/site-packages", "env/lib/python3/dist-packages", "miniconda3/lib/site-packages")
    )
    weights(packages / "a" / "tests" / "checkpoints" / "agent_1000.pt", dice, policy={})
    rsl_rl(packages / "b" / "models", dice)
    huggingface(around / "node_modules" / "c", dice)


def trash(around: Path, dice: random.Random) -> None:
    bins = (".local/share/Trash/files", "#recycle", ".Trash-1000/files", "$RECYCLE.BIN/S-1-5", "@Recycle")
    dice.choice(KINDS)(around / dice.choice(bins) / "walk_6", dice)


def snapshot(around: Path, dice: random.Random) -> None:
    kept = (".snapshot/hourly.2025-01-01", "~snapshot/daily.0", "#snapshot/GMT-01", ".zfs/snapshot/a")
    dice.choice(KINDS)(around / dice.choice(kept) / "walk_2", dice)


def overlay(around: Path, dice: random.Random) -> None:
    layer = f"{dice.getrandbits(256):064x}"
    place = dice.choice(("docker/overlay2", "var/lib/docker/overlay2", "containers/storage/overlay"))
    dice.choice(KINDS)(around / place / layer / "diff" / "root" / "runs" / "walk_1", dice)


def notebook(around: Path, dice: random.Random) -> None:
    weights(around / ".ipynb_checkpoints" / "model_3.pt", dice, state_dict={})


def optimizer_only(around: Path, dice: random.Random) -> None:
    folder = around / f"exp{dice.randrange(99)}" / dice.choice(("optim", "optimizer"))
    for step in (100, 200):
        weights(folder / f"step_{step}.pt", dice, state={}, param_groups=[])


def tensors(around: Path, dice: random.Random) -> None:
    folder = around / dice.choice(("latents", "predictions", "point_clouds", "preds", "encoded_steps"))
    for step in (1, 2, 3):
        weights(folder / f"step_{step}.pt", dice, x=1)


def tables(around: Path, dice: random.Random) -> None:
    for number in (1, 2):
        write_bytes(
            around / "sim_out" / f"policy_step_{number}.h5", b"\x89HDF\r\n\x1a\n" + dice.randbytes(99)
        )


def dataset(around: Path, dice: random.Random) -> None:
    for number in range(3):
        write_bytes(around / "data" / f"episode_{number:06}" / "frame.npz", dice.randbytes(20))
    write_json(around / "data" / "meta" / "info.json", {"fps": 30})


def download(around: Path, dice: random.Random) -> None:
    safetensors(around / "llama-7b" / "model.safetensors", seed=dice.randrange(1 << 30))
    write_json(around / "llama-7b" / "config.json", {"model_type": "llama", "architectures": ["Llama"]})


NO_RUNS: tuple[Callable[[Path, random.Random], None], ...] = (
    *(hub_cache, environment, trash, snapshot, overlay, notebook, optimizer_only, tensors, tables, dataset),
    download,
)


# --- the lab ------------------------------------------------------------------------------------------


def lab(root: Path, seed: int) -> Lab:
    """Write a lab."""
    dice = random.Random(seed)
    made = Lab(root)
    root.mkdir(parents=True)
    people = [root / name for name in dice.sample(("ann", "bob", "shared", "archive 2025", "cluster"), 2)]
    for place in people:
        for number in range(dice.randint(1, 2)):
            _project(
                made, place / dice.choice(("walk", "logs/rsl_rl/h1", "pick", "sweeps/lr")) / str(number), dice
            )
        for rubbish in dice.sample(NO_RUNS, 3):
            rubbish(place, dice)
    return made


def _project(made: Lab, folder: Path, dice: random.Random) -> None:
    for name in dice.sample(
        ("2026-01-02_03-04-05", "seed0", "seed1", "trial-a", "h1 flat"), dice.randint(1, 3)
    ):
        run = folder / name
        kind = dice.choice(KINDS)
        kind(run, dice)
        fate = dice.random()
        if fate < 0.15:
            _lose_checkpoints(run)
        elif fate < 0.25:
            _cut(run)
            made.broken.add(made.path(run))
        else:
            made.runs.add(made.path(run))
            _around(made, run, kind, dice)


def _around(made: Lab, run: Path, kind: Callable[[Path, random.Random], None], dice: random.Random) -> None:
    """Write what accumulates in and beside a run."""
    if dice.random() < 0.3:
        hub_cache(run, dice)
    if dice.random() < 0.2:
        dice.choice((notebook, trash, snapshot, environment))(run, dice)
    if dice.random() < 0.2:
        copy = run.with_name(run.name + dice.choice((" (1)", "_bak", ".old", " copy")))
        shutil.copytree(run, copy)
        made.runs.add(made.path(copy))
    elif kind is not own_script and dice.random() < 0.2:
        inner = run / dice.choice(("student", "distill", "stage2"))
        dice.choice(KINDS)(inner, dice)
        made.runs.add(made.path(inner))


def _lose_checkpoints(run: Path) -> None:
    for path in run.rglob("*"):
        if path.suffix in (".safetensors", ".pt", ".ckpt"):
            path.unlink()
    for folder in run.glob("checkpoint-*"):
        shutil.rmtree(folder)


def _cut(run: Path) -> None:
    for path in run.rglob("*"):
        if path.suffix in (".safetensors", ".pt", ".ckpt"):
            path.write_bytes(path.read_bytes()[:-70])
