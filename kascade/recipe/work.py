"""What a recipe has to do, in tokens: each stage, its benchmarks, a recovery of it, the end check.

Tokens are counted at most by the recipe (batches, lengths). The shares of that which are really drawn or read
are these tables. A measured run replaces them: then only the ratio of two recipes' work counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from kascade.recipe.checks import BASE
from kascade.recipe.identity import find_stage
from kascade.recipe.layout import Range, exactly
from kascade.recipe.methods import Stage, method_of
from kascade.recipe.schema import Benchmark, Recipe

Part = Literal["train", "benchmarks", "recovery", "end check"]
END = "end"  # where the end check stands among the stages
LEARNING = 3  # a token that is learnt costs a forward and a backward, which is about three forwards

# Shares of the most, as low, expected, high. Ours: no source; a run's own figures replace them.
ANSWER = (0.2, 0.5, 1.0)  # mean length of an answer to the longest allowed
ROW = (0.1, 0.5, 1.0)  # mean length of a given row to the longest allowed
REDRAWN = (0.0, 0.25, 1.0)  # of the further draws that a batch without enough usable groups may ask for
CONFIRMED = (0.0, 0.1, 0.4)  # of the samples that could confirm a fall: few benchmarks, few looks
END_LOOKS = (0.1, 0.3, 0.6)  # of the samples that the end check may draw


@dataclass(frozen=True, slots=True)
class Unit:
    """One piece of work. stage: or `base`, or `end`. times: how often it is done at worst.

    generated, trained: tokens. every_look: tokens generated where every look of the samples is drawn. scored:
    forwards of other models over each trained token. longest: tokens of the longest sequence. rows: sequences
    that are drawn side by side.
    """

    stage: str
    part: Part
    generated: Range
    trained: Range
    scored: int = 0
    longest: int = 0
    rows: int = 0
    times: int = 1
    every_look: float | None = None

    @property
    def key(self) -> str:
        return f"{self.stage}.{self.part}"

    @property
    def size(self) -> float:
        """One number to compare the same work in two recipes: tokens at most, a learnt one for three.

        It knows nothing of the tables of shares, so that measurements stay valid when these change.
        """
        most = self.generated.high if self.every_look is None else self.every_look
        return most + LEARNING * self.trained.high

    @property
    def at_worst(self) -> float:
        """How many times its high figure it takes where every look of the samples is drawn."""
        high = self.generated.high + LEARNING * self.trained.high
        return self.size / high if high else 1.0


def units_of(recipe: Recipe) -> Iterator[Unit]:
    """All work of a recipe, in order; a recovery with the benchmarks that judge it."""
    yield Unit(BASE, "benchmarks", _screen(recipe), exactly(0), **_answers(recipe))
    for stage in recipe.stages:
        yield _training(stage)
        yield _judging(recipe, stage)
        if recipe.guard.recovery.rounds:
            yield _recovery(recipe, stage)
    yield _end_check(recipe)


def _training(stage: Stage) -> Unit:
    sampling = stage.answers_by()
    scored = sum(stage.copies_that_score()) + int(method_of(stage).needs_teachers)
    most = float(stage.steps * stage.most_tokens_per_step)
    if sampling is None:
        longest = stage.longest_given() or 0
        rows = exactly(most).scaled(ROW)
        return Unit(stage.name, "train", exactly(0), rows, scored, longest)
    once = float(stage.steps * stage.samples_per_step * sampling.max_new_tokens)
    drawn = Range(*(once + share * (most - once) for share in REDRAWN))
    generated = drawn.scaled(ANSWER)
    trained = exactly(once).scaled(ANSWER)
    about = {"longest": sampling.max_new_tokens, "rows": stage.samples_per_step}
    return Unit(stage.name, "train", generated, trained, scored, **about)


def _judging(recipe: Recipe, stage: Stage) -> Unit:
    most = _screen(recipe).high + _most_confirming(recipe)
    generated = _screen(recipe) + _confirming(recipe)
    return Unit(stage.name, "benchmarks", generated, exactly(0), every_look=most, **_answers(recipe))


def steps_of(recipe: Recipe, unit: Unit) -> tuple[Unit, ...]:
    """What of a unit has pods of its own: of a recovery the distillation, and the benchmarks after it."""
    if unit.part != "recovery":
        return (unit,)
    stage = find_stage(recipe, unit.stage)
    return _distillation(recipe, stage), _judging(recipe, stage)


def _recovery(recipe: Recipe, stage: Stage) -> Unit:
    """One round: a distillation, and its benchmarks."""
    learns, judges = _distillation(recipe, stage), _judging(recipe, stage)
    most = (learns.every_look or 0.0) + (judges.every_look or 0.0)
    generated = learns.generated + judges.generated
    return replace(learns, generated=generated, times=recipe.guard.recovery.rounds, every_look=most)


def _distillation(recipe: Recipe, stage: Stage) -> Unit:
    """Of a recovery: each token that is drawn is scored by its domain's teacher."""
    rule, longest = recipe.guard.recovery, recipe.longest_answer
    rows = rule.prompts_per_step * rule.rollouts_per_prompt
    tokens = float(rule.steps * rows * longest)
    drawn = exactly(tokens).scaled(ANSWER)
    return Unit(stage.name, "recovery", drawn, drawn, 1, longest, rows, every_look=tokens)


def _end_check(recipe: Recipe) -> Unit:
    """Both checkpoints, every benchmark, up to `guard.retention.samples`."""
    most = _fresh(recipe, recipe.guard.retention.samples)
    generated = exactly(most).scaled(END_LOOKS).scaled(ANSWER)
    return Unit(END, "end check", generated, exactly(0), every_look=most, **_answers(recipe))


def _screen(recipe: Recipe) -> Range:
    return exactly(sum(_most(recipe, one) for one in recipe.benchmarks)).scaled(ANSWER)


def _most(recipe: Recipe, one: Benchmark) -> float:
    samples = one.drawn((one.samples or recipe.guard.screen_samples) + int(one.greedy))
    return float(one.tasks * samples * one.sampling.max_new_tokens)


def _confirming(recipe: Recipe) -> Range:
    """Fresh samples of benchmarks that look as if they fell."""
    return exactly(_most_confirming(recipe)).scaled(CONFIRMED).scaled(ANSWER)


def _most_confirming(recipe: Recipe) -> float:
    """Every benchmark, of both checkpoints, every look."""
    return _fresh(recipe, recipe.guard.confirm_samples)


def _fresh(recipe: Recipe, samples: int) -> float:
    """Of both checkpoints, every benchmark that can be asked for fresh answers."""
    drawn = (one for one in recipe.benchmarks if not one.is_fixed)
    return sum(float(one.tasks * 2 * samples * one.sampling.max_new_tokens) for one in drawn)


def _answers(recipe: Recipe) -> dict[str, int]:
    tasks = max(one.tasks for one in recipe.benchmarks)
    return {"longest": recipe.longest_answer, "rows": tasks * recipe.guard.screen_samples}
