"""One checkpoint before the guard: what is on disk of it, what is suspicious, and what must still be
drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from kascade.errors import CheckpointError, KascadeError
from kascade.guard.accepted import accepted_before
from kascade.guard.baselines import baselines
from kascade.guard.comparison import Comparison, compare
from kascade.guard.level import verdict_level
from kascade.guard.lineage import Ancestor, open_reference, walk
from kascade.guard.looks import Looked, look_for_fall, look_for_keeping
from kascade.guard.own import fingerprints_of
from kascade.guard.rewards import TaskRewards
from kascade.guard.rule import (
    Test,
    fall_rule,
    first_kept_look,
    fixed_fall_rule,
    fixed_samples,
    held_benchmarks,
    keep_rule,
    screen,
)
from kascade.guard.scores import Phase, Score, read_score, read_scores
from kascade.guard.verdict import Verdict, all_verdicts, draw_of, read_verdict
from kascade.recipe.schema import Guard, Recipe, StagePart
from kascade.storage.run_folder import RunFolder

SECOND_DRAWS = 3  # a stage's attempts have draws 0 to 2 (`guard.recovery.rounds`), and these are other ones


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of one benchmark. looked: of the confirming samples; None where none were asked for."""

    comparison: Comparison | None
    looked: Looked | None
    test: Test | None
    known: bool

    def keep_level(self, guard: Guard) -> float:
        """One-sided level of the limits that decide on `kept`: the screen is one look, others have their
        part."""
        return guard.retention.level * (self.looked.share if self.looked else 1.0)

    @property
    def phase(self) -> Phase:
        """Whose samples decide: fresh ones of both checkpoints, or those of the screen."""
        return "confirm" if self.looked else "screen"


@dataclass(frozen=True, slots=True)
class Case:
    """A checkpoint with the scores that are on disk.

    parent: the accepted checkpoint its stage started from. round: 0 for the trained checkpoint, n for
    recovery n; confirming samples carry it (`draw`), so every attempt is judged on fresh ones.
    before: per benchmark the baseline and its screening score. after, at_start: screening scores of the
    candidate and of the parent. known_lost: per benchmark lost by the attempts before this one, the first
    that lost it.
    earlier: the folder's verdicts on other checkpoints. held_to: the level of this one's verdict, if there is
    one. choices: accepted checkpoints among which baselines were chosen.
    """

    layout: RunFolder
    recipe: Recipe
    candidate: Ancestor
    parent: Ancestor
    round: int
    before: Mapping[str, tuple[Ancestor, Score]]
    after: Mapping[str, Score]
    at_start: Mapping[str, Score]
    known_lost: Mapping[str, Ancestor]
    earlier: tuple[Verdict, ...]
    held_to: float | None
    choices: int = 1

    @property
    def level(self) -> float:
        """False alarms that the verdict on this case may cause: what it was held to before, else its
        share."""
        if self.held_to is not None:
            return self.held_to
        return verdict_level(self.recipe, self.candidate.manifest.stage, self.round, self.earlier)

    @property
    def stage(self) -> StagePart:
        return next(one for one in self.recipe.stages if one.name == self.candidate.manifest.stage)

    @property
    def held(self) -> Mapping[str, tuple[Ancestor, Score]]:
        """`before`, of the benchmarks on which the candidate may not fall."""
        names = held_benchmarks(self.recipe, self.stage)
        return {name: best for name, best in self.before.items() if name in names}

    def screened(self) -> dict[str, Comparison]:
        """The comparison of the screening scores, of every benchmark that can be compared."""
        pairs = {
            name: (score.task_rewards(), self.after[name].task_rewards())
            for name, (_, score) in self.before.items()
        }
        found = {name: compare(*pair) for name, pair in pairs.items()}
        return {name: comparison for name, comparison in found.items() if comparison is not None}

    def suspicious(self) -> dict[str, Ancestor]:
        """Benchmarks to confirm, each with the baseline that must draw fresh samples, too."""
        screens = {name: score for name, (_, score) in self.held.items()}
        names = screen(screens, self.after, self.recipe.guard, self.known_lost)
        return {name: self.before[name][0] for name in names}

    def draw(self, name: str) -> int:
        """Number of the confirming draw of a benchmark, which both checkpoints answer (`Score.round`).

        It is the round, but where the baseline was itself judged by its answers of that draw: these made it
        what it is, so both are asked in a draw of their own. Fixed answers have no other draw.
        """
        own = read_verdict(self.layout, self.before[name][0].manifest.id)
        judged_by = None if own is None else draw_of(own, name)
        is_taken = judged_by == self.round and not self.after[name].fixed
        return self.round + SECOND_DRAWS if is_taken else self.round

    def fresh(self, name: str, one: Ancestor) -> TaskRewards | None:
        """A checkpoint's confirming samples of this round; None when none are there."""
        score = self._fresh(name, one)
        return None if score is None else score.task_rewards()

    def _fresh(self, name: str, one: Ancestor) -> Score | None:
        return read_score(self.layout, one.digest, name, "confirm", self.draw(name))

    def looked(self, name: str) -> Looked | None:
        """What the confirming samples say of a benchmark; None when there are none yet."""
        before, after = self._fresh(name, self.before[name][0]), self._fresh(name, self.candidate)
        if before is None or after is None:
            return None
        guard, fixed = self.recipe.guard, fixed_samples(before, after)
        pair = before.task_rewards(), after.task_rewards()
        if name in self.known_lost:
            return look_for_keeping(*pair, keep_rule(guard, fixed))
        if fixed is None:
            return look_for_fall(*pair, fall_rule(guard, self.level, len(self.held)))
        rule = fixed_fall_rule(guard, self.level, len(self.held), fixed, self.choices)
        return look_for_fall(*pair, rule)

    def next_looks(self, names: Iterable[str]) -> dict[str, int]:
        """Samples per task that must be there next, of each benchmark that is not decided yet."""
        found = {name: self.looked(name) for name in names}
        more = {name: self._first_look(name) if one is None else one.more for name, one in found.items()}
        return {name: size for name, size in more.items() if size is not None}

    def _first_look(self, name: str) -> int:
        if self.after[name].fixed:
            return 1
        if name in self.known_lost:
            return first_kept_look(self.recipe, name)
        return fall_rule(self.recipe.guard, 1.0, 1).looks[0]


def open_case(layout: RunFolder, recipe: Recipe, checkpoint: str, parent: str) -> Case:
    """The case of `checkpoint`, an attempt of the stage that started from `parent` (references).

    Raises KascadeError when the candidate has not been screened on every benchmark of the recipe, and
    CheckpointError for a checkpoint that is not there.
    """
    candidate, *line = walk(checkpoint)
    start = open_reference(parent)
    names = {benchmark.name for benchmark in recipe.benchmarks}
    after = read_scores(layout, candidate.digest, "screen")
    if missing := sorted(names - after.keys()):
        raise KascadeError(f"{candidate.manifest.id} has no screening score for: {', '.join(missing)}")
    verdicts = all_verdicts(layout)
    own = verdicts.pop(candidate.manifest.id, None)
    stage = candidate.manifest.stage
    found = baselines(layout, recipe, stage, parent)
    return Case(
        layout=layout,
        recipe=recipe,
        candidate=candidate,
        parent=start,
        round=attempt_round(candidate.manifest.attempt),
        before={name: best for name, best in found.items() if name in names},
        after={name: after[name] for name in sorted(names)},
        at_start=read_scores(layout, start.digest, "screen"),
        known_lost=_lost_before(layout, candidate, line),
        earlier=_not_following(
            candidate, start.reference, _but_later_stages(layout, recipe, candidate, verdicts.values())
        ),
        held_to=own.level if own else None,
        choices=len(accepted_before(layout, recipe, stage, parent)),
    )


def _not_following(candidate: Ancestor, parent: str, verdicts: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """Verdicts but those on what came from the candidate.

    They were not there when it was judged first, and a verdict that is made again must say the same.
    """
    known, round_ = list(verdicts), attempt_round(candidate.manifest.attempt)
    stage = candidate.manifest.stage
    rounds = [one for one in known if (one.stage, one.parent) == (stage, parent)]
    line = {one.checkpoint for one in rounds if one.round > round_}
    line.add(candidate.reference)
    while more := {one.checkpoint for one in known if one.parent in line} - line:
        line |= more
    return tuple(one for one in known if one.checkpoint not in line)


def _but_later_stages(
    layout: RunFolder, recipe: Recipe, candidate: Ancestor, verdicts: Iterable[Verdict]
) -> Iterator[Verdict]:
    """Verdicts but those that this very recipe came to in later stages.

    After a rollback a later stage does not start from the candidate, and yet it was judged after it. The
    fingerprint of a stage holds all stages before it, so an earlier recipe's verdicts stay.
    """
    names = [stage.name for stage in recipe.stages]
    own = fingerprints_of(layout, recipe)
    place = names.index(candidate.manifest.stage)
    for verdict in verdicts:
        later = verdict.stage in names[place + 1 :]
        if not later or _fingerprint(verdict.checkpoint) != own[verdict.stage]:
            yield verdict


def _fingerprint(reference: str) -> str | None:
    """Of the stage that made a checkpoint; None where the checkpoint is gone."""
    try:
        return open_reference(reference).manifest.fingerprint
    except CheckpointError:
        return None


def attempt_round(attempt: str) -> int:
    """0 for `train`, n for `recover-n`."""
    return 0 if attempt == "train" else int(attempt.removeprefix("recover-"))


def _lost_before(layout: RunFolder, candidate: Ancestor, line: list[Ancestor]) -> dict[str, Ancestor]:
    lost: dict[str, Ancestor] = {}
    for one in reversed([one for one in line if one.manifest.stage == candidate.manifest.stage]):
        verdict = read_verdict(layout, one.manifest.id)
        for name in verdict.lost_benchmarks if verdict else ():
            lost.setdefault(name, one)
    return lost
