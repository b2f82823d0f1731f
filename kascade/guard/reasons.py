"""A decision in words."""

from __future__ import annotations

from kascade.guard.rule import Test
from kascade.guard.stats import Comparison
from kascade.guard.verdict import Decision, Rise
from kascade.recipe.schema import Guard


def reason(
    decision: Decision, found: Comparison | None, test: Test | None, rise: Rise | None, guard: Guard
) -> str:
    """One or two sentences with the numbers that decided."""
    if decision == "no_baseline":
        return "No accepted checkpoint has a graded score to compare with."
    if found is None:
        return "No task was graded on both sides: errors are not zeros, so nothing was concluded."
    parts = [_fall(found, test, guard)]
    if rise is not None:
        parts.append(_rise(rise))
    if found.num_left_out:
        parts.append(f"{found.num_left_out} tasks without a grade on one side were left out.")
    return " ".join(parts)


def _fall(found: Comparison, test: Test | None, guard: Guard) -> str:
    numbers = _numbers(found.before, found.after, found.interval)
    if test is None:
        return f"{numbers}: no suspicion of a fall (p {found.p_fall:.2g} > {guard.screen_level:g})."
    if not test.significant and 0.5**found.num_tasks > test.level:
        return f"{numbers}: {found.num_tasks} tasks are too few to show any fall at p <= {test.level:.2g}."
    if not test.significant:
        return f"{numbers} on fresh samples: chance explains it (p {found.p_fall:.2g} > {test.level:.2g})."
    if not test.regressed:
        return f"{numbers} on fresh samples: a fall, but smaller than the tolerated {guard.min_drop:g}."
    return (
        f"{numbers} on fresh samples: a fall beyond chance (p {found.p_fall:.2g} <= {test.level:.2g}) "
        f"and at least {guard.min_drop:g}."
    )


def _rise(rise: Rise) -> str:
    numbers = _numbers(rise.before.mean, rise.after, rise.interval)
    verb, sign = ("rose", "<=") if rise.met else ("did not rise beyond chance", ">")
    return f"Goal {verb} over the stage's start: {numbers} (p {rise.p:.2g} {sign} {rise.level:g})."


def _numbers(before: float, after: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{before:.3f} to {after:.3f} ({after - before:+.3f}, 95% {low:+.3f} to {high:+.3f})"
