"""What a policy may contain, and the one-line error for everything else."""

from __future__ import annotations

from pathlib import Path

import pytest

from aml_mirror.core.errors import ConfigurationError
from aml_mirror.gates.policy import Policy, RequiredTask, read_policy

HEAD = "schema: aml-mirror/gate/v1\n"
EXAMPLES = Path(__file__).parent.parent.parent / "workflows" / "gates"

WHOLE = """\
schema: aml-mirror/gate/v1
version:
  signed: true
  safety: [safetensors, pickle-clean]
evidence:
  signed: true
  newer_than: 30d
episodes: 50
success_rate:
  at_least: 0.8
  confidence: 0.9
tasks:
  - pick
  - name: place
    episodes: 20
    success_rate: 0.7
metrics:
  mean_length: {at_most: 300}
  reward: {at_least: -1, at_most: 1}
incumbent:
  must_not_be_worse: false
  significance: 0.01
"""


def read(tmp_path: Path, text: str) -> Policy:
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    return read_policy(str(path))


def test_every_key(tmp_path: Path) -> None:
    policy = read(tmp_path, WHOLE)
    assert (policy.signed_version, policy.signed_evidence) == (True, True)
    assert policy.safety == ("safetensors", "pickle-clean")
    assert (policy.newer_than_seconds, policy.episodes) == (30 * 86400, 50)
    assert (policy.success_rate, policy.confidence) == (0.8, 0.9)
    assert policy.tasks == (RequiredTask("pick"), RequiredTask("place", 20, 0.7))
    assert dict(policy.metrics) == {"mean_length": (None, 300), "reward": (-1, 1)}
    assert (policy.compares, policy.significance) == (False, 0.01)
    assert len(policy.sha256) == 64


def test_what_is_not_said_is_the_default(tmp_path: Path) -> None:
    policy = read(tmp_path, HEAD)
    assert policy.safety == ("safetensors", "no-code", "pickle-clean")
    assert (policy.episodes, policy.success_rate, policy.compares) == (1, None, True)
    assert (policy.confidence, policy.significance) == (0.95, 0.05)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "schema is missing"),
        ("schema: aml-mirror/gate/v2\n", "this release reads aml-mirror/gate/v1"),
        ("- a\n", "it is a list, not a section with keys"),
        ("schema: [\n", "line 2: "),
        ("schema: aml-mirror/gate/v1\nschema: aml-mirror/gate/v1\n", "line 2: 'schema' is set twice"),
        (
            HEAD + "success_rate: {at_least: 80}\n",
            "success_rate.at_least is 80, not a fraction between 0 and 1 (write 0.8",
        ),
        (HEAD + "success_rate: 0.8\n", "success_rate is 0.8, not a section"),
        (HEAD + "success_rate: {confidence: 0.9}\n", "success_rate has no at_least"),
        (HEAD + "success_rate: {at_least: 0.8, confidence: 1}\n", "success_rate.confidence is 1"),
        (HEAD + "succes_rate: {at_least: 0.8}\n", "there is no key succes_rate; known keys are"),
        (HEAD + "succes_rate: {at_least: 0.8}\n", "did you mean success_rate?"),
        (HEAD + "episodes: 0\n", "episodes is 0, not a whole number from 1"),
        (HEAD + "episodes: '50'\n", "episodes is '50', not a whole number"),
        (HEAD + "evidence: {newer_than: soon}\n", "evidence.newer_than 'soon' is not a duration"),
        (HEAD + "evidence: {signed: 1}\n", "evidence.signed is 1, not true or false"),
        (HEAD + "version: {safety: [safe]}\n", "version.safety has 'safe'; allowed are"),
        (HEAD + "version: {safety: []}\n", "version.safety is empty"),
        (HEAD + "tasks: [pick, pick]\n", "tasks[1].name is 'pick', which is empty or used twice"),
        (HEAD + "tasks: [{name: a, rate: 1}]\n", "there is no key tasks[0].rate"),
        (HEAD + "tasks: pick\n", "tasks is 'pick', not a list"),
        (HEAD + "metrics: {mse: {}}\n", "metrics.mse has neither at_least nor at_most"),
        (HEAD + "metrics: {mse: {at_most: .inf}}\n", "metrics.mse.at_most is inf, not a finite number"),
        (HEAD + "metrics: {mse: {at_least: 2, at_most: 1}}\n", "at_least 2 is above at_most 1"),
        (HEAD + "metrics: {1: {at_most: 1}}\n", "metrics.1 is not a string"),
        (HEAD + "evidence: {newer_than: 30}\n", "newer_than is 30, not a duration: write 30d for 30 days"),
        (HEAD + "? [a, b]\n: 1\n", "line 2: a key is a list or a section, not a name"),
        (HEAD + "---\n" + HEAD, "line 2: expected a single document in the stream, but found another"),
        (HEAD + "x: !!python/object/apply:os.system [true]\n", "line 2: could not determine a constructor"),
    ],
)
def test_a_mistake_is_one_line_that_says_where(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read(tmp_path, text)
    assert why in refused.value.message
    assert "gate.yaml (--policy) is not valid: " in refused.value.message
    assert "\n" not in refused.value.message


def test_a_policy_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read_policy(str(tmp_path / "none.yaml"))
    (tmp_path / "big.yaml").write_bytes(b"#" * (300 << 10))
    with pytest.raises(ConfigurationError, match="larger than 256 KiB"):
        read_policy(str(tmp_path / "big.yaml"))


def test_every_example_is_a_policy() -> None:
    found = {path.name: read_policy(str(path)) for path in sorted(EXAMPLES.glob("*.yaml"))}
    assert len(found) >= 4
    assert any(policy.signed_evidence for policy in found.values())
    assert any(policy.tasks for policy in found.values())
