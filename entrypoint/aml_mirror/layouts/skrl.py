"""skrl: ``checkpoints/agent_<step>.pt``, or one file per module, with the best ones beside them.

Every ``checkpoint_interval`` steps, ``Agent.write_checkpoint`` writes all modules into ``agent_{step}.pt``,
or, with ``store_separately``, each into ``{module}_{step}.pt``. With several agents, ``{uid}_`` precedes the
module. ``best_agent.pt`` or ``best_{module}.pt`` is a copy of the modules at the checkpoint with the best
mean reward so far (skrl/agents/torch/base.py, skrl/multi_agents/torch/base.py; runs of 1.4.3 and 2.1.1 seen,
PPO and SAC, both ways). JAX agents write ``.pickle`` instead of ``.pt``. The best one's step is not stored.
It is the step of the checkpoint with equal contents.

People copy only ``checkpoints/``, under another name. Then that folder is the run. If it is the only sign of
a training in its parent folder, the parent is the run.

What inference loads: the file, with ``agent.load`` (Isaac Lab's scripts/reinforcement_learning/skrl/play.py).
To act, an agent needs its policy (a DQN its Q-network) and the preprocessors of its observations:
``state_preprocessor`` in 1.x, ``observation_preprocessor`` and ``state_preprocessor`` in 2.x. With separate
modules, the checkpoint is the policy's file, and the preprocessors are its companions.
"""

from __future__ import annotations

import pickletools
import re
from dataclasses import dataclass

from aml_mirror.core.errors import MirrorError
from aml_mirror.layouts.base import Checkpoint, Role, RunDraft, numbered
from aml_mirror.layouts.isaac_lab import params_of
from aml_mirror.layouts.kit.other_ends import ask_about_other_ends
from aml_mirror.layouts.kit.roles import leave_undecided
from aml_mirror.layouts.run_roots import topmost
from aml_mirror.layouts.torch_files import pickle_of, same_contents
from aml_mirror.sources.tree import Tree, join, parent

_AGENT = re.compile(r"agent_(?P<step>\d{1,18})\.(pt|pickle)")
# The name that write_checkpoint uses if it is called without a step.
_DATED_AGENT = re.compile(r"agent_\d\d-\d\d-\d\d_\d\d-\d\d-\d\d-\d{1,6}\.(?:pt|pickle)")
_BEST_AGENT = ("best_agent.pt", "best_agent.pickle")
_MODULE = re.compile(r"(?:(?P<best>best)_(?P<of_best>.+)|(?P<name>.+)_(?P<step>\d{1,18}))\.(pt|pickle)")
# Modules of an end that only forks write: policy_final.pt.
_MODULE_OF_END = re.compile(r"(?P<name>.+)_(?P<end>final|last|latest)\.(?:pt|pickle)")
_POLICIES = frozenset({"policy", "q_network"})
_PREPROCESSORS = frozenset({"observation_preprocessor", "state_preprocessor"})
_TRAINING_ONLY = {
    "value": "a critic, needed for training only",
    "critic": "a critic, needed for training only",
    "critic_1": "a critic, needed for training only",
    "critic_2": "a critic, needed for training only",
    "target_critic": "a target network, needed for training only",
    "target_critic_1": "a target network, needed for training only",
    "target_critic_2": "a target network, needed for training only",
    "target_policy": "a target network, needed for training only",
    "target_q_network": "a target network, needed for training only",
    "discriminator": "a discriminator, needed for training only",
    "value_preprocessor": "scales returns, needed for training only",
    "amp_observation_preprocessor": "a discriminator's input scaling, needed for training only",
    "amp_state_preprocessor": "a discriminator's input scaling, needed for training only",
    "shared_observation_preprocessor": "a critic's input scaling, needed for training only",
    "shared_state_preprocessor": "a critic's input scaling, needed for training only",
    "optimizer": "optimizer state, needed for training only",
}
_KNOWN = sorted((*_POLICIES, *_PREPROCESSORS, *_TRAINING_ONLY), key=len, reverse=True)
_FOLDER = "checkpoints"
_LOOK_INTO = 8


@dataclass(frozen=True, slots=True)
class _Module:
    """A file with one module. ``kind`` is the module without the agent's name before it."""

    file: str
    module: str
    kind: str
    step: int | None

    @property
    def needed(self) -> bool:
        return self.kind in _POLICIES or self.kind in _PREPROCESSORS


class Skrl:
    """skrl's layout."""

    name = "skrl"

    def find(self, tree: Tree) -> list[str]:
        roots = []
        for folder, names in tree.children.items():
            name = folder.rpartition("/")[2]
            if name == _FOLDER and _is_skrl(tree, folder, names, trust_names=True):
                roots.append(parent(folder))
            elif name != _FOLDER and _is_skrl(tree, folder, names, trust_names=False):
                roots.append(folder)
        return topmost(roots)

    def read(self, run: Tree) -> RunDraft:
        base = _FOLDER if run.has_folder(_FOLDER) else ""
        names = run.children[base]
        found = _whole_agents(run, base, names) if _agents(names) else _separate_modules(run, base, names)
        for name in sorted(filter(_DATED_AGENT.fullmatch, names)):
            found.warnings.append(
                f"{join(base, name)} has a date instead of a step and was not compared with the others: "
                f"--checkpoint {join(base, name)} selects it"
            )
        if not found.checkpoints and found.best:
            found.warnings.append("only the best checkpoint was kept; --checkpoint best takes it")
        found.params = params_of(run, found.warnings)
        ask_about_other_ends(run, found, lambda path: _end(run, base, path))
        return found


def _agents(names: tuple[str, ...]) -> list[str]:
    best = [name for name in _BEST_AGENT if name in names]
    return [item.name for item in numbered(names, _AGENT)] + best


def _is_skrl(tree: Tree, folder: str, names: tuple[str, ...], trust_names: bool) -> bool:
    if agents := _agents(names):
        for name in agents[:_LOOK_INTO]:
            path = join(folder, name)
            if words := _first_strings(_pickle(tree, path)):
                # The first module of every agent. With several agents, the agent's name precedes it.
                return not _POLICIES.isdisjoint(words)
        return trust_names
    # Other frameworks save policy_100.pt and optimizer_100.pt too.
    if not trust_names and "checkpoint" not in folder.rpartition("/")[2].lower():
        return False
    kinds = {module.kind for module in _modules(names)}
    return not kinds.isdisjoint(_POLICIES) and len(kinds) > 1


def _pickle(tree: Tree, path: str) -> bytes:
    if not path.endswith(".pickle"):
        return pickle_of(tree, path)
    try:
        return tree.read(path, 0, 4096)
    except MirrorError:
        return b""


def _first_strings(data: bytes, count: int = 2) -> list[str]:
    found: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if "UNICODE" in opcode.name:
                found.append(str(argument))
            if len(found) == count:
                break
    except (ValueError, IndexError, UnicodeError, OverflowError):
        pass
    return found


def _whole_agents(run: Tree, base: str, names: tuple[str, ...]) -> RunDraft:
    agents = numbered(names, _AGENT)
    checkpoints = [
        _file(join(base, agent.name), agent.step, "final" if index == 0 else "periodic")
        for index, agent in enumerate(agents)
    ]
    best = None
    for name in _BEST_AGENT:
        if name in names:
            path = join(base, name)
            # Of equal ones the first is the best: a later one replaces it only if it is better.
            steps = [item.step for item in reversed(agents) if _equal(run, path, join(base, item.name))]
            best = _file(path, steps[0] if steps else None, "best")
            break
    return RunDraft(checkpoints, best)


def _file(path: str, step: int | None, role: Role) -> Checkpoint:
    return Checkpoint(path=path, step=step, role=role, files=(path,), weights=(path,))


def _equal(run: Tree, path: str, other: str) -> bool:
    if path.endswith(".pickle"):
        size = run.size(path)
        return 0 < size == run.size(other) <= 64 << 20 and run.read(path, 0, size) == run.read(other, 0, size)
    return same_contents(run, path, other)


def _modules(names: tuple[str, ...]) -> list[_Module]:
    found = []
    for name in names:
        if not (match := _MODULE.fullmatch(name)):
            continue
        module = match["of_best"] or match["name"]
        if kind := _kind(module):
            found.append(_Module(name, module, kind, None if match["best"] else int(match["step"])))
    return found


def _kind(module: str) -> str:
    return next((known for known in _KNOWN if module == known or module.endswith("_" + known)), "")


def _separate_modules(run: Tree, base: str, names: tuple[str, ...]) -> RunDraft:
    modules = _modules(names)
    needed = {module.module for module in modules if module.needed}
    steps = sorted({module.step for module in modules if module.step is not None}, reverse=True)
    checkpoints = [
        _set_of_modules(
            base,
            [module for module in modules if module.step == step],
            needed,
            step,
            "final" if step == steps[0] else "periodic",
        )
        for step in steps
    ]
    best_ones = [module for module in modules if module.step is None]
    best = None
    if best_ones:
        step = _step_of_best(run, base, modules, best_ones, steps)
        best = _set_of_modules(base, best_ones, needed, step, "best")
    found = RunDraft(checkpoints, best)
    policies = {module.step for module in modules if module.kind in _POLICIES}
    others = {module.step for module in modules if not module.needed and module.step is not None}
    whole = [item for item in checkpoints if not item.problem]
    if whole and others and policies.isdisjoint(others) and max(others) > max(_steps_of(whole)):
        leave_undecided(
            found,
            whole[:1],
            f"the newest modules have step {max(others)}, but there is no policy for any of their steps: "
            "they may belong to another training",
        )
    return found


def _steps_of(checkpoints: list[Checkpoint]) -> list[int]:
    """Return the known steps of some checkpoints, at least 0."""
    return [item.step or 0 for item in checkpoints]


def _set_of_modules(
    base: str, modules: list[_Module], needed: set[str], step: int | None, role: Role
) -> Checkpoint:
    """One policy in several files. ``needed``: the modules that this run's other checkpoints have."""
    missing = sorted(needed - {module.module for module in modules})
    policies = sorted(module.file for module in modules if module.kind in _POLICIES)
    kept = sorted(module.file for module in modules if module.needed)
    if not policies:
        module = min((name for name in needed if not name.endswith("_preprocessor")), default="policy")
        suffix = modules[0].file.rpartition(".")[2]
        policies = [f"best_{module}.{suffix}" if role == "best" else f"{module}_{step}.{suffix}"]
    return Checkpoint(
        path=join(base, policies[0]),
        step=step,
        role=role,
        files=tuple(join(base, name) for name in kept),
        # A preprocessor is a torch file too. An empty one also makes the policy useless.
        weights=tuple(join(base, name) for name in sorted({*policies, *kept})),
        left_out=tuple(
            (join(base, module.file), _TRAINING_ONLY[module.kind])
            for module in sorted(modules, key=lambda item: item.file)
            if not module.needed
        ),
        problem=f"its {' and '.join(missing)} is missing" if missing else "",
    )


def _end(run: Tree, base: str, path: str) -> Checkpoint:
    """Describe an end that only forks write. With separate modules: the policy and its preprocessors."""
    folder, _, own = path.rpartition("/")
    named = _MODULE_OF_END.fullmatch(own)
    modules = [
        _Module(name, match["name"], kind, None)
        for name in run.children.get(folder, ())
        if named and (match := _MODULE_OF_END.fullmatch(name)) and match["end"] == named["end"]
        if (kind := _kind(match["name"]))
    ]
    if not any(module.file == own and module.kind in _POLICIES for module in modules):
        return _file(path, None, "periodic")
    needed = {module.module for module in _modules(run.children[base]) if module.needed}
    return _set_of_modules(folder, modules, needed, None, "periodic")


def _step_of_best(
    run: Tree, base: str, modules: list[_Module], best: list[_Module], steps: list[int]
) -> int | None:
    for step in reversed(steps):
        at_step = {module.module: module.file for module in modules if module.step == step}
        pairs = [(item.file, at_step[item.module]) for item in best if item.module in at_step]
        if any(item.kind in _POLICIES for item in best if item.module in at_step) and all(
            _equal(run, join(base, one), join(base, other)) for one, other in pairs
        ):
            return step
    return None
