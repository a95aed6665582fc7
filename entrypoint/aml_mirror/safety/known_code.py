"""Code of known frameworks that files name: what it is, and what runs it.

A class of one of these frameworks is not harmless with any argument, so a file that names one is not clean.
But it is not an attack either: the framework's own saving code writes such files, and it is known what runs.
"""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The packages whose classes real checkpoints contain as objects.
FRAMEWORKS = _words(
    "torch torchvision torchrl tensordict numpy scipy sklearn joblib jax jaxlib flax optax "
    "orbax chex haiku distrax equinox ml_dtypes keras tensorflow lightning pytorch_lightning "
    "lightning_fabric torchmetrics stable_baselines3 sb3_contrib sbx gym gymnasium skrl "
    "rl_games rsl_rl tianshou d3rlpy cleanrl acme ray transformers tokenizers peft accelerate "
    "trl diffusers timm lerobot gr00t openpi diffusion_policy robomimic isaaclab isaaclab_rl "
    "isaaclab_tasks omni omegaconf hydra pandas xgboost lightgbm einops torchaudio torch_geometric "
    "tensorflow_probability deepspeed ml_collections brax mujoco_playground mjlab robosuite imitation "
    "pufferlib octo rlinf protomotions tdmpc2 huggingface_hub datasets sentence_transformers"
)
# All of them write class names in this way. A name with a dot refers to a member of a class, or to another
# module.
_CLASS = re.compile(r"_{0,2}[A-Z][A-Za-z0-9_]*")
# Functions that restore state, and functions of one tensor that modules store as an attribute.
_FUNCTIONS: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...] = tuple(
    (re.compile(module), re.compile(name))
    for module, name in (
        (r"sklearn\..+", r"__pyx_unpickle_\w+"),
        (
            r"torch\.nn\.functional|torch\._C\._nn|torch\.nn\.init|jax\._src\.nn\.functions|jax\.nn",
            r"[a-z][a-z0-9_]*_?",
        ),
        (r"torch|torch\._VariableFunctions", r"relu|tanh|sigmoid|selu|sin|cos|exp"),
        (r"jax\._src\.array", r"_reconstruct_array"),
        (r"jax\._src\.(?:core|sharding_impls)", r"[A-Z]\w+"),
        (r"numpy(?:\._?core(?:\.\w+)?)?", r"_ufunc_reconstruct"),
        (r"scipy\.(?:sparse|stats|interpolate|spatial)\..+", r"[a-z]\w*"),
        (r"tensordict\..+|torchrl\..+", r"_rebuild_\w+|_from_\w+|rebuild_\w+|_make_td"),
        (r"joblib\.numpy_pickle", r"NumpyArrayWrapper|NDArrayWrapper|ZNDArrayWrapper"),
        (r"numpy\.ma\.core", r"_mareconstruct"),
        (r"pandas\..+", r"_unpickle_\w+|_new_\w+|__pyx_unpickle_\w+"),
        (r"jaxlib\..+|jax\._src\.tree_util", r"default_registry|make_from_node_data_and_children"),
        (r"torch\.nested\._internal\.nested_tensor", r"_rebuild_njt"),
        (r"torch\.distributed\..+|torch\._utils|torch\._tensor", r"_rebuild_\w+|_sharded_\w+"),
    )
)
# Classes that load a file, start a process or import their argument.
_NEVER = frozenset({"Popen", "Process", "DataSource", "ConfigModule", "LazyLoader", "ScriptModule", "FileIO"})

_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
# Functions in configurations of known frameworks. Everything else that they name is a class.
_KNOWN_FUNCTIONS = frozenset(
    {
        "diffusion_policy.model.vision.model_getter.get_resnet",
        "lightning.pytorch.cli.instantiate_module",
        "pytorch_lightning.cli.instantiate_module",
    }
)


def is_known_code(module: str, name: str) -> bool:
    """Tell whether a pickle's import is a framework's class, or its function that restores one."""
    # TorchScript's own classes, whose code is in the same file, and the functions that fill its lists.
    if module.partition(".")[0] == "__torch__" or module == "torch.jit._pickle":
        return True
    if module.partition(".")[0] not in FRAMEWORKS:
        return False
    if _CLASS.fullmatch(name):
        return name not in _NEVER
    return any(known.fullmatch(module) and names.fullmatch(name) for known, names in _FUNCTIONS)


def target_problem(path: str, strict: bool = False) -> str:
    """Return why a path in a configuration may run unknown code; empty: it is a framework's class.

    Hydra, Lightning and LeRobot import the module and call what they find there. ``strict``: a module alone,
    which is imported, and a reference to the value of another key count too.
    """
    if strict and "${" in path:
        return "which is assembled when it is read"
    if "." not in path:
        return "a module that is imported" if strict and path and path not in FRAMEWORKS else ""
    if not _PATH.fullmatch(path):
        return "which is not a plain name"
    *modules, name = path.split(".")
    if path in _KNOWN_FUNCTIONS:
        return ""
    if modules[0] not in FRAMEWORKS:
        return "which does not belong to a known framework: building the policy from it imports and calls it"
    # A module's name is in lower case. A name inside a class or function may be something that the module
    # imported.
    if any(part != part.lower() for part in modules) or not _CLASS.fullmatch(name) or name in _NEVER:
        return "which is not a class of a known framework: building the policy from it calls it"
    return ""


# Diffusion Policy's scripts register Python's eval as a resolver of OmegaConf: "${eval:'15 if ${a} else 2'}".
_EVAL = re.compile(r"\$\{\s*eval\s*:(?P<expression>.*)", re.S)
_REFERENCE = re.compile(r"\$\{[\w.]+\}")
_ARITHMETIC = re.compile(
    r"(?:[\d\s+*/%().,<>=!'\"}-]|\b(?:if|else|not|and|or|True|False|None|max|min|int|len|round)\b)*"
)


def expression_problem(text: str) -> str:
    """Return why a configuration's string evaluates more than arithmetic; empty: it does not."""
    match = _EVAL.search(text) if "eval" in text else None
    if match is None or _ARITHMETIC.fullmatch(_REFERENCE.sub("1", match["expression"])):
        return ""
    return f"its configuration has the expression {text[:200]}, which Diffusion Policy evaluates"
