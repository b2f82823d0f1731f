"""Which order of stages makes the better model? Whole recipes raced with equal budgets and no guard.

Every recipe is trained stage by stage, as `kascade run` trains it. Nothing is judged or recovered on the way:
the order of stages is compared, not the guard. Recipes of one seed share a folder, so a common SFT is trained
once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from kascade.clock import Clock, cpu_seconds
from kascade.doctor.preflight import check_and_import
from kascade.environments import domain_of
from kascade.errors import Fault, UserError
from kascade.exams.evaluate import score_by
from kascade.exams.exams import Draw
from kascade.guard.lineage import Ancestor, open_reference
from kascade.guard.scores import Score, read_scores
from kascade.lab.folder import prepare_folder
from kascade.lab.topology_results import Cost, TopologyRace, TopologySettings, TriedRecipe, total_cost
from kascade.learning.metrics import read_metrics
from kascade.recipe.order import parent_of
from kascade.recipe.schema import Recipe, StagePart
from kascade.rollout.checkpoint_judge import set_up_judge
from kascade.run.context import Run, digest_of
from kascade.stages.attempts import TRAIN, Attempt
from kascade.stages.train import make_checkpoint
from kascade.storage.files import write_record
from kascade.storage.progress import Progress
from kascade.storage.run_folder import RunFolder
from kascade.task import Domain

Announce = Callable[[str], None]


def race_topologies(
    recipes: Mapping[str, Recipe],
    out: Path,
    settings: TopologySettings,
    *,
    announce: Announce = lambda line: None,
) -> TopologyRace:
    """Train every recipe with every seed, and score what each ends with on the same tasks.

    recipes: by name, at least two. All belongs to `out`, and the same call goes on where it was interrupted.
    Raises UserError when budgets differ, a teacher is left open, or `out` holds other things.
    """
    check_recipes(recipes, settings)
    prepare_folder(out, out / "seeds", "topology")
    entries = []
    for seed in settings.seeds:
        for name, recipe in recipes.items():
            arm = _Arm(name, recipe.model_copy(update={"seed": seed}), out / "seeds" / str(seed), settings)
            entries.append(arm.run())
            announce(f"{name}, seed {seed}: {entries[-1].mean:.3f}")
    return TopologyRace(settings=settings, recipes=tuple(recipes), entries=tuple(entries))


def check_recipes(recipes: Mapping[str, Recipe], settings: TopologySettings) -> None:
    """Raise UserError with everything that keeps these recipes from a fair race."""
    faults = [fault for name, recipe in recipes.items() for fault in _open_teachers(name, recipe)]
    first, *others = recipes
    if not others:
        faults.append(Fault("lab topology", f"{first} alone is no race", remedy="name two recipes"))
    asked = {name: sorted(one.name for one in recipe.benchmarks) for name, recipe in recipes.items()}
    budgets = {name: planned_answers(recipe) for name, recipe in recipes.items()}
    for other in others:
        if asked[other] != asked[first]:
            what = f"has other benchmarks than {first}"
            faults.append(Fault(other, what, ", ".join(asked[first]), "give both the same benchmarks"))
        if abs(budgets[other] / budgets[first] - 1) > settings.budget_tolerance:
            what = f"samples {budgets[other]:,} answers, {first} {budgets[first]:,}"
            allowed = f"a difference of {settings.budget_tolerance:.0%}"
            faults.append(Fault(other, what, allowed, "change steps, or name a scale with --scale"))
    if faults:
        raise UserError(faults)


def _open_teachers(name: str, recipe: Recipe) -> list[Fault]:
    """`best` needs scores of every checkpoint, which a race does not draw."""
    faults = []
    for stage in recipe.stages:
        if (named := stage.teacher_names()) is None:
            continue
        domains = dict.fromkeys(domain_of(mix.source) for mix in stage.data)
        if missing := [domain for domain in domains if named.get(domain, "best") == "best"]:
            what = f"no stage is named that teaches {', '.join(missing)}"
            remedy = f"name one under {stage.name}.teachers: a race scores no checkpoint on the way"
            faults.append(Fault(f"{name}: stages.{stage.name}.teachers", what, remedy=remedy))
    return faults


def planned_answers(recipe: Recipe) -> int:
    """Answers that the recipe's stages sample in all."""
    return sum(part.steps * part.samples_per_step for part in recipe.stages if part.answers_by() is not None)


@dataclass(slots=True)
class _StageClock(Clock):
    """Counts from when it was made: a race trains many stages in one process."""

    cpu_before: float = field(default_factory=cpu_seconds)

    def summary(self) -> dict[str, float]:
        found = Clock.summary(self)
        return {**found, "cpu_s": round(found["cpu_s"] - self.cpu_before, 3)}


@dataclass
class _Arm:
    """One recipe with one seed."""

    name: str
    recipe: Recipe
    root: Path
    settings: TopologySettings
    made: dict[str, str] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)

    def run(self) -> TriedRecipe:
        """Train all stages and score the end of the main line."""
        if self.recipe.threads is not None:
            torch.set_num_threads(self.recipe.threads)
        set_up_judge(self.recipe.judge, self.layout.judge)
        write_record(self.layout.resolved_recipe, self.recipe.model_dump_json(indent=1))  # a run's folder
        base = check_and_import(self._open("preflight"), lambda recipe: [])
        end = base
        for part in self.recipe.stages:
            self._train(part, base)
            end = end if part.side_branch else self.made[part.name]
        scores = self._scores(end)
        return TriedRecipe(
            recipe=self.name,
            seed=self.recipe.seed,
            checkpoint=end,
            costs=self.costs,
            sampled=total_cost(self._sampling()),
            scores={name: score.mean for name, score in scores.items()},
            greedy={name: score.greedy_mean for name, score in scores.items()},
            rewards={name: score.rewards for name, score in scores.items()},
            stages={stage: self._stage_scores(stage) for stage in self._shown()},
        )

    @cached_property
    def layout(self) -> RunFolder:
        return RunFolder(self.root)

    def _open(self, step: str, recipe: Recipe | None = None) -> Run:
        named = f"{self.name}.{step}"
        before = self.layout.cost_so_far(named)
        progress = Progress(self.layout.progress(named), named)
        return Run(self.layout, recipe or self.recipe, named, progress, _StageClock(), before)

    def _train(self, part: StagePart, base: str) -> None:
        """Train a stage, found when finished; what its tries cost is added up."""
        parent = parent_of(self.recipe, part.name)
        start = self.made[parent] if parent else base
        attempt = Attempt(part.name, TRAIN, start, self._teachers(part))
        run = self._open(f"{part.name}.train")
        known = run.existing(attempt.checkpoint_id(self.recipe))
        self.made[part.name] = known or make_checkpoint(run, attempt, part)
        if known is None:
            run.keep_cost()
        self.costs[part.name] = self._cost(part, run)

    def _teachers(self, part: StagePart) -> Mapping[Domain, Ancestor]:
        named = part.teacher_names() or {}
        domains = dict.fromkeys(domain_of(mix.source) for mix in part.data) if named else {}
        return {domain: open_reference(self.made[named[domain]]) for domain in domains}

    def _cost(self, part: StagePart, run: Run) -> Cost:
        curves = read_metrics(self.layout.training(self._id(part.name)).curves)
        lengths = [value for row in curves if isinstance(value := row.get("response_tokens"), float)]
        spent = self.layout.cost_so_far(run.step).get("cpu_s", 0.0)
        return Cost(
            updates=len(curves),
            answers=len(curves) * part.samples_per_step,
            tokens=round(sum(lengths) * part.samples_per_step),
            cpu_s=spent,
        )

    def _id(self, stage: str) -> str:
        return open_reference(self.made[stage]).manifest.id

    def _sampling(self) -> list[Cost]:
        """What stages cost that sample their answers: those that the race is about."""
        return [self.costs[part.name] for part in self.recipe.stages if part.answers_by() is not None]

    def _shown(self) -> Sequence[str]:
        """Stages whose scores are shown beside the end: the last one before any answer is sampled."""
        learnt = [part.name for part in self.recipe.stages if part.answers_by() is None]
        return learnt[-1:]

    def _stage_scores(self, stage: str) -> dict[str, float]:
        return {name: score.mean for name, score in self._scores(self.made[stage]).items()}

    def _scores(self, reference: str) -> dict[str, Score]:
        asked = {"tasks": self.settings.tasks, "samples": self.settings.samples, "greedy": True}
        more = [one.model_copy(update=asked) for one in self.recipe.benchmarks]
        run = self._open("exams", self.recipe.model_copy(update={"benchmarks": more, "exam_processes": 1}))
        names = [one.name for one in more]
        score_by(run, reference, names, Draw("screen"))
        found = read_scores(self.layout, digest_of(reference), "screen")
        return {name: found[name] for name in names}
