"""Decides whether a version passes a policy. Each condition has a requirement, a finding and a result.

- ``pass``: the evidence shows that the condition holds.
- ``fail``: the evidence shows that it does not hold.
- ``insufficient``: the evidence shows neither; more evidence may.

The overall result is the worst one. A success rate passes if the *lower bound* of its Wilson interval is high
enough, so a version cannot pass by luck after few trials. It fails if even the upper bound is too low.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aml_mirror.evidence.result_statement import Evidence
from aml_mirror.gates.policy import Policy, RequiredTask
from aml_mirror.gates.proportions import p_value_of_worse, wilson

PASS, FAIL, INSUFFICIENT = "pass", "fail", "insufficient"


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of a policy, and its result."""

    name: str
    required: str
    found: str
    result: str

    def as_dict(self) -> dict[str, str]:
        """For the command's JSON."""
        return {
            "condition": self.name,
            "required": self.required,
            "found": self.found,
            "result": self.result,
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """All conditions."""

    conditions: tuple[Condition, ...] = field(default=())

    @property
    def outcome(self) -> str:
        """The worst result."""
        results = {one.result for one in self.conditions}
        return FAIL if FAIL in results else INSUFFICIENT if INSUFFICIENT in results else PASS

    @property
    def reason(self) -> str:
        """The conditions with the worst result, in one line; empty where all passed."""
        worst = self.outcome
        if worst == PASS:
            return ""
        return "; ".join(
            f"{one.name}: {one.required} required, {one.found}"
            for one in self.conditions
            if one.result == worst
        )


@dataclass(frozen=True, slots=True)
class Incumbent:
    """The version that has the stage now, and what is known about it."""

    version: str
    evidence: Sequence[Evidence]
    why_none: str = ""
    """Why there is no evidence to compare with; empty: there is some."""


def decide(
    policy: Policy, evidence: Sequence[Evidence], incumbent: Incumbent | None, too_old: int = 0
) -> Decision:
    """Compare evidence with a policy.

    Args:
        policy: the conditions.
        evidence: the candidate's evidence that is recent enough and may be counted.
        incumbent: None if no version has the stage, or if the candidate has it.
        too_old: how many evaluations were not counted because of their age.
    """
    conditions = [_episodes(policy, evidence, too_old)]
    trials = _by_task(evidence)
    if policy.success_rate is not None:
        successes, episodes = _sum(trials)
        conditions.append(_rate("success rate", policy.success_rate, successes, episodes, policy.confidence))
    for task in policy.tasks:
        conditions += _task(task, trials, policy.confidence)
    conditions += [_metric(name, low, high, evidence) for name, (low, high) in sorted(policy.metrics.items())]
    if policy.compares and incumbent is not None:
        conditions.append(_comparison(policy, trials, incumbent))
    return Decision(tuple(conditions))


def _by_task(evidence: Sequence[Evidence]) -> dict[str, tuple[int, int]]:
    """Successes and episodes by task."""
    found: dict[str, tuple[int, int]] = {}
    for one in evidence:
        for trials in one.trials:
            successes, episodes = found.get(trials.task, (0, 0))
            found[trials.task] = successes + trials.successes, episodes + trials.episodes
    return found


def _sum(trials: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    return sum(one[0] for one in trials.values()), sum(one[1] for one in trials.values())


def _episodes(policy: Policy, evidence: Sequence[Evidence], too_old: int) -> Condition:
    found = sum(one.episodes for one in evidence)
    kinds = [one.format for one in evidence if not one.episodes]
    text = f"{found} in {len(evidence)} evaluation(s)"
    if too_old:
        text += f", and {too_old} that are older than {policy.newer_than}"
    if not found and kinds:
        text += f"; {kinds[0]} does not say which episodes succeeded"
    return Condition(
        "episodes", f"at least {policy.episodes}", text, PASS if found >= policy.episodes else INSUFFICIENT
    )


def _rate(name: str, wanted: float, successes: int, episodes: int, confidence: float) -> Condition:
    low, high = wilson(successes, episodes, confidence)
    required = f"lower bound at least {_percent(wanted)}"
    if not episodes:
        return Condition(name, required, "no episode", INSUFFICIENT)
    found = (
        f"{successes} of {episodes} ({_percent(successes / episodes)}), {confidence * 100:g} % Wilson "
        f"interval {_percent(low)} to {_percent(high)}"
    )
    return Condition(
        name, required, found, PASS if low >= wanted else FAIL if high < wanted else INSUFFICIENT
    )


def _task(task: RequiredTask, trials: Mapping[str, tuple[int, int]], confidence: float) -> list[Condition]:
    successes, episodes = _sum({name: one for name, one in trials.items() if task.covers(name)})
    enough = episodes >= task.episodes
    conditions = [
        Condition(
            f"task {task.name}",
            f"at least {task.episodes} episode(s)",
            f"{episodes}",
            PASS if enough else INSUFFICIENT,
        )
    ]
    if task.success_rate is not None:
        conditions.append(
            _rate(f"task {task.name}, success rate", task.success_rate, successes, episodes, confidence)
        )
    return conditions


def _metric(name: str, low: float | None, high: float | None, evidence: Sequence[Evidence]) -> Condition:
    required = " and ".join(
        text
        for text in (
            f"at least {low:g}" if low is not None else "",
            f"at most {high:g}" if high is not None else "",
        )
        if text
    )
    values = [one.metrics[name] for one in evidence if name in one.metrics]
    if not values:
        return Condition(f"metric {name}", required, "no evaluation contains it", INSUFFICIENT)
    # Of several evaluations, each has to be good enough.
    right = all((low is None or value >= low) and (high is None or value <= high) for value in values)
    return Condition(
        f"metric {name}", required, ", ".join(f"{value:g}" for value in values), PASS if right else FAIL
    )


def _comparison(policy: Policy, trials: Mapping[str, tuple[int, int]], incumbent: Incumbent) -> Condition:
    name = f"incumbent, version {incumbent.version}"
    required = f"not shown to be worse (one-sided, {policy.significance * 100:g} %)"
    others = _by_task(incumbent.evidence)
    shared = sorted(task for task in trials.keys() & others.keys() if trials[task][1] and others[task][1])
    if not shared:
        why = incumbent.why_none or (
            "the versions have no task in common" if _sum(others)[1] else "it has no evaluation with trials"
        )
        return Condition(name, required, f"cannot be compared: {why}", INSUFFICIENT)
    tables = [(*trials[task], *others[task]) for task in shared]
    value = p_value_of_worse(tables)
    own, own_episodes = sum(one[0] for one in tables), sum(one[1] for one in tables)
    other, other_episodes = sum(one[2] for one in tables), sum(one[3] for one in tables)
    found = (
        f"{own} of {own_episodes} ({_percent(own / own_episodes)}) against {other} of {other_episodes} "
        f"({_percent(other / other_episodes)}), p = {value:.3g}"
    )
    return Condition(name, required, found, FAIL if value <= policy.significance else PASS)


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"
