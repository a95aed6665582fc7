"""Mirrors every run below a prefix that is not mirrored yet.

1. Find the runs, one by one (:mod:`.discovery`), and leave out those that are not selected
   (:mod:`.run_filter`).
2. The registry's versions are requested page by page when the first run of a model is reached
   (:mod:`.version_index`). If a run's files have not changed since it was mirrored, it is already there: it
   needs no request.
3. Any other run is mirrored like with ``aml-mirror mirror``. It is listed again at that time.
4. A failure concerns one run, and the next run follows. The work stops at once for reasons that would affect
   all runs: 77 and 78, and a service that is unavailable.

If a service is unavailable for ``GIVE_UP_AFTER`` runs in a row, the work stops (:mod:`.outcomes`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from aml_mirror.backfill.discovery import Candidate, candidates, newest_in, run_at_root
from aml_mirror.backfill.folder_progress import FolderProgress
from aml_mirror.backfill.name_template import ModelNames, check_run_id, other_names
from aml_mirror.backfill.outcomes import Outcomes
from aml_mirror.backfill.run_filter import MOST_NAMES, RunFilter, no_match
from aml_mirror.backfill.summary import Summary
from aml_mirror.backfill.version_index import VersionIndex
from aml_mirror.core.errors import (
    DataError,
    Interrupted,
    MirrorError,
    ServiceUnavailable,
    UsageError,
)
from aml_mirror.core.settings import Settings
from aml_mirror.layouts import DetectedRun, why_no_run
from aml_mirror.pipeline.decide import Decisions
from aml_mirror.pipeline.destination import Destination, destination
from aml_mirror.pipeline.locate import LocatedRun, describe, require_listed
from aml_mirror.pipeline.mirror import Mirror
from aml_mirror.pipeline.plan import Plan
from aml_mirror.pipeline.receipt import Facts, Progress, Receipt
from aml_mirror.registries.records import Version
from aml_mirror.registries.registry import open_registry
from aml_mirror.sources.base import Prefix, Source, as_prefix
from aml_mirror.sources.registry import open_source
from aml_mirror.sources.tree import Tree
from aml_mirror.support.progress import LOG_SECONDS, Console


class Backfill:
    """One call of ``aml-mirror backfill``.

    Args:
        settings: of this call; the prefix is its source.
        console: output for the user.
        tell: receives the receipt of each version, and of each run that failed or was skipped.

    Raises:
        UsageError: the settings contradict each other.
        ConfigurationError: no workspace.
    """

    def __init__(self, settings: Settings, console: Console, tell: Callable[[Receipt], None]) -> None:
        self._selection = RunFilter.of(settings)
        self._prefix = open_prefix(settings, console)
        self._names = ModelNames(settings.require_model_name(), self._prefix.name)
        # A message about one run must not suppress the same message about another.
        self._settings = replace(settings, run_id="", replay_run_id="", framework_tag="", parameters={})
        probe = self._names.of("run", "framework")
        destination(replace(self._settings, model_name=probe) if self._names.is_template else settings)
        self._registry = open_registry(settings, console.say)
        self._known = VersionIndex(self._registry)
        self._console = console
        self._matched = False
        self._unmatched: list[str] = []
        self.summary = Summary(
            source=self._prefix.uri, model_name=settings.model_name, shard=str(settings.shard or "")
        )
        self.summary.planned = 0 if settings.dry_run else None
        self._outcomes = Outcomes(settings, console, tell, self.summary, self._be_patient_for, _give_up)

    def run(self) -> Summary:
        """Do the work. Failures and signals are not raised; they are in the summary."""
        started = told = time.monotonic()
        summary = self.summary
        progress = FolderProgress(self._prefix, self._console)
        try:
            for candidate in candidates(
                self._prefix, self._settings.framework, self._selection.refuses_early
            ):
                progress.at(candidate.path)
                self._take(candidate)
                if time.monotonic() - told >= LOG_SECONDS:
                    told = time.monotonic()
                    self._console.say(
                        f"{summary.found:,} runs so far: {summary.mirrored:,} mirrored, {summary.already:,} "
                        f"already there, {summary.failed:,} failed; now at {candidate.path}"
                    )
            self._require_match()
            if not summary.found and not summary.other_shards:
                raise DataError(
                    f"no run was found below {self._prefix.uri}",
                    "pass the folder that holds the runs' folders; one run by itself: aml-mirror mirror",
                )
        except (MirrorError, Interrupted) as error:
            self._outcomes.stopped(error)
        finally:
            progress.end()
        summary.seconds = time.monotonic() - started
        return summary

    def _require_match(self) -> None:
        """Check that --match matches some run. Runs in other shards are not examined.

        Raises:
            SourceNotFound: it matches none.
        """
        patterns = self._selection.match
        if patterns and self._unmatched and not self._matched and not self.summary.other_shards:
            raise no_match(patterns, self._unmatched)

    def _take(self, candidate: Candidate) -> None:
        path, selection = candidate.path, self._selection
        if not selection.is_ours(path):
            self.summary.other_shards += candidate.found is not None
            return
        facts = Facts(run_id=path, source=candidate.source.uri)
        if candidate.found is not None:
            if selection.matches(path):
                self._matched = True
            elif len(self._unmatched) < MOST_NAMES:
                self._unmatched.append(path)
        elif candidate.refused and selection.is_too_old(candidate.newest):
            self._matched = True  # It was not searched for runs.
        nothing = candidate.found is None and candidate.failure is None and not candidate.refused
        if nothing and not candidate.unknown:
            self.summary.add_no_run(path)
        elif why := selection.refuses(path, candidate.newest) or candidate.refused:
            self._outcomes.skipped(facts, why)
        else:
            self._mirror(candidate, Progress(facts))

    def _mirror(self, candidate: Candidate, progress: Progress) -> None:
        def work(done: list[Receipt]) -> str:
            if candidate.failure is not None:
                raise candidate.failure
            require_listed(candidate.unknown, self._settings)
            return self._run(candidate, progress, done)

        self._outcomes.take(progress, work)

    def _run(self, candidate: Candidate, progress: Progress, done: list[Receipt]) -> str:
        """Recognize or mirror one run, and fill ``done``; or return why it was left out."""
        path, found, tree = candidate.path, candidate.found, candidate.tree
        check_run_id(path)
        if found is None:
            return "there is no run in it"
        framework = self._settings.framework
        run = found

        def locate(source: Source, settings: Settings) -> LocatedRun:
            listing = source.scan()
            require_listed(listing.unknown, settings)
            whole = Tree(source, listing)
            return describe(whole, run_at_root(whole, run, framework), settings)

        if tree is None:
            listing = candidate.source.scan()
            require_listed(listing.unknown, self._settings)
            tree = Tree(candidate.source, listing)
            found = run_at_root(tree, found, framework)
            own = found.tree(tree)
            if why := self._selection.refuses(path, newest_in(own)) or why_no_run(own, found.layout):
                return why
        model = self._names.of(path, found.layout.name)
        settings = replace(self._settings, source=candidate.source.uri, run_id=path, model_name=model)
        target = destination(settings)
        mirror = Mirror(settings, self._console, progress, self._registry, candidate.source, locate)
        facts = replace(
            progress.facts,
            source=candidate.source.uri,
            framework=found.layout.name,
            experiment=target.experiment,
        )
        progress.facts = facts
        described: LocatedRun | None = None
        for name, versions in self._earlier(candidate, found, settings):
            described = described or describe(tree, found, settings)
            done += mirror.recognized(replace(described, run_id=name), target, self._registry, versions)
            if done:
                return ""
        progress.facts = facts
        if self._settings.skip_copies:
            settings = replace(settings, hash=True)
            if why := self._copied(locate(candidate.source, settings), target, settings):
                return why
            mirror = Mirror(settings, self._console, progress, self._registry, candidate.source, locate)
        if (
            self._selection.limit is not None
            and self.summary.mirrored + (self.summary.planned or 0) >= self._selection.limit
        ):
            return f"--limit {self._selection.limit} was reached before it"
        # If nothing is complete, the mirror asks for itself: another mirror may have been working meanwhile.
        known = self._known.of(target.experiment, model, [path])
        complete = [version for version in known.get(path, []) if version.complete]
        for receipt in mirror.run(complete or None):
            done.append(receipt)
        return ""

    def _copied(self, located: LocatedRun, target: Destination, settings: Settings) -> str:
        """Return the run of which this one is a copy; empty: some of its requested checkpoints are unique."""
        decisions = Decisions(located, target, settings, self._console)
        others, digests = [], []
        for selected in decisions.selected():
            decision = decisions.decide(selected)
            digest = decision.manifest.sha256 if isinstance(decision, Plan) else ""
            digests.append(digest)
            registered = self._known.runs_with(target.experiment, target.model_name, digest)
            others.append(self._outcomes.copies.original(located.run_id, digest, registered))
        if all(others):
            return f"its files are those of {others[0]}: --skip-copies leaves it out"
        # A planned run has no version by which its copies are recognised.
        for digest in digests if settings.dry_run else ():
            self._outcomes.copies.note(located.run_id, digest)
        return ""

    def _earlier(
        self, candidate: Candidate, found: DetectedRun, settings: Settings
    ) -> Iterator[tuple[str, list[Version]]]:
        """Yield the ids under which a run may have been mirrored, with the versions under each.

        Its own id comes first. With a template, the folder around the run may have named its model too.
        """
        path = candidate.path
        names = [path, *other_names(path, self._prefix.uri)]
        models = [settings.model_name]
        if self._names.is_template:
            # Before there was a second run, it was named by the topmost folder that contained only this run.
            around = (path[:at] for at, char in enumerate(path) if char == "/")
            models += [self._names.of(above, found.layout.name) for above in around]
        for model in dict.fromkeys(models):
            experiment = self._settings.experiment or model
            yield from self._known.of(experiment, model, names).items()

    def _be_patient_for(self, seconds: float) -> None:
        self._registry.be_patient_for(seconds)
        self._prefix.be_patient_for(seconds)


def _give_up(failure: MirrorError, runs: int) -> None:
    raise ServiceUnavailable(
        f"the service failed for {runs} runs in a row: {failure.message}",
        "run the same command again: it continues where this one stopped",
    )


def open_prefix(settings: Settings, console: Console) -> Prefix:
    """Return the place with the runs: ``--source``, else ``OUTPUT_BASE``.

    Raises:
        UsageError: neither is set, or it is a kind of source with only one run. ``OUTPUT_DIR`` belongs to one
            run.
    """
    place = settings.source or settings.output_base
    if not place:
        raise UsageError(
            "no runs to mirror: neither --source nor OUTPUT_BASE is set",
            "pass the folder that holds the runs' folders: --source PREFIX",
        )
    alone = replace(settings, source=place, run_id="", output_base="", wait_seconds=0.0)
    source = open_source(alone, console.say)
    if (prefix := as_prefix(source)) is None:
        raise UsageError(
            f"{source.uri} is one run: it cannot contain several",
            "mirror it with: aml-mirror mirror --source URI",
        )
    return prefix
