"""The regression that a race starts from: found in a run's outcomes and verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kascade.environments import domain_of
from kascade.errors import Fault, UserError
from kascade.guard.lineage import Ancestor, open_reference, read_outcomes
from kascade.guard.verdict import Verdict, read_verdict
from kascade.recipe.schema import Benchmark, DataSource
from kascade.run.context import Run
from kascade.stages.attempts import recovery_teachers, stage_index
from kascade.stages.tasks import sources_by_domain
from kascade.storage.run_folder import RunFolder
from kascade.task import Domain


@dataclass(frozen=True, slots=True)
class Regression:
    """A stage's trained checkpoint that regressed.

    lost, kept: domains; teachers: of the lost ones the best accepted checkpoint, of the kept ones the
    regressed checkpoint itself. sources: what each domain can be trained on.
    """

    stage: str
    checkpoint: Ancestor
    lost: tuple[Domain, ...]
    kept: tuple[Domain, ...]
    teachers: Mapping[Domain, Ancestor]
    sources: dict[Domain, list[DataSource]]


def find_case(run: Run, stage: str | None = None) -> Regression:
    """The regression of `stage`; without one, of the stage that lost most domains, the earliest of equals.

    Raises UserError when there is none, naming the stages that have one.
    """
    regressed = regressions(run)
    if stage is not None and stage not in regressed:
        what = f"has no regressed checkpoint of stage {stage!r}"
        raise UserError(Fault(str(run.layout.root), what, ", ".join(regressed) or None))
    if not regressed:
        remedy = "this lab needs a run in which the guard found a regression: try another seed or recipe"
        raise UserError(Fault(str(run.layout.root), "no stage of this run has regressed", remedy=remedy))
    chosen = stage or max(regressed, key=lambda name: len(regressed[name].lost_domains))
    return _case(run, regressed[chosen])


def regressions(run: Run) -> dict[str, Verdict]:
    """By stage in the recipe's order, the verdict on its newest trained checkpoint, if that regressed."""
    found = trained_verdicts(run.layout)
    judged = {part.name: found[part.name] for part in run.recipe.stages if part.name in found}
    return {name: verdict for name, verdict in judged.items() if verdict.regressed}


def trained_verdicts(layout: RunFolder) -> dict[str, Verdict]:
    """By stage, the verdict on the newest checkpoint that its own training made, before any recovery."""
    first = {outcome.stage: outcome.verdicts[0] for outcome in read_outcomes(layout)}
    found = {stage: read_verdict(layout, verdict) for stage, verdict in first.items()}
    return {stage: verdict for stage, verdict in found.items() if verdict is not None}


def _case(run: Run, verdict: Verdict) -> Regression:
    stage, own = verdict.stage, open_reference(verdict.checkpoint)
    sources = sources_by_domain(run.recipe, run.recipe.stages[: stage_index(run, stage) + 1])
    lost = verdict.lost_domains
    examined = {domain_of(exam.source) for exam in run.recipe.benchmarks}
    kept = tuple(domain for domain in sources if domain in examined and domain not in lost)
    teachers = recovery_teachers(run, own, verdict.parent, lost, kept)
    return Regression(stage, own, lost, kept, teachers, sources)


def benchmarks_of(run: Run, domains: tuple[Domain, ...]) -> tuple[Benchmark, ...]:
    return tuple(exam for exam in run.recipe.benchmarks if domain_of(exam.source) in domains)
