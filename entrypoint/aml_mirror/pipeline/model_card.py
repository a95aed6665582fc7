"""The model card: what this version is, how to use it, where it comes from, and how to verify it.

The most important parts come first: one sentence, the main curves, the parameters, how to get it. The
evidence follows. Lists are used instead of tables with two columns, because the pages of MLflow and Azure ML
draw tables without space between the columns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from aml_mirror import __version__
from aml_mirror.metrics.main_series import MainSeries, main_series
from aml_mirror.pipeline import curves
from aml_mirror.pipeline.plan import Plan
from aml_mirror.pipeline.training_times import training_times
from aml_mirror.registries import keys
from aml_mirror.registries.pages import Pages
from aml_mirror.support import redaction
from aml_mirror.support.markdown import cell
from aml_mirror.support.progress import amount

GENERIC = "generic"
_MAX_FILES = 50
_MAX_WARNINGS = 20
_MAX_PARAMETERS = 12
_MAX_VALUE = 80
_ROLES = {
    "final": "the final one of the training",
    "best": "the best one the training kept",
    "unknown": "no name tells when or why it was saved",
}
_PERIODIC = "one of the training's periodic checkpoints"
# The last part of a parameter's name, the most informative first.
_KEY_PARAMETERS = (
    "task", "env", "env_id", "env_name", "algo", "algorithm", "algo_name", "policy_type", "model_type",
    "type",
    "learning_rate", "lr", "batch_size", "minibatch_size", "num_mini_batches", "num_envs", "gamma", "lam",
    "gae_lambda", "entropy_coef", "clip_param", "num_steps_per_env", "n_steps", "horizon_length",
    "num_learning_epochs", "n_epochs", "num_train_epochs", "max_iterations", "max_epochs", "max_steps",
    "steps",
    "chunk_size", "n_action_steps", "repo_id", "seed",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Card:
    """A card in Markdown: the first part, and sections that may be omitted, the last ones first."""

    sections: tuple[str, ...]
    picture: str = ""
    """The line with the curves; empty: none."""

    def text(self) -> str:
        """The whole card, for the artifact ``MODEL_CARD.md`` beside the picture."""
        return self._joined(self.sections, self.picture)

    def description(self, limit: int, artifact: str) -> str:
        """The card for a version's page. If it is too long, the last sections are omitted.

        Args:
            limit: the most characters.
            artifact: the prefix for an artifact's path on that page; empty: the page shows no picture.
        """
        picture = self.picture.replace(f"({curves.ARTIFACT})", f"({artifact}{curves.ARTIFACT})")
        note = "The whole card is the artifact `MODEL_CARD.md` of the run.\n"
        for count in range(len(self.sections), 0, -1):
            more = (note,) if count < len(self.sections) else ()
            text = self._joined((*self.sections[:count], *more), picture if artifact else "")
            if len(text) <= limit:
                break
        return text

    @staticmethod
    def _joined(sections: tuple[str, ...], picture: str) -> str:
        first, *others = sections
        return "\n".join([first, *([picture, ""] if picture else []), *others])


def write(plan: Plan, tags: Mapping[str, str], pages: Pages, has_picture: bool) -> Card:
    """Write the card of a version.

    Args:
        plan: what is mirrored.
        tags: the person's own tags.
        pages: the pages of the run and the model; the version has no number yet.
        has_picture: whether the main curves are an artifact beside the card.
    """
    picture = f"![The main curves of the training]({curves.ARTIFACT})" if has_picture else ""
    parts = (
        [f"# {cell(plan.model_name)}", "", sentence(plan, tags), ""],
        _parameters(plan),
        _use(plan),
        _pages(pages),
        _metrics(plan),
        _provenance(plan, tags),
        _warnings(plan),
        _files(plan),
    )
    return Card(tuple("\n".join(part) for part in parts if part), picture)


def sentence(plan: Plan, tags: Mapping[str, str]) -> str:
    """Describe the version in one sentence, in Markdown."""
    checkpoint, main = plan.checkpoint, main_series(plan.metrics.series)
    task = tags.get(keys.TASK, "")
    framework = plan.located.detected.layout.name
    text = f"Policy for {cell(task)}" if task else "Policy"
    text += "" if framework == GENERIC else f", trained with {cell(framework)}"
    text += (
        ", saved at an unknown step" if checkpoint.step is None else f", saved at step {checkpoint.step:,}"
    )
    text += f" ({_ROLES.get(checkpoint.role, _PERIODIC)})"
    if main is not None:
        text += f"; the best {cell(main.name)} was {main.best:.4g}, at step {main.best_step:,}"
    return text + "."


def _parameters(plan: Plan) -> list[str]:
    ranked = sorted(
        (_KEY_PARAMETERS.index(last), len(name), name)
        for name in plan.params
        if (last := re.split(r"[./]", name)[-1]) in _KEY_PARAMETERS
    )
    chosen: dict[str, str] = {}
    for _, _, name in ranked:
        last = re.split(r"[./]", name)[-1]
        # The shortest name of each: a nested copy has the same value.
        if all(re.split(r"[./]", other)[-1] != last for other in chosen):
            chosen[name] = plan.params[name]
    shown = list(chosen.items())[:_MAX_PARAMETERS]
    if not shown:
        return []
    rest = len(plan.params) - len(shown)
    lines = ["## Key parameters", "", *(f"- {cell(name)}: **{_value(value)}**" for name, value in shown)]
    return [*lines, *([f"- … and {rest} more in the MLflow run"] if rest else []), ""]


def _value(text: str) -> str:
    return cell(text if len(text) <= _MAX_VALUE else text[: _MAX_VALUE - 1] + "…") or "(empty)"


def _use(plan: Plan) -> list[str]:
    name = plan.located.detected.layout.name
    plain = re.fullmatch(r"[\w.-]+", plan.model_name)
    model = plan.model_name if plain else "NAME"
    return [
        "## Get it",
        "",
        "```sh",
        f"aml-mirror pull {model}:VERSION FOLDER",
        "```",
        "",
        "VERSION is the number of this version. The command compares every byte with the manifest, and "
        f"prints the lines that load it{'' if name == GENERIC else ' with ' + cell(name)}.",
        "",
    ]


def _pages(pages: Pages) -> list[str]:
    links = (("the training run, with all curves", pages.run), ("all versions of this model", pages.model))
    shown = [f"- [{text}]({address})" for text, address in links if address]
    return ["## Pages", "", *shown, ""] if shown else []


def _metrics(plan: Plan) -> list[str]:
    lines = ["## Metrics", ""]
    if plan.metrics.note:
        return [*lines, f"There are none: {cell(plan.metrics.note)}.", ""]
    main = main_series(plan.metrics.series)
    if main:
        lines += [_main(main), ""]
    if plan.metrics.series:
        lines += [
            f"{len(plan.metrics.series)} series with {plan.metrics.points} points are in the MLflow run. The "
            "TensorBoard files are under `tensorboard/`, as they were written.",
            "",
        ]
    return lines if len(lines) > 2 else []


def _main(main: MainSeries) -> str:
    better = "more" if main.direction == "max" else "less"
    return (
        f"{cell(main.name)} ({better} is better): best **{main.best:.6g}** at step {main.best_step}, "
        f"last **{main.last:.6g}** at step {main.last_step}."
    )


def _provenance(plan: Plan, tags: Mapping[str, str]) -> list[str]:
    located, checkpoint = plan.located, plan.checkpoint
    trained = training_times(plan.metrics, located.tree)
    rows = [
        ("Run", located.run_id),
        ("Source", located.source.uri),
        ("Framework", located.detected.layout.name),
        ("Checkpoint", f"{checkpoint.path} ({_ROLES.get(checkpoint.role, _PERIODIC)})"),
        ("Step", "unknown" if checkpoint.step is None else str(checkpoint.step)),
        *([("Trained", " to ".join(map(_moment, trained)))] if trained else []),
        *([("Base model", checkpoint.base_model)] if checkpoint.base_model else []),
        *sorted((name, str(redaction.value(name, value))) for name, value in tags.items()),
        ("Files", f"{len(plan.manifest.items)}, {amount(plan.manifest.bytes)}"),
        ("Manifest SHA-256", plan.manifest.sha256),
        ("Safety", plan.safety.verdict),
        ("Mirrored by", f"aml-mirror {__version__}"),
    ]
    return ["## Provenance", "", *(f"- {cell(name)}: {cell(value)}" for name, value in rows), ""]


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _files(plan: Plan) -> list[str]:
    shown = plan.manifest.items[:_MAX_FILES]
    lines = ["## Files", ""]
    lines += [
        f"- {cell(item.path)}: {item.bytes} bytes, {'SHA-256 ' + item.sha256 if item.sha256 else 'copied'}"
        for item in shown
    ]
    if len(plan.manifest.items) > len(shown):
        lines += ["", f"… and {len(plan.manifest.items) - len(shown)} more in `manifest.json`."]
    return [*lines, ""]


def _warnings(plan: Plan) -> list[str]:
    if not plan.warnings:
        return []
    lines = ["## Warnings", "", *(f"- {cell(warning)}" for warning in plan.warnings[:_MAX_WARNINGS])]
    if len(plan.warnings) > _MAX_WARNINGS:
        lines += [f"- … and {len(plan.warnings) - _MAX_WARNINGS} more in `receipt.json`"]
    return [*lines, ""]
