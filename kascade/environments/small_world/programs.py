"""Small Python functions, made at random: what each should do in words, its lines, its wrong neighbours.

Code generation asks for such a function; software engineering breaks one and asks for the repair.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

ATOM, POWER, PRODUCT, SUM = 3, 2, 1, 0


@dataclass(frozen=True, slots=True)
class Expression:
    """Python text and how tightly its outermost operator binds."""

    text: str
    binding: int = ATOM

    def within(self, binding: int) -> str:
        """The text as left operand of an operator of that binding, in parentheses where needed."""
        needs_parentheses = self.binding < binding or self.binding == binding == POWER
        return f"({self.text})" if needs_parentheses else self.text


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on a value: in words on a named thing, in words on "it", and as an operator."""

    on_name: str
    on_it: str
    operator: str
    operand: int
    binding: int

    def words(self, name: str) -> str:
        return self.on_name.format(name)

    def apply(self, value: Expression) -> Expression:
        return Expression(f"{value.within(self.binding)} {self.operator} {self.operand}", self.binding)


@dataclass(frozen=True, slots=True)
class Condition:
    """A test of one value, in words ("above 3") and as Python ("{} > 3")."""

    words: str
    template: str

    def of(self, name: str) -> str:
        return self.template.format(name)


@dataclass(frozen=True, slots=True)
class Program:
    """A function with its intent as an imperative clause ("double x, then add 3")."""

    name: str
    params: tuple[str, ...]
    intent: str
    body: tuple[str, ...]

    @property
    def signature(self) -> str:
        return f"{self.name}({', '.join(self.params)})"

    @property
    def source(self) -> str:
        return "\n".join((f"def {self.signature}:", *(f"    {line}" for line in self.body)))

    def with_line(self, index: int, line: str) -> Program:
        body = (*self.body[:index], line, *self.body[index + 1 :])
        return Program(self.name, self.params, self.intent, body)


def random_step(rng: random.Random) -> Step:
    k = rng.randint(2, 9)
    return rng.choice(
        (
            Step(f"add {k} to {{}}", f"add {k}", "+", k, SUM),
            Step(f"subtract {k} from {{}}", f"subtract {k}", "-", k, SUM),
            Step(f"multiply {{}} by {k}", f"multiply by {k}", "*", k, PRODUCT),
            Step(f"take {{}} mod {k}", f"take mod {k}", "%", k, PRODUCT),
            Step("double {}", "double it", "*", 2, PRODUCT),
            Step("square {}", "square it", "**", 2, POWER),
        )
    )


def random_condition(rng: random.Random) -> Condition:
    k = rng.randint(0, 9)
    return rng.choice(
        (
            Condition(f"above {k}", f"{{}} > {k}"),
            Condition(f"below {k}", f"{{}} < {k}"),
            Condition(f"at least {k}", f"{{}} >= {k}"),
            Condition(f"at most {k}", f"{{}} <= {k}"),
            Condition("even", "{} % 2 == 0"),
            Condition("odd", "{} % 2 == 1"),
        )
    )


def random_pair(rng: random.Random, a: str, b: str) -> tuple[str, Expression]:
    """Words and expression of one operation on two numbers."""
    return rng.choice(
        (
            (f"add {a} and {b}", Expression(f"{a} + {b}", SUM)),
            (f"multiply {a} and {b}", Expression(f"{a} * {b}", PRODUCT)),
            (f"subtract {b} from {a}", Expression(f"{a} - {b}", SUM)),
            (f"take the larger of {a} and {b}", Expression(f"max({a}, {b})")),
            (f"take the smaller of {a} and {b}", Expression(f"min({a}, {b})")),
        )
    )


def random_fold(rng: random.Random, name: str) -> tuple[str, str, Expression]:
    """Words on a named list, words on "it", and expression of one value made from a list."""
    return rng.choice(
        (
            (f"sum {name}", "sum it", Expression(f"sum({name})")),
            (f"count {name}", "count it", Expression(f"len({name})")),
            (f"take the largest of {name}", "take the largest", Expression(f"max({name})")),
            (f"take the smallest of {name}", "take the smallest", Expression(f"min({name})")),
            (f"take the last of {name}", "take the last", Expression(f"{name}[-1]")),
        )
    )


NEIGHBOURS: dict[str, tuple[str, ...]] = {
    "+": ("-", "*"),
    "-": ("+",),
    "*": ("+", "-"),
    "%": ("*", "//"),
    "**": ("*", "+"),
    ">": ("<", ">="),
    "<": (">", "<="),
    ">=": (">", "<="),
    "<=": ("<", ">="),
    "==": ("!=",),
    "max": ("min",),
    "min": ("max",),
    "sum": ("max", "len"),
    "len": ("sum",),
}
TOKEN = re.compile(r"\*\*|[<>=!]=|[-+*%<>]|\b\d+\b|\bnot \b|\b[a-z]+\b")
DIFFERENCE = re.compile(r"\b([a-z]) - ([a-z])\b")


def _replacements(token: str, scope: Sequence[str]) -> tuple[str, ...]:
    """What one slip of the pen makes of a token."""
    if token.isdigit():
        return tuple(str(n) for n in (int(token) - 1, int(token) + 1) if n >= 0)
    if token == "not ":
        return ("",)
    if token in scope:
        # A list is never taken for a number: such a slip fails on every input and teaches nothing.
        return tuple(name for name in scope if name != token and name.endswith("s") == token.endswith("s"))
    return NEIGHBOURS.get(token, ())


def slips(program: Program) -> list[Program]:
    """All programs one slip away: wrong operator, constant, variable, order, or a lost negation."""
    found = []
    scope = list(program.params)
    for index, line in enumerate(program.body):
        assigned, is_assignment, _ = line.partition(" = ")
        start = len(assigned) if is_assignment else 0
        for match in TOKEN.finditer(line, start):
            for replacement in _replacements(match[0], scope):
                found.append(
                    program.with_line(index, line[: match.start()] + replacement + line[match.end() :])
                )
        if DIFFERENCE.search(line):
            found.append(program.with_line(index, DIFFERENCE.sub(r"\2 - \1", line)))
        if is_assignment:
            scope.append(assigned)
    return found


Arguments = tuple[Any, ...]


def candidate_inputs(rng: random.Random, program: Program, count: int = 24) -> list[Arguments]:
    """Different arguments for the function: integers, and non-empty lists for names that end in s."""

    def value(name: str) -> Any:
        if name.endswith("s"):
            return [rng.randint(-4, 12) for _ in range(rng.randint(1, 6))]
        return rng.randint(-6, 13)

    seen = {repr(args): args for args in (tuple(map(value, program.params)) for _ in range(2 * count))}
    return list(seen.values())[:count]


def behaviour(program: Program, inputs: Sequence[Arguments]) -> list[Any]:
    """What our own program returns for each input; an exception's type where it raises."""
    namespace: dict[str, Any] = {}
    exec(program.source, namespace)
    function: Callable[..., Any] = namespace[program.name]
    outputs: list[Any] = []
    for args in inputs:
        try:
            outputs.append(function(*args))
        except Exception as error:
            outputs.append(type(error))
    return outputs


def telling_inputs(outputs: list[Any], wrong: Sequence[list[Any]], count: int) -> list[int]:
    """Indices of up to `count` inputs that tell the right program from as many wrong ones as possible.

    outputs: of the right program per input; wrong: the same of each wrong program. Greedy set cover.
    """
    tells = [{w for w, theirs in enumerate(wrong) if theirs[i] != out} for i, out in enumerate(outputs)]
    chosen: list[int] = []
    left = set(range(len(wrong)))
    while len(chosen) < min(count, len(outputs)):
        rest = (i for i in range(len(outputs)) if i not in chosen)
        best = max(rest, key=lambda i: (len(tells[i] & left), len(tells[i])))
        chosen.append(best)
        left -= tells[best]
    return chosen
