"""Champion and challenger: may a run's final checkpoint take the place of the one that is promoted now?

Both answer the run's benchmarks again, with random numbers that no other comparison uses. The answers that
made the champion win once would make it look better than it is (the winner's curse). The rule is that of the
end check: every benchmark must be shown to be kept within a margin. Because all must pass, no correction for
their number is needed; that one is lost, or lower, is held to the level divided by their number.

Two more conditions keep a row of promotions from losing a little each time. What earlier promotions gave up
is taken off the margin until something gains it back. And a goal that is shown to be lower is not promoted,
however small the fall is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from kascade.guard.comparison import Standing
from kascade.guard.end_check import WORDS, HeldAgainst, held_against
from kascade.guard.looks import KeepRule, Looked, look_for_keeping
from kascade.guard.rule import first_kept_look, fixed_samples, goal_benchmarks, keep_rule
from kascade.guard.scores import read_score
from kascade.guard.verdict import Role
from kascade.recipe.schema import Recipe
from kascade.storage.checkpoint import CheckpointRef
from kascade.storage.files import write_record
from kascade.storage.run_folder import RunFolder

ROUND_DIGITS = 8  # hex digits of a pair's number: seeds of different pairs are different


class Contest(BaseModel):
    """One benchmark: the challenger against the champion. In reward.

    margin: how much lower the challenger may be, after what earlier promotions gave up. held: the numbers,
    `before` being the champion's; None where nothing was graded.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    benchmark: str
    role: Role
    margin: float
    standing: Standing
    held: HeldAgainst | None

    @property
    def is_lower(self) -> bool:
        """Whether the challenger is shown to be lower, by however little."""
        return self.held is not None and self.held.limits[1] < 0

    @property
    def passed(self) -> bool:
        return self.standing == "kept" and not (self.role == "goal" and self.is_lower)


class Challenge(BaseModel):
    """A challenger against a champion (references), on every benchmark of the challenger's run.

    given_up: per benchmark what promotions up to the champion lost since their best, in reward. unmeasured:
    benchmarks that the champion was promoted on and this run does not have.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    challenger: str
    champion: str
    benchmarks: dict[str, Contest]
    given_up: dict[str, float] = {}
    unmeasured: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the challenger is better on the goals or equal, and nothing is lost."""
        return all(one.passed for one in self.benchmarks.values())

    def given_up_after(self) -> dict[str, float]:
        """What is given up once the challenger is champion: a gain pays back, a fall is added."""
        found = {}
        for name, one in self.benchmarks.items():
            difference = one.held.difference if one.held else 0.0
            found[name] = max(0.0, self.given_up.get(name, 0.0) - difference)
        return found


@dataclass(frozen=True, slots=True)
class Contenders:
    """Two checkpoints (references) with what is on disk of their comparison."""

    layout: RunFolder
    recipe: Recipe
    challenger: str
    champion: str
    given_up: Mapping[str, float]

    @property
    def round(self) -> int:
        """The pair's number, which makes their draws those of no other comparison, in whatever run."""
        pair = f"{self._digest(self.challenger)} against {self._digest(self.champion)}"
        return int(hashlib.sha256(pair.encode()).hexdigest()[:ROUND_DIGITS], 16)

    @staticmethod
    def _digest(reference: str) -> str:
        return CheckpointRef.parse(reference).digest

    def rule(self, name: str, fixed: int | None = None) -> KeepRule:
        """fixed: answers per task, where fresh ones cannot be drawn."""
        rule = keep_rule(self.recipe.guard, fixed, claims=len(self.recipe.benchmarks))
        return replace(rule, margin=max(0.0, rule.margin - self.given_up.get(name, 0.0)))

    def looked(self, name: str) -> Looked | None:
        """What the fresh samples say of a benchmark; None when there are none yet."""
        before, after = (
            read_score(self.layout, self._digest(one), name, "promotion", self.round)
            for one in (self.champion, self.challenger)
        )
        if before is None or after is None:
            return None
        rule = self.rule(name, fixed_samples(before, after))
        return look_for_keeping(before.task_rewards(), after.task_rewards(), rule)

    def needed(self) -> dict[str, int]:
        """Samples per task that must be there next, of each benchmark that is not decided yet."""
        found = {one.name: self.looked(one.name) for one in self.recipe.benchmarks}
        sizes = {
            name: first_kept_look(self.recipe, name) if one is None else one.more
            for name, one in found.items()
        }
        return {name: size for name, size in sizes.items() if size is not None}

    def conclude(self, promoted_on: tuple[str, ...] = ()) -> Challenge:
        """The result, once nothing more is needed. promoted_on: benchmarks that made the champion one."""
        goals = {name for stage in self.recipe.stages for name in goal_benchmarks(self.recipe, stage)}
        names = [one.name for one in self.recipe.benchmarks]
        return Challenge(
            challenger=self.challenger,
            champion=self.champion,
            benchmarks={name: self._contest(name, "goal" if name in goals else "guard") for name in names},
            given_up=dict(self.given_up),
            unmeasured=tuple(name for name in promoted_on if name not in names),
        )

    def _contest(self, name: str, role: Role) -> Contest:
        rule = self.rule(name)
        held = held_against(self.champion, self.looked(name), rule.level, rule.lost_level)
        standing = held.standing if held else "not_judged"
        return Contest(benchmark=name, role=role, margin=rule.margin, standing=standing, held=held)


def sentences(found: Challenge) -> list[str]:
    """Why the challenger may take the champion's place: one sentence; else one per benchmark that forbids
    it."""
    if not found.passed:
        return [_sentence(one) for one in found.benchmarks.values() if not one.passed]
    risen = [name for name, one in found.benchmarks.items() if one.held and one.held.limits[0] > 0]
    better = f"better than the champion on {', '.join(risen)}" if risen else "equal to the champion"
    return [f"The challenger is {better}, and nothing is lost."]


def _sentence(one: Contest) -> str:
    if one.held is None:
        return f"{one.benchmark} cannot be judged: no task was graded on both sides."
    low, high = one.held.limits
    what = "a goal, and shown to be lower" if one.standing == "kept" else WORDS[one.standing]
    return (
        f"{one.benchmark} is {what}: {one.held.before:.3f} in the champion and {one.held.after:.3f} in the "
        f"challenger ({one.held.difference:+.3f}, limits {low:+.3f} to {high:+.3f}, margin {one.margin:.3f})."
    )


def write_challenge(layout: RunFolder, found: Challenge) -> None:
    path = layout.challenge(*_digests(found.challenger, found.champion))
    write_record(path, found.model_dump_json(indent=1))


def read_challenge(layout: RunFolder, challenger: str, champion: str) -> Challenge | None:
    """The comparison of two checkpoints (references); None before there is one. Raises UserError for a
    broken file."""
    return layout.load(layout.challenge(*_digests(challenger, champion)), _parse)


def challenges_of(layout: RunFolder, challenger: str) -> list[Challenge]:
    """Every comparison of a checkpoint (reference) with a champion."""
    digest = CheckpointRef.parse(challenger).digest
    found = layout.each(layout.challenge_files(), _parse).values()
    return [one for one in found if CheckpointRef.parse(one.challenger).digest == digest]


def _digests(*references: str) -> tuple[str, str]:
    first, second = (CheckpointRef.parse(reference).digest for reference in references)
    return first, second


def _parse(path: Path) -> Challenge:
    return Challenge.model_validate_json(path.read_text(encoding="utf-8"))
