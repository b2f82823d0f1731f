"""Where two answers that math-verify finds equal are not: what it drops, glues or takes out of order.

The library reads text in words, units, subscripts and brackets loosely. These rules only take equality away.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

Form = Literal["set", "tuple", "closed", "list", "one"]
WORDED = r"\\(?:text|mathrm|mbox|textrm|textbf|rm|operatorname)\s*\{(?P<words>[^{}]*)\}"
# Said on one side only, each of these makes another answer of the same number.
SAID = tuple(
    re.compile(pattern)
    for pattern in (
        r"\\neq?(?![A-Za-z])|\\not(?![A-Za-z])|\u2260",
        r"\\(?:to|(?:long)?(?:left)?rightarrow|mapsto)(?![A-Za-z])|\u2192",
        r"(?i)\b(?:not|or more|or less|at least|at most|more than|less than|greater|fewer|except|besides)\b",
        r"\d\s*(?!\\[a-z]+\s*\{\s*(?:and|or|,|;))\\(?:text|mathrm|mbox)\s*\{[^{}]*\}\s*\d",
    )
)
RELATION = re.compile(r"\\(?:[lg]eq?(?:slant)?|lt|gt)(?![A-Za-z])|[<>\u2264\u2265]")
BASE = re.compile(r"\d\s*_\s*\{?\s*(\d+)\s*\}?")
THOUSANDS = re.compile(r"(?<![\d,])[1-9]\d{0,2}(?:(?:,|\{,\})\d{3})+(?!\d)(?!,\d)")
SEPARATOR = re.compile(
    r"(?i)\\text\s*\{\s*(?:and|or|,|;)\s*\}|\\(?:text\s*\{\s*,?\s*)?(?:and|or)\b|;|\bor\b|\band\b"
)
BLANK = re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|quad|qquad|[,!:; ])(?![A-Za-z])|\s+|\$")
PREFIX = re.compile(r"^(?:\([A-Za-z](?:,[A-Za-z])*\)|[A-Za-z])(?:=|\\in(?![A-Za-z]))(?=[(\[]|\\\{)")
ASSIGNED = re.compile(r"^([A-Za-z](?:_\{?\w+\}?)?)=(?!=)")
POWERS = tuple(
    (power, re.compile(rf"(?i)\b(?:{words})\b|(?:[A-Za-z]\s*\}}?|[A-Za-z])\s*\^\s*\{{?\s*{power}\s*\}}?\W*$"))
    for power, words in ((2, "square|sq"), (3, "cubic|cu"))
)
UNITS = {
    unit: names.split()[0]
    for names in (
        "mm millimeter millimetre", "cm centimeter centimetre", "dm decimeter", "m meter metre",
        "km kilometer kilometre", "inch in inche", "foot feet ft", "yard yd", "mile mi",
        "mg milligram", "g gram", "kg kilogram", "pound lb lbs", "ounce oz",
        "second s sec", "minute min", "hour h hr", "day", "week", "month", "year yr",
        "ml milliliter millilitre", "l liter litre", "dollar usd", "cent", "euro eur", "yen jpy", "rupee inr",
        "degree deg", "radian rad", "mph", "kmh",
    )
    for unit in names.split()
}  # fmt: skip


def conflict(expected: str, given: str, equal: Callable[[str, str], bool]) -> bool:
    """Whether the form of two answers makes them different. equal: compares parts of them."""
    if any(bool(said.search(expected)) != bool(said.search(given)) for said in SAID):
        return True
    for one, other in ((expected, given), (given, expected)):  # an interval may be written as a relation
        if RELATION.search(one) and not RELATION.search(other) and not re.search(r"[(\[]", other):
            return True
    bases = set(BASE.findall(expected)), set(BASE.findall(given))
    units = unit_of(expected), unit_of(given)
    if (all(bases) and bases[0] != bases[1]) or (all(units) and units[0] != units[1]):
        return True
    if all(units) and power_of_unit(expected) != power_of_unit(given):
        return True
    return _shapes_differ(_bare(expected), _bare(given), equal)


def unit_of(text: str) -> str | None:
    """The unit that an answer ends with, by one name for each; None where there is none that we know."""
    found = list(re.finditer(WORDED, text))
    words = found[-1]["words"] if found else re.sub(r".*\d", "", text)
    word = re.sub(r"(?i)\b(?:square|cubic|sq|cu|per)\b|[^A-Za-z ]", "", words).strip().lower()
    money = "dollar" if "\\$" in text else None
    return UNITS.get(word) or UNITS.get(word.removesuffix("s")) or money


def power_of_unit(text: str) -> int:
    """2 for an answer in squares of its unit, 3 for one in cubes, else 1."""
    for power, said in POWERS:
        if said.search(text):
            return power
    return 1


def _bare(text: str) -> str:
    """Without blanks, sizes of brackets and what stands before a bracket (`x \\in`, `(x,y)=`)."""
    joined = THOUSANDS.sub(lambda found: re.sub(r"\D", "", found[0]), text)
    return PREFIX.sub("", BLANK.sub("", SEPARATOR.sub(",", joined))).rstrip(".,")


def _shapes_differ(expected: str, given: str, equal: Callable[[str, str], bool]) -> bool:
    ours, theirs = form_of(expected), form_of(given)
    pair = {ours, theirs}
    if pair in ({"set", "tuple"}, {"set", "closed"}, {"tuple", "closed"}):
        return True
    if "list" not in pair:
        return False
    if pair == {"list", "one"}:
        return "\\pm" not in expected + given and "\\mp" not in expected + given
    a, b = parts(expected), parts(given)
    if len(a) != len(b):
        return not (pair == {"list"} and ("\\pm" in expected) != ("\\pm" in given))
    names = [[found[1] for part in group if (found := ASSIGNED.match(part))] for group in (a, b)]
    named = [len(found) == len(a) for found in names]
    several = [len(set(found)) > 1 for found in names]
    ordered = pair == {"list", "tuple"} or (named[0] != named[1] and any(several))
    return ordered and not all(equal(*map(_unnamed, both)) for both in zip(a, b, strict=True))


def _unnamed(part: str) -> str:
    return ASSIGNED.sub("", part)


def form_of(text: str) -> Form:
    """What the outermost signs of a bare answer make of it."""
    inner, closing = _enclosed(text)
    if inner is not None and text.startswith("\\{"):
        return "set"
    if inner is not None and "," in _top_level(inner):
        return "tuple" if text[0] == "(" and closing == ")" else "closed"
    return "list" if "," in _top_level(text) else "one"


def parts(text: str) -> list[str]:
    """The members of a list, a tuple or a set."""
    inner, _ = _enclosed(text)
    whole = text if inner is None else inner
    found, start = [], 0
    for index, sign in enumerate(_top_level(whole)):
        if sign == ",":
            found.append(whole[start:index])
            start = index + 1
    return [*found, whole[start:]]


def _enclosed(text: str) -> tuple[str | None, str]:
    """What the brackets around all of a text hold, and the closing one; None where there are none."""
    opening = "\\{" if text.startswith("\\{") else text[:1]
    if opening not in ("(", "[", "\\{") or not text.endswith((")", "]", "\\}")):
        return None, ""
    closing = "\\}" if text.endswith("\\}") else text[-1]
    inner = text[len(opening) : -len(closing)]
    depth = 0
    for sign in _signs(inner):
        depth += (sign in "([{") - (sign in ")]}")
        if depth < 0:
            return None, ""
    return (inner, closing) if depth == 0 else (None, "")


def _signs(text: str) -> str:
    return text.replace("\\{", " {").replace("\\}", " }")


def _top_level(text: str) -> str:
    """The text with everything in brackets blanked, at the same places."""
    depth, seen = 0, []
    for sign in _signs(text):
        depth -= sign in ")]}"
        seen.append(sign if depth <= 0 else " ")
        depth += sign in "([{"
    return "".join(seen)
