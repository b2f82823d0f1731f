"""Which tasks a stage trains on, which a teacher's lead is measured on, and which an exam asks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from kascade.environments import domain_of
from kascade.errors import Fault, UserError
from kascade.recipe.schema import DataSource, Mix, Recipe, Stage
from kascade.rollout.pools import TaskPool
from kascade.seeds import derive_seed
from kascade.task import Domain

NOTHING_TO_TRAIN_ON = "no stage has tasks of its domain, and its own are never trained on"
TASKS_FOR_RECOVERY = (
    "give a stage data of that domain, or generate the benchmark's tasks instead of reading them"
)


def training_pool(mixes: Sequence[Mix], seed: int, name: str) -> TaskPool:
    """The tasks that stage `name` trains on; generated ones differ between stages."""
    return TaskPool.from_mixes(mixes, split="train", seed=pool_seed(seed, name))


def pool_seed(seed: int, name: str) -> int:
    """The seed of the tasks that are generated for stage `name`."""
    return derive_seed(seed, "tasks", name)


def sources_by_domain(recipe: Recipe, stages: Iterable[Stage]) -> dict[Domain, list[DataSource]]:
    """What a domain can be trained on: the data of `stages`, else the generator behind a benchmark.

    A benchmark read from a file, or of another tool, is never trained on.
    """
    found: dict[Domain, list[DataSource]] = {}
    for source in (mix.source for stage in stages for mix in stage.data):
        known = found.setdefault(domain_of(source), [])
        if source not in known:
            known.append(source)
    for benchmark in recipe.benchmarks:
        if benchmark.source.path is None and not benchmark.source.of_another_tool:
            found.setdefault(domain_of(benchmark.source), [benchmark.source])
    return found


def recovery_sources(recipe: Recipe, number: int) -> dict[Domain, list[DataSource]]:
    """What a recovery in stage `number` (from 0) can train each domain on: what was met so far, else the
    tasks of later stages. A skill of the base model can be lost before the stage that teaches it.
    """
    met = sources_by_domain(recipe, recipe.stages[: number + 1])
    later = sources_by_domain(recipe, recipe.stages[number + 1 :])
    return {**met, **{domain: sources for domain, sources in later.items() if domain not in met}}


def borrowed_sources(recipe: Recipe, number: int, lost: Iterable[Domain]) -> tuple[DataSource, ...]:
    """Which of `recovery_sources` come from later stages, for the domains that were lost."""
    met, known = sources_by_domain(recipe, recipe.stages[: number + 1]), recovery_sources(recipe, number)
    return tuple(source for domain in lost if domain not in met for source in known.get(domain, ()))


def recovery_mixes(
    sources: dict[Domain, list[DataSource]],
    lost: Collection[Domain],
    kept: Collection[Domain],
    keep_weight: float,
) -> tuple[Mix, ...]:
    """Prompts of a recovery: the lost domains together weigh 1, the kept ones (if any) keep_weight.

    Raises UserError naming the lost domains that there is nothing to train on for.
    """
    if missing := [domain for domain in lost if domain not in sources]:
        what = "was lost, and the recipe has no tasks to recover it with"
        raise UserError([Fault(domain, what, remedy=TASKS_FOR_RECOVERY) for domain in missing])
    shares = {domain: 1 / len(lost) for domain in lost}
    shares |= {domain: keep_weight / len(kept) for domain in kept}
    return tuple(
        Mix(source=source, weight=share / len(sources[domain]))
        for domain, share in shares.items()
        for source in sources[domain]
    )
