"""Shows what a backfill of a folder would mirror, without asking a registry: ``plan`` of several runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from aml_mirror.backfill.discovery import Candidate, failure_of, look_below, run_at_root
from aml_mirror.backfill.folder_progress import FolderProgress
from aml_mirror.backfill.name_template import ModelNames, check_run_id
from aml_mirror.backfill.summary import Summary
from aml_mirror.core.errors import DataError
from aml_mirror.core.settings import Settings
from aml_mirror.pipeline.decide import Decisions
from aml_mirror.pipeline.destination import intended_destination
from aml_mirror.pipeline.locate import LocatedRun, describe, require_listed
from aml_mirror.pipeline.receipt import Facts, Receipt, failed, receipt_of
from aml_mirror.sources.base import Prefix
from aml_mirror.sources.tree import Tree
from aml_mirror.support.progress import Console


def plan_runs(prefix: Prefix, settings: Settings, console: Console, summary: Summary) -> Iterator[Receipt]:
    """Yield a receipt for each version that a backfill of the prefix would make, and for each failure.

    Nothing is hashed, like in ``backfill --dry-run``, and the registry is not asked which versions exist.

    Args:
        prefix: the folder of the runs.
        settings: of this call.
        console: output for the user.
        summary: counts the runs.

    Raises:
        MirrorError: the prefix cannot be listed.
    """
    summary.source, summary.model_name = prefix.uri, settings.model_name
    summary.planned, summary.knows_registry = 0, False
    names = ModelNames(settings.model_name, prefix.name) if settings.model_name else None
    progress = FolderProgress(prefix, console)
    try:
        for candidate in look_below(prefix, settings.framework, lambda path, newest: ""):
            progress.at(candidate.path)
            receipts = list(_receipts(candidate, settings, names, console))
            if receipts:
                summary.add(receipts)
            else:
                summary.add_no_run(candidate.path)
            yield from receipts
    finally:
        progress.end()


def _receipts(
    candidate: Candidate, settings: Settings, names: ModelNames | None, console: Console
) -> Iterator[Receipt]:
    facts = Facts(run_id=candidate.path, source=candidate.source.uri)
    if candidate.refused:
        yield receipt_of(facts, outcome="skipped", exit_code=0, warnings=(candidate.refused,))
        return
    if candidate.found is None and candidate.failure is None:
        return
    try:
        own = replace(settings, source=candidate.source.uri, run_id=candidate.path, output_base="")
        located = located_run(candidate, own)
        framework = located.detected.layout.name
        model = names.of(candidate.path, framework) if names else ""
        own = replace(own, model_name=model)
        facts = replace(facts, framework=framework, model_name=model or None)
        decisions = Decisions(located, intended_destination(own), own, console)
        for selected in decisions.selected():
            checkpoint = selected.checkpoint
            yield receipt_of(
                replace(facts, checkpoint=checkpoint.path, step=checkpoint.step),
                outcome="planned",
                exit_code=0,
                files=len(checkpoint.files),
                bytes=sum(located.tree.size(path) for path in checkpoint.files if located.tree.has(path)),
                warnings=located.warnings,
            )
    except Exception as error:  # noqa: BLE001 - an error in one run must not stop the others
        failure = failure_of(error)
        yield failed(facts, failure.exit_code, failure.message, failure.hint, 0.0)


def located_run(candidate: Candidate, settings: Settings) -> LocatedRun:
    """Describe the run that was found in a folder below a prefix.

    Args:
        candidate: the folder.
        settings: of this call, with the run's own source and id.

    Raises:
        MirrorError: it cannot be read, or there is none.
    """
    found = candidate.found
    if candidate.failure is not None or found is None:
        raise candidate.failure or DataError("there is no run in it")
    require_listed(candidate.unknown, settings)
    check_run_id(candidate.path)
    if candidate.tree is not None:
        return describe(candidate.tree, found, settings)
    listing = candidate.source.scan()
    require_listed(listing.unknown, settings)
    tree = Tree(candidate.source, listing)
    return describe(tree, run_at_root(tree, found, settings.framework), settings)
