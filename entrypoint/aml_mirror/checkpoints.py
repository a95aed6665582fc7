"""Which checkpoint is mirrored, and whether its bytes are whole.

A checkpoint is judged from the outside: a safetensors header against the file's size, a zip's directory
against the zip, a pickle's last byte, JSON by parsing. Nothing is unpickled, and of the large files only
some kilobytes are read. The newest complete one is taken; what was passed over is said.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from aml_mirror.errors import DataError, UsageError
from aml_mirror.formats.archives import Archive
from aml_mirror.layouts.base import Checkpoint, Run
from aml_mirror.sources.tree import MAX_TEXT_BYTES, Tree

# The format allows 100 MB of header (safetensors README); 10^5 tensors need a tenth of that. Parsing takes
# about ten times its size in memory, so this bounds what a hostile file can make us hold.
MAX_SAFETENSORS_HEADER = 32 << 20  # bytes
# Configuration files are parsed to see whether they are whole. Larger JSON, a tokenizer's above all, would
# take ten times its size in memory: its brackets are counted, up to MAX_TEXT_BYTES.
MAX_JSON_BYTES = 4 << 20
_JSON_PART_BYTES = 1 << 20
_ZIP_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".zip")
# torch.save before 1.6 and with the old format: the pickled magic number comes first.
_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


@dataclass(frozen=True, slots=True)
class Chosen:
    """A checkpoint to mirror, and what was passed over on the way to it: (path, why)."""

    checkpoint: Checkpoint
    passed_over: tuple[tuple[str, str], ...] = ()


def choose(
    tree: Tree,
    run: Run,
    wanted: str,
    strict: bool = False,
    trusted: Callable[[Checkpoint], bool] = lambda checkpoint: False,
) -> Iterator[Chosen]:
    """Yield the checkpoints that ``wanted`` means: one, or all complete ones, oldest first, for ``all``.

    Args:
        tree: the run.
        run: what its layout says.
        wanted: ``final``, ``best``, ``all``, a step, or a path below the run's root.
        strict: an incomplete checkpoint on the way is an error, not a warning.
        trusted: tells of a checkpoint that it was judged before and cannot have changed since.

    Raises:
        DataError: what is wanted is not there or not complete, and ``strict`` or nothing else can be meant.
        UsageError: no checkpoint has that step or path.
    """

    def why_not(checkpoint: Checkpoint) -> str:
        return "" if trusted(checkpoint) else judge(tree, checkpoint)

    if wanted == "final":
        yield _newest(run, why_not, strict)
    elif wanted == "all":
        yield from _all(run, why_not, strict)
    else:
        checkpoint = _named(tree, run, wanted)
        if why := why_not(checkpoint):
            raise DataError(
                f"the checkpoint {checkpoint.path} is not complete: {why}",
                "choose another with --checkpoint final, or a step",
            )
        yield Chosen(checkpoint)


def _newest(run: Run, why_not: Callable[[Checkpoint], str], strict: bool) -> Chosen:
    passed: list[tuple[str, str]] = []
    for checkpoint in run.checkpoints:
        why = why_not(checkpoint)
        if not why:
            # Whatever name it has, it now is what the training is known to have ended with.
            return Chosen(replace(checkpoint, role="final"), tuple(passed))
        passed.append((checkpoint.path, why))
        if strict:
            break
    raise _none_complete(passed, strict, run.best if not run.checkpoints else None)


def _all(run: Run, why_not: Callable[[Checkpoint], str], strict: bool) -> Iterator[Chosen]:
    candidates = list(reversed(run.checkpoints))
    if run.best and all(run.best.path != other.path for other in candidates):
        candidates.append(run.best)
    passed = [(item.path, why) for item in candidates if (why := why_not(item))]
    if not candidates or len(passed) == len(candidates) or (strict and passed):
        raise _none_complete(passed, strict)
    bad = {path for path, _ in passed}
    for item in candidates:
        if item.path not in bad:
            yield Chosen(item, tuple(passed))


def _none_complete(passed: list[tuple[str, str]], strict: bool, only: Checkpoint | None = None) -> DataError:
    if only is not None:
        return DataError(
            f"the run does not hold what training ended with, only its best checkpoint {only.path}",
            "pass --checkpoint best to mirror that one",
        )
    if not passed:
        return DataError("the run holds no checkpoint", "check that the training saved one")
    path, why = passed[0]
    if strict:
        return DataError(
            f"the checkpoint {path} is not complete: {why}",
            "leave out --strict to take the newest complete one",
        )
    others = f", nor any of the {len(passed) - 1} others" if len(passed) > 1 else ""
    return DataError(
        f"the run holds no complete checkpoint: not {path}: {why}{others}",
        "train on, or copy the run again if it was cut while it was copied",
    )


def _named(tree: Tree, run: Run, wanted: str) -> Checkpoint:
    known = [*run.checkpoints, *([run.best] if run.best else [])]
    if wanted == "best":
        if run.best is None:
            raise DataError(
                "the run keeps no best checkpoint",
                "pass --checkpoint final, or a step: " + _steps(known),
            )
        return run.best
    if re.fullmatch("[0-9]{1,18}", wanted):
        for checkpoint in known:
            if checkpoint.step == int(wanted):
                return checkpoint
        raise UsageError(f"no checkpoint has the step {wanted}", "there are: " + _steps(known))
    path = tree.resolve(wanted.strip("/").removeprefix("./"))
    # The folder around it counts too: checkpoints/005000 for checkpoints/005000/pretrained_model.
    meant = [item for item in known if item.path == path] or [
        item for item in known if item.path.startswith(path + "/")
    ]
    if len({item.path for item in meant}) == 1:
        return meant[0]
    if meant:
        known = meant
    raise UsageError(
        f"{'several checkpoints lie below' if meant else 'no checkpoint has the path'} {wanted}",
        "there are: " + ", ".join(item.path for item in known[:10]),
    )


def _steps(known: list[Checkpoint]) -> str:
    steps = sorted({item.step for item in known if item.step is not None})
    shown = [str(step) for step in steps]
    if len(shown) > 10:
        shown = [*shown[:4], "…", *shown[-5:]]
    return ", ".join(shown) or "no step is known of any"


def narrow(checkpoint: Checkpoint, include: tuple[str, ...], exclude: tuple[str, ...]) -> Checkpoint:
    """Return the checkpoint with only the files that ``--include`` and ``--exclude`` let through.

    A pattern is held against the path below the run's root, the path below the checkpoint, and the name.

    Raises:
        UsageError: no file with weights is left.
    """
    if not include and not exclude:
        return checkpoint
    base = "" if checkpoint.path == "." else checkpoint.path + "/"

    def matches(path: str, patterns: tuple[str, ...]) -> bool:
        forms = {path, path.rpartition("/")[2], path.removeprefix(base)}
        return any(fnmatchcase(form, pattern) for form in forms for pattern in patterns)

    kept, left = [], list(checkpoint.left_out)
    for path in checkpoint.files:
        if include and not matches(path, include):
            left.append((path, "not named by --include"))
        elif matches(path, exclude):
            left.append((path, "named by --exclude"))
        else:
            kept.append(path)
    weights = tuple(path for path in checkpoint.weights if path in kept)
    if not weights:
        raise UsageError(
            f"--include and --exclude leave no weights of {checkpoint.path}",
            "its weights are: " + ", ".join(checkpoint.weights[:5]),
        )
    return replace(checkpoint, files=tuple(kept), weights=weights, left_out=tuple(sorted(left)))


def judge(tree: Tree, checkpoint: Checkpoint) -> str:
    """Return why a checkpoint is not complete, or an empty string where it is.

    Raises:
        NotAllowed: one of its files may not be read.
    """
    if checkpoint.problem:
        return checkpoint.problem
    if not checkpoint.weights:
        return "it holds no weights"
    for path in checkpoint.files:
        try:
            why = _judge_file(tree, path, path in checkpoint.weights)
        except DataError as error:
            return error.message
        except KeyError:
            return f"{path} is missing"
        if why:
            return f"{path}: {why}"
    return ""


def _judge_file(tree: Tree, path: str, holds_weights: bool) -> str:
    size = tree.size(path)
    if size == 0:
        # Markers and __init__ files are empty by right; weights and configurations never are.
        return "it is empty" if holds_weights or path.endswith((".json", ".safetensors", ".pkl")) else ""
    if path.endswith(".safetensors"):
        return _judge_safetensors(tree, path, size)
    if path.endswith(".json"):
        return _judge_json(tree, path, size)
    if path.endswith(_ZIP_SUFFIXES) and (holds_weights or tree.read(path, 0, 2) == b"PK"):
        return _judge_saved(tree, path, size)
    if (
        path.endswith((".pkl", ".pickle"))
        and tree.read(path, 0, 1) == b"\x80"
        and tree.read(path, size - 1, 1) != b"."
    ):
        return "its pickle has no end: the file was cut"
    return ""


def _judge_safetensors(tree: Tree, path: str, size: int) -> str:
    """8 bytes of header length, the header in JSON, then the tensors without a gap (safetensors README)."""
    if size < 8:
        return "it is too short for a safetensors file"
    (length,) = struct.unpack("<Q", tree.read(path, 0, 8))
    if length > MAX_SAFETENSORS_HEADER:
        return "it is not a safetensors file"
    if 8 + length > size:
        return "its header is cut"
    try:
        header = json.loads(tree.read(path, 8, length))
        end = 0
        for start, stop in sorted(
            entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"
        ):
            # The format allows no gap and no overlap; True is an integer to Python, and 10^5000 has no end.
            if type(start) is not int or type(stop) is not int or start != end or not end <= stop < 1 << 63:
                raise ValueError
            end = stop
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return "its safetensors header is damaged"
    if 8 + length + end != size:
        return f"it has {size} bytes, its header says {8 + length + end}"
    return ""


def _judge_json(tree: Tree, path: str, size: int) -> str:
    if size <= MAX_JSON_BYTES:
        try:
            tree.read_json(path)
        except DataError:
            return "it is not valid JSON"
        return ""
    if tree.read(path, max(0, size - 64), 64).rstrip()[-1:] not in (b"}", b"]"):
        return "its end is missing"
    return "" if size > MAX_TEXT_BYTES or _brackets_close(tree, path, size) else "its end is missing"


def _brackets_close(tree: Tree, path: str, size: int) -> bool:
    depth, in_string, rest = 0, False, b""
    for offset in range(0, size, _JSON_PART_BYTES):
        part = rest + tree.read(path, offset, _JSON_PART_BYTES)
        # A backslash and what follows it: neither closes a string.
        rest = b"\\" if (len(part) - len(part.rstrip(b"\\"))) % 2 else b""
        pieces = re.sub(rb"\\.", b"", part[: len(part) - len(rest)], flags=re.S).split(b'"')
        outside = b"".join(pieces[in_string::2])
        in_string ^= len(pieces) % 2 == 0
        depth += outside.count(b"{") + outside.count(b"[") - outside.count(b"}") - outside.count(b"]")
    return depth == 0 and not in_string


def _judge_saved(tree: Tree, path: str, size: int) -> str:
    """A file of torch.save, or a zip of them (Stable-Baselines3)."""
    if size < 4:
        return "it is too short for any format"
    if tree.read(path, 0, 2) != b"PK":
        if path.endswith(".zip"):
            return "it does not begin as a zip archive"
        return _judge_plain_pickle(tree, path, size)
    try:
        archive = Archive(lambda offset, count: tree.read(path, offset, count), size)
        if archive.find("_stable_baselines3_version") or path.endswith(".zip"):
            return _judge_stable_baselines3(tree, path, archive)
        if archive.find("data.pkl") is None:
            return "it is a zip archive, but not one of torch: data.pkl is missing"
    except ValueError as error:
        return str(error)
    return ""


def _judge_stable_baselines3(tree: Tree, path: str, archive: Archive) -> str:
    # What BaseAlgorithm.load asks for (stable_baselines3.common.save_util): the hyperparameters in
    # `data` and at least one set of parameters; the version is written after both.
    if "_stable_baselines3_version" not in archive.members:
        return "" if archive.find("data.pkl") else "it is a zip archive, but of no known kind"
    parameters = [
        name for name in archive.members if name.endswith(".pth") and name != "pytorch_variables.pth"
    ]
    if "data" not in archive.members or not parameters:
        return "it lacks what a Stable-Baselines3 file must hold (data and policy.pth)"
    for name in parameters:
        inner = archive.members[name]
        if inner.stored and tree.read(path, inner.start, 2) == b"PK":
            try:
                Archive(
                    lambda offset, count, start=inner.start: tree.read(path, start + offset, count),  # type: ignore[misc]
                    inner.bytes,
                )
            except ValueError as error:
                return f"in {name}: {error}"
    return ""


def _judge_plain_pickle(tree: Tree, path: str, size: int) -> str:
    head = tree.read(path, 0, len(_LEGACY_TORCH))
    if head == _LEGACY_TORCH:
        # The old format ends with raw tensors, whose sizes only the pickle knows: only an all too early
        # end can be seen.
        return "it ends where its tensors should begin" if size < 512 else ""
    if head.startswith(b"\x80"):
        return "" if tree.read(path, size - 1, 1) == b"." else "its pickle has no end: the file was cut"
    # .bin is many things; the other suffixes are torch's.
    return "" if path.endswith(".bin") else "it is no file of torch.save"
