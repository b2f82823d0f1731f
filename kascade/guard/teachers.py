"""The teacher of a domain: the best checkpoint that was accepted in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kascade.guard.accepted import Accepted, with_held
from kascade.guard.lineage import Ancestor, accepted_ancestors, accepted_of_stages
from kascade.guard.scores import read_scores
from kascade.recipe.schema import Recipe
from kascade.storage.run_folder import RunFolder
from kascade.task import Domain, in_order


@dataclass(frozen=True, slots=True)
class Teacher:
    """mean: screening reward of `checkpoint`, averaged over the domain's benchmarks."""

    domain: Domain
    checkpoint: Ancestor
    mean: float


def teacher_candidates(layout: RunFolder, recipe: Recipe, stage: str, parent: str) -> list[Accepted]:
    """Checkpoints that may teach in `stage`, which starts from `parent` (reference): the accepted ancestors,
    then what the recipe's earlier stages ended with elsewhere (side branches). Each once.
    """
    names = [part.name for part in recipe.stages]
    earlier = tuple(names[: names.index(stage)])
    found = accepted_ancestors(layout, parent) + accepted_of_stages(layout, earlier)
    return with_held(layout, recipe, found)


def best_teachers(layout: RunFolder, candidates: Iterable[Accepted]) -> dict[Domain, Teacher]:
    """The best candidate of each domain that has a graded benchmark; of equals, the first.

    A side branch teaches only the domains in which it was held to a benchmark.
    """
    best: dict[Domain, Teacher] = {}
    for candidate in candidates:
        for domain, mean in _domain_means(layout, candidate).items():
            if domain not in best or mean > best[domain].mean:
                best[domain] = Teacher(domain, candidate.checkpoint, mean)
    return {domain: best[domain] for domain in in_order(best)}


def _domain_means(layout: RunFolder, candidate: Accepted) -> dict[Domain, float]:
    """Of each domain in which the candidate was accepted, over all of its graded benchmarks."""
    means: dict[Domain, list[float]] = {}
    accepted: set[Domain] = set()
    for name, score in read_scores(layout, candidate.checkpoint.digest, "screen").items():
        if score.task_means():
            means.setdefault(score.domain, []).append(score.mean)
            accepted |= {score.domain} if name in candidate.held else set()
    return {domain: sum(values) / len(values) for domain, values in means.items() if domain in accepted}
