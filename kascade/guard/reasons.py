"""A decision in words."""

from __future__ import annotations

from kascade.guard.case import Finding
from kascade.guard.comparison import Comparison, missing_grades
from kascade.guard.verdict import Decision, Rise
from kascade.recipe.schema import Guard


def reason(decision: Decision, finding: Finding, rise: Rise | None, guard: Guard) -> str:
    """One or two sentences with the numbers that decided, and the level that p is held to."""
    found = finding.comparison
    if decision == "no_baseline":
        return "No accepted checkpoint has a graded score to compare with."
    if decision == "not_held":
        return _not_held(found)
    if found is None:
        return "No task was graded on both sides: errors are not zeros, so nothing was concluded."
    if decision == "not_judged":
        return f"Cannot be judged: {_missing(found, guard)} Repair the grader and run the same command again."
    parts = [_known(decision, finding, found, guard) if finding.known else _fall(finding, found, guard)]
    if rise is not None:
        parts.append(_rise(rise))
    if found.num_left_out:
        parts.append(f"{found.num_left_out} tasks without a grade on one side were left out.")
    return " ".join(parts)


def _missing(found: Comparison, guard: Guard) -> str:
    """How many grades are missing, and the rule that this breaks."""
    shares = missing_grades(found, "before", "after")
    if found.most_missing > guard.max_missing:
        return f"{shares} At most {guard.max_missing:.1%} may be missing."
    p = f"p {found.p_unequal:.2g} <= {guard.unequal_missing:g}"
    return f"{shares} The shares differ by more than chance ({p})."


def _not_held(found: Comparison | None) -> str:
    numbers = f"{_numbers(found.before, found.after, found.interval)}. " if found is not None else ""
    return f"{numbers}A side branch may fall here: others take from it only what it teaches."


def _known(decision: Decision, finding: Finding, found: Comparison, guard: Guard) -> str:
    margin, level = guard.retention.margin, finding.keep_level(guard)
    numbers = f"{_numbers(found.before, found.after, found.interval)} on fresh samples"
    low, high = found.limits(level)
    if decision == "regressed":
        return f"{numbers}: still lost (upper limit {high:+.3f} at p {level:.2g})."
    if decision == "not_recovered":
        return (
            f"{numbers}: not shown to be back (lower limit {low:+.3f} at p {level:.2g}, margin {margin:g})."
        )
    return f"{numbers}: kept, within {margin:g} (lower limit {low:+.3f} at p {level:.2g})."


def _fall(finding: Finding, found: Comparison, guard: Guard) -> str:
    numbers = _numbers(found.before, found.after, found.interval)
    test, looked = finding.test, finding.looked
    if test is None or looked is None:
        return f"{numbers}: no suspicion of a fall (p {found.p_fall:.2g} > {guard.screen_level:g})."
    numbers += " on fresh samples"
    if not test.significant:
        return f"{numbers}: not beyond the guard's level (p {looked.p:.2g} > {test.level:.2g})."
    if not test.regressed:
        return f"{numbers}: a fall, but smaller than the tolerated {guard.min_drop:g}."
    return f"{numbers}: lost (p {looked.p:.2g} <= {test.level:.2g}, and at least {guard.min_drop:g})."


def _rise(rise: Rise) -> str:
    numbers = _numbers(rise.before.mean, rise.after, rise.interval)
    verb, sign = ("rose", "<=") if rise.met else ("is not shown to have risen", ">")
    return f"Goal {verb} over the stage's start: {numbers} (p {rise.p:.2g} {sign} {rise.level:g})."


def _numbers(before: float, after: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{before:.3f} to {after:.3f} ({after - before:+.3f}, 95% {low:+.3f} to {high:+.3f})"
