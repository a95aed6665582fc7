"""Files of torch.save: a zip archive with ``data.pkl`` since torch 1.6, pickles and raw tensors before.

CleanRL's torch scripts use their own suffix for these files, and its JAX scripts save msgpack with the same
one. d3rlpy saves a torch file, or a pickle, as ``.d3``.
"""

from __future__ import annotations

from aml_mirror.formats.archives import LEGACY_TORCH, Archive
from aml_mirror.formats.base import Format, FormatFile, Kind, Weights
from aml_mirror.formats.msgpack import msgpack_problem
from aml_mirror.formats.pickle_file import pickle_problem
from aml_mirror.formats.stable_baselines3 import MARK, model_problem

# No file of torch is shorter.
_SHORTEST_LEGACY = 512


def _zip_problem(file: FormatFile) -> str:
    try:
        archive = Archive(file.read, file.size)
        if archive.find(MARK):
            return model_problem(file, archive)
        if archive.find("data.pkl") is None:
            return "it is a zip archive, but not from torch: data.pkl is missing"
    except ValueError as error:
        return str(error)
    return ""


def _pickle_problem(file: FormatFile, other: str) -> str:
    head = file.read(0, len(LEGACY_TORCH))
    if head == LEGACY_TORCH:
        # The old format ends with raw tensors, whose sizes only the pickle knows. So only a file that ends
        # much too early is detected.
        return "it ends where its tensors should begin" if file.size < _SHORTEST_LEGACY else ""
    return pickle_problem(file) if head.startswith(b"\x80") else other


def _problem(file: FormatFile) -> str:
    is_zip = file.read(0, 2) == b"PK"
    if not file.holds_weights and not is_zip:
        return ""
    if file.size < 4:
        return "it is too short for any format"
    return _zip_problem(file) if is_zip else _pickle_problem(file, "it is not a file of torch.save")


def _bin_problem(file: FormatFile) -> str:
    why = _problem(file)
    # .bin has many meanings; the other suffixes are torch's.
    return "" if why == "it is not a file of torch.save" else why


def _cleanrl_problem(file: FormatFile) -> str:
    why = _problem(file)
    if why != "it is not a file of torch.save":
        return why
    why = msgpack_problem(file.read, file.size)
    return f"it is not a file of torch.save, and as msgpack: {why}" if why else ""


def _d3rlpy_problem(file: FormatFile) -> str:
    return _zip_problem(file) if file.read(0, 2) == b"PK" else _pickle_problem(file, "")


# .pth.tar is not a tar archive: PyTorch's ImageNet example (pytorch/examples, imagenet/main.py) passes this
# name to torch.save, and scripts that began as a copy of it kept it.
_SUFFIXES = (".pt", ".pth", ".ckpt", ".pth.tar", ".pt.tar", ".ckpt.tar")
TORCH = Format("torch.save", _SUFFIXES, Kind.PICKLE, Weights.ALWAYS, _problem)
TORCH_BIN = Format("torch.save as .bin", (".bin",), Kind.PICKLE, Weights.OFTEN, _bin_problem)
CLEANRL = Format("CleanRL", (".cleanrl_model",), Kind.PICKLE, Weights.ALWAYS, _cleanrl_problem)
D3RLPY = Format("d3rlpy", (".d3",), Kind.PICKLE, Weights.ALWAYS, _d3rlpy_problem)
