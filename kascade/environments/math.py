"""Math: short answers checked by value. Rows: NeMo-Gym `math_with_judge` (without the judge)."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from kascade.environments.base import THINK_END, Environment, Grade, Message, Task, final_answer
from kascade.environments.rows import row_messages

BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:/\d+)?")


class MathEnvironment(Environment):
    """Sums, differences and products; the answer goes in a box, after a scratch of the columns."""

    name = "math_with_judge"
    domain = "math"

    def pose(self, rng: random.Random, level: float) -> Task:
        sign = rng.choice("++-*") if level > 0.3 else rng.choice("+-")
        largest = 99 if level < 0.7 else 999
        if sign == "*":
            a, b = rng.randint(2, 9), rng.randint(2, 9 if level < 0.7 else 29)
        else:
            a, b = rng.randint(1, largest), rng.randint(1, largest)
            if sign == "-" and a < b:
                a, b = b, a
        value = {"+": a + b, "-": a - b, "*": a * b}[sign]
        question = rng.choice(("What is {a} {s} {b}?", "Compute {a} {s} {b}.", "{a} {s} {b} = ?")).format(
            a=a, b=b, s=sign
        )
        return Task(
            environment=self.name,
            domain="math",
            messages=(Message(role="user", content=question),),
            fields={"question": question, "expected_answer": str(value)},
            reference=f"{scratch(a, b, sign)}</think>\\boxed{{{value}}}",
            thinking=True,
        )

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        expected = str(task.fields["expected_answer"])
        return [Grade(float(same_value(extract(answer, task.thinking), expected))) for answer in answers]

    def from_row(self, row: Mapping[str, Any]) -> Task:
        if not str(row.get("expected_answer", "")).strip():
            raise ValueError("expected_answer: missing or empty; give the final answer as text")
        fields = {"question": row.get("question", ""), "expected_answer": str(row["expected_answer"])}
        return Task(self.name, "math", row_messages(row), fields)


def scratch(a: int, b: int, sign: str) -> str:
    """The columns of a sum or difference from the right, as one would note them; a product is recalled."""
    if sign == "*":
        return f"{a}*{b}={a * b}"
    columns, carry = [], 0
    for x, y in zip(*(reversed(str(n).zfill(len(str(max(a, b))))) for n in (a, b)), strict=True):
        result = int(x) + int(y) + carry if sign == "+" else int(x) - int(y) - carry
        carry = int(result > 9 if sign == "+" else result < 0)
        columns.append(f"{x}{sign}{y}:{result % 10}" + ("!" if carry else ""))
    return " ".join(columns)


def extract(answer: str, thinking: bool = False) -> str | None:
    """The last boxed value after the thinking, or the last number. Unended thinking answers nothing."""
    if thinking and THINK_END not in answer:
        return None
    text = final_answer(answer)
    found = BOXED.findall(text) or NUMBER.findall(text.replace(",", ""))
    return found[-1].strip() if found else None


def same_value(given: str | None, expected: str) -> bool:
    """Equal as numbers when both are numbers, else as text without spaces and dollar signs."""
    if given is None:
        return False
    try:
        return Fraction(given.replace(",", "")) == Fraction(expected.replace(",", ""))
    except (ValueError, ZeroDivisionError):
        clean = str.maketrans("", "", " $\n\t")
        return given.translate(clean) == expected.translate(clean)
