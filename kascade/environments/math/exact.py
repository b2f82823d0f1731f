"""Whether what math-verify read on both sides is the same in value: numbers exactly, where it rounds them.

The library rounds to six decimals, so 0.0000001 is 0.0000002 to it. Where all numbers are exact (whole
ones, fractions, decimals) they must be equal; a decimal for an irrational number must be right in proportion.
"""

from __future__ import annotations

from typing import Any

PROPORTION = 1e-6  # by which a decimal may miss an irrational number, beside the library's six decimals
DIGITS = 60  # that irrational numbers are compared by
MOST_MEMBERS = 50  # of sets that are compared member by member


def same(ours: Any, theirs: Any) -> bool:
    """Of two expressions that the library finds equal; what is no number, set or interval is left to it."""
    from sympy import Eq, FiniteSet, Interval, Tuple  # type: ignore[import-untyped]

    if any(isinstance(one, Eq) and _false(one) for one in (ours, theirs)):
        return False
    groups = (FiniteSet, Tuple, tuple, list)
    if isinstance(ours, Interval) and isinstance(theirs, Interval):
        open_ends = (ours.left_open, ours.right_open) == (theirs.left_open, theirs.right_open)
        return open_ends and same(ours.start, theirs.start) and same(ours.end, theirs.end)
    if isinstance(ours, groups) and isinstance(theirs, groups):
        return _same_members(list(getattr(ours, "args", ours)), list(getattr(theirs, "args", theirs)))
    if isinstance(ours, Eq) != isinstance(theirs, Eq):
        equation, other = (ours, theirs) if isinstance(ours, Eq) else (theirs, ours)
        sides = [side for side in equation.args if _is_number(side)]
        return not (sides and _is_number(other)) or same(sides[-1], other)
    return not (_is_number(ours) and _is_number(theirs)) or _same_number(ours, theirs)


def _same_members(ours: list[Any], theirs: list[Any]) -> bool:
    """Each has a partner of its value; sizes were the library's to compare."""
    if max(len(ours), len(theirs)) > MOST_MEMBERS:
        return True
    return all(any(same(a, b) for b in theirs) for a in ours) and all(
        any(same(a, b) for a in ours) for b in theirs
    )


def _is_number(one: Any) -> bool:
    return bool(getattr(one, "is_number", False)) and hasattr(one, "evalf")


def _false(equation: Any) -> bool:
    left, right = equation.args
    return _is_number(left) and _is_number(right) and not _same_number(left, right)


def _same_number(ours: Any, theirs: Any) -> bool:
    """Equal, also where one is a percentage and the other the same number without the sign."""
    from sympy import Rational

    pairs = [(ours, theirs)]
    if _percent(ours):
        pairs.append((ours * 100, theirs))
    if _percent(theirs):
        pairs.append((ours, theirs * 100))
    return any(_equal(_exact(a), _exact(b), Rational) for a, b in pairs)


def _percent(one: Any) -> bool:
    from sympy import Mul, Rational, UnevaluatedExpr

    return isinstance(one, Mul) and UnevaluatedExpr(Rational(1, 100)) in one.args


def _exact(one: Any) -> Any:
    """Decimals as the fractions that they were written as."""
    from sympy import Float, Rational

    floats = {part: Rational(str(part)) for part in one.atoms(Float)}
    return one.xreplace(floats).doit() if floats else one.doit()


def _equal(ours: Any, theirs: Any, rational: type) -> bool:
    from sympy import oo, zoo

    if isinstance(ours, rational) and isinstance(theirs, rational):
        return bool(ours == theirs)
    if ours in (oo, -oo, zoo) or theirs in (oo, -oo, zoo):
        return bool(ours == theirs)
    a, b = ours.evalf(DIGITS), theirs.evalf(DIGITS)
    difference, size = abs(a - b), max(abs(a), abs(b))
    if not (getattr(difference, "is_number", False) and getattr(size, "is_number", False)):
        return True
    return bool(difference <= PROPORTION * size)
