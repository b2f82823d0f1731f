"""Answers drawn in looks: each has twice as many as the one before, and the first that decides is the last.

A look's part of a level is its part of all answers, so that the parts add up to the level however often one
looks (Bonferroni; bounds by information as in Lan and DeMets, Biometrika 70, 1983). Most of the level stays
for the last look. Stopping for futility spends nothing: it only gives up what more answers might have shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from kascade.errors import KascadeError
from kascade.guard.comparison import UNEQUAL_MISSING, Comparison, Standing, compare
from kascade.guard.ranges import between, count, part
from kascade.guard.rewards import TaskRewards

SAME = 1e-9  # falls are sums of fractions: exactly the smallest one counts


@dataclass(frozen=True, slots=True)
class FallRule:
    """When a fall is called lost, and when drawing more for it is given up.

    looks: answers a task at each. level: one-sided, of one benchmark in one verdict. min_drop: smaller falls
    are never called. within_share, within_margin: of the within-task test. futile_fall: given up where a fall
    as large as this is refuted at futile_level. max_missing, unequal_missing: of missing grades, where a look
    decides nothing (`Comparison.can_be_judged`). choices: baselines among which these answers chose one.
    Raises KascadeError for a number out of range.
    """

    looks: tuple[int, ...]
    level: float
    min_drop: float
    within_share: float
    within_margin: float
    futile_fall: float
    futile_level: float
    max_missing: float
    unequal_missing: float = UNEQUAL_MISSING
    choices: int = 1

    def __post_init__(self) -> None:
        _check_looks(self.looks)
        parts = ("level", "min_drop", "within_share", "within_margin", "futile_fall")
        for name in (*parts, "max_missing", "unequal_missing"):
            part(name, getattr(self, name))
        between("futile_level", self.futile_level)
        count("choices", self.choices)


@dataclass(frozen=True, slots=True)
class KeepRule:
    """Non-inferiority: kept where the lower limit is above -margin, one-sided at `level` over all looks; lost
    where it is not, and the upper one is below 0 at `lost_level`.

    futile_chance: what has less than this chance to be shown at the last look is given up; 0: never.
    max_missing, unequal_missing: as of `FallRule`. claims: comparisons of which any may be called lost
    (Bonferroni); that all must be kept needs no such correction. Raises KascadeError for a number out of
    range.
    """

    looks: tuple[int, ...]
    margin: float
    level: float
    futile_chance: float
    max_missing: float
    unequal_missing: float = UNEQUAL_MISSING
    claims: int = 1

    def __post_init__(self) -> None:
        _check_looks(self.looks)
        for name in ("margin", "futile_chance", "max_missing", "unequal_missing"):
            part(name, getattr(self, name))
        between("level", self.level)
        count("claims", self.claims)

    @property
    def lost_level(self) -> float:
        return self.level / self.claims


@dataclass(frozen=True, slots=True)
class Looked:
    """What the looks so far say. p: of a fall, over looks and tests, to hold against the level of one
    benchmark.

    size: answers a task of the last look taken, and share: its part of the level. more: answers a task that
    must be there next, None when no more are to be drawn.
    """

    comparison: Comparison | None
    p: float
    standing: Standing
    size: int
    share: float
    more: int | None


def look_sizes(first: int, most: int) -> tuple[int, ...]:
    """Answers a task at each look: at least `first` at the first one (where `most` allows), `most` at the
    last. Raises KascadeError for a number that is not whole, or under 1."""
    count("first", first)
    found = [count("most", most)]
    while found[-1] % 2 == 0 and found[-1] // 2 >= first:
        found.append(found[-1] // 2)
    return tuple(reversed(found))


def _check_looks(looks: tuple[int, ...]) -> None:
    for size in looks:
        count("a look", size)
    if not looks or list(looks) != sorted(set(looks)):
        raise KascadeError(f"looks are answers a task, each more than the one before, not {looks!r}")


def shares(looks: tuple[int, ...]) -> dict[int, float]:
    """By size of a look its part of the level. Raises KascadeError for looks that do not grow from 1 on."""
    _check_looks(looks)
    return {size: size / sum(looks) for size in looks}


def look_for_fall(before: TaskRewards, after: TaskRewards, rule: FallRule) -> Looked:
    """Whether `after` fell, by the answers that are there. `more`: how many a task must be there next.

    Raises KascadeError when the two are not of the same benchmark and the same tasks.
    """
    p, last = 1.0, Looked(None, 1.0, "not_shown", 0, 0.0, rule.looks[0])
    for size, share, following in _looks(before, after, rule.looks):
        found = compare(before.first(size), after.first(size), within_margin=rule.within_margin)
        if found is None:
            return Looked(None, 1.0, "not_judged", size, share, None)
        if not found.can_be_judged(rule.max_missing, rule.unequal_missing):
            last = Looked(found, p, "not_judged", size, share, following)
            continue
        p = min(p, found.p_lost(rule.within_share) * rule.choices / share)
        called = p <= rule.level and -found.difference >= rule.min_drop - SAME
        refuted = found.limits(rule.futile_level)[0] > -rule.futile_fall
        last = Looked(found, p, "lost" if called else "not_shown", size, share, following)
        if called or refuted:
            return replace(last, more=None)
    return last


def look_for_keeping(before: TaskRewards, after: TaskRewards, rule: KeepRule) -> Looked:
    """Whether `after` is shown to be within the margin of `before`, shown to have fallen, or neither.

    Of nine benchmarks in which nothing is lost, some look lost at some early look. Before the last look a
    fall within the margin therefore ends it only where more answers would hardly show it to be kept. Raises
    KascadeError as `look_for_fall` does.
    """
    last = Looked(None, 1.0, "not_shown", 0, 0.0, rule.looks[0])
    for size, share, following in _looks(before, after, rule.looks):
        found = compare(before.first(size), after.first(size))
        if found is None:
            return Looked(None, 1.0, "not_judged", size, share, None)
        p, standing = min(1.0, p_below(found) / share), _shown(found, share, rule)
        if standing == "not_judged":
            last = Looked(found, p, standing, size, share, following)
            continue
        if following is None or _stays(found, standing, size, rule):
            return Looked(found, p, standing, size, share, None)
        last = Looked(found, p, "not_shown", size, share, following)
    return last


def p_below(found: Comparison) -> float:
    """One-sided p of a fall by the limits: the level at which the upper one is 0."""
    from scipy.special import stdtr

    return float(stdtr(found.degrees, sum(found.interval) / 2 / found.standard_error))


def _shown(found: Comparison, share: float, rule: KeepRule) -> Standing:
    standing = found.standing(rule.margin, rule.level * share, rule.max_missing, rule.unequal_missing)
    is_lost = found.limits(rule.lost_level * share)[1] < 0
    return "not_shown" if standing == "lost" and not is_lost else standing


def _stays(found: Comparison, standing: Standing, size: int, rule: KeepRule) -> bool:
    """Whether more answers would hardly change the word."""
    if standing == "kept":
        return True
    chances = chances_at_last(found, size, rule)
    if standing == "lost":
        beyond = found.limits(rule.lost_level * shares(rule.looks)[size])[1] < -rule.margin
        return beyond or chances.kept < rule.futile_chance
    return max(chances.kept, chances.lost) < rule.futile_chance


@dataclass(frozen=True, slots=True)
class Chances:
    """Of the last look, foretold from an earlier one: that it will show kept, and that it will show lost."""

    kept: float
    lost: float


def chances_at_last(found: Comparison, size: int, rule: KeepRule) -> Chances:
    """What the last look will show, as `found` at `size` answers a task foretells it.

    The tasks stay the same, so only the answers' part of the error shrinks, and only by it will the
    difference move: normal, around the present one. 1 for both where the answers' part is not known.
    """
    from scipy.special import ndtr, stdtrit

    if found.answers_error is None:
        return Chances(1.0, 1.0)
    now, then = found.answers_error**2, found.answers_error**2 * size / rule.looks[-1]
    error = max(found.standard_error**2 - now, 0.0) + then
    share, moves = shares(rule.looks)[rule.looks[-1]], max((now - then) ** 0.5, SAME)
    errors = stdtrit(found.degrees, [1 - rule.level * share, 1 - rule.lost_level * share])
    halves = [float(one) * error**0.5 for one in errors]
    kept, lost = found.difference + rule.margin - halves[0], -found.difference - halves[1]
    return Chances(float(ndtr(kept / moves)), float(ndtr(lost / moves)))


def _looks(
    before: TaskRewards, after: TaskRewards, looks: tuple[int, ...]
) -> Iterator[tuple[int, float, int | None]]:
    """Size, part of the level and following size of every look that there are answers for."""
    there = min(before.num_samples, after.num_samples)
    for size, following in zip(looks, (*looks[1:], None), strict=True):
        if size <= there:
            yield size, shares(looks)[size], following
