"""Math: short answers checked by value, by math-verify and, if one is set, by a judge.

Rows: NeMo-Gym `math_with_judge`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field, PositiveFloat

from kascade.environments.base import Environment
from kascade.environments.judging.equality import Pair, found_equal
from kascade.environments.judging.judge import JudgeError, UnreadableVerdict, judge_is_named
from kascade.environments.math.boxes import LONGEST, last_boxed, without_delimiters
from kascade.environments.math.numbers import as_tex, same_value
from kascade.environments.math.verification import (
    SECONDS,
    WALL_SECONDS,
    VerificationError,
    Verifier,
    VerifierUnavailable,
)
from kascade.environments.options import Options
from kascade.environments.rows.fields import gold_text, one_of
from kascade.environments.rows.nemo_gym import row_messages
from kascade.task import Grade, Message, Task, visible_answer

# Thousands may be set apart by commas; else each number of a list stands for itself.
NUMBER = re.compile(
    r"-?(?:[1-9]\d{0,2}(?:,\d{3})+(?![\d,]\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?(?:/\d+)?|-?\.\d+(?:[eE][-+]?\d+)?"
)
CONVENTIONS = ("boxed", "plain")
PLAIN_TAIL = 500  # characters at the end of an answer without a box in which math-verify looks for it
VERIFIER = Verifier()  # one process for all environments of this process


class MathOptions(Options):
    """How answers are checked, for every environment with a mathematical answer."""

    judge: bool = Field(
        True,
        description="ask the judge, if there is one, where math-verify finds answers unequal or fails "
        "[NeMo-Gym: should_use_judge]",
    )
    verify_seconds: PositiveFloat = Field(
        SECONDS, description="CPU time of one comparison [math-verify: 5; NeMo-Gym: 10]"
    )
    verify_wall_seconds: PositiveFloat = Field(
        WALL_SECONDS, description="after which a machine too busy to compare makes it an error"
    )


class MathEnvironment(Environment):
    """Sums, differences and products; the answer goes in a box, after a scratch of the columns.

    Options: `judge`, `verify_seconds`, `verify_wall_seconds`.
    """

    name = "math_with_judge"
    domain = "math"
    options_type = MathOptions

    def gold(self, task: Task) -> str | None:
        return f"\\boxed{{{task.fields['expected_answer']}}}"

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
            fields={"question": question, "expected_answer": str(value), **self.graded_with},
            reference=f"{scratch(a, b, sign)}</think>\\boxed{{{value}}}",
            thinking=True,
        )

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        return self.grade_all([(task, answers)])[0]

    def grade_all(self, groups: Sequence[tuple[Task, Sequence[str]]]) -> list[list[Grade]]:
        """By value, by math-verify, then by the judge where that says no or fails, all questions at once."""
        found = [_verified_all(task, answers) for task, answers in groups]
        doubts = [one for group in found for one in group if isinstance(one, Doubt)]
        verdicts = iter(found_equal([doubt.pair for doubt in doubts]))
        return [
            _all_or_none([_decided(one, next(verdicts)) if isinstance(one, Doubt) else one for one in group])
            for group in found
        ]

    def from_row(self, row: Mapping[str, Any]) -> Task:
        expected = gold_text(row, "expected_answer")
        convention = one_of("convention", row.get("convention") or "boxed", CONVENTIONS)
        fields = {
            "question": row.get("question", ""),
            "expected_answer": expected,
            "convention": convention,
            **self.graded_with,
        }
        return Task(self.name, "math", row_messages(row), fields)


@dataclass(frozen=True, slots=True)
class Doubt:
    """An answer that only the judge can still find equal. components: what is known of it so far."""

    pair: Pair
    components: Mapping[str, float]


def _verified_all(task: Task, answers: Sequence[str]) -> list[Grade | Doubt]:
    """The grades of one task's answers, all of them errors where this machine can compare nothing."""
    try:
        return [_verified(task, answer) for answer in answers]
    except VerifierUnavailable as error:
        return [Grade.failed(str(error)) for _ in answers]


def _verified(task: Task, answer: str) -> Grade | Doubt:
    """The grade without a judge; a doubt where there is one to ask.

    An answer that cannot be compared is unequal: masked, it would hide what it is, and only wrong answers
    get this far. Raises VerifierUnavailable.
    """
    fields, options = task.fields, MathOptions.of_task(task.fields)
    expected = without_delimiters(str(fields["expected_answer"]))
    given = extract(visible_answer(task, answer), boxed_only=fields.get("convention") == "boxed")
    if given is None:
        return Grade(0.0, {"answered": 0.0})
    known = same_value(given.text, expected)
    if known is not None:
        return Grade(float(known), {"answered": 1.0})
    components = {"answered": 1.0}
    try:
        equal = VERIFIER.equal(
            as_tex(expected),
            as_tex(given.text),
            boxed=given.boxed,
            seconds=options.verify_seconds,
            wall_seconds=options.verify_wall_seconds,
        )
        components["symbolic"] = float(equal)
    except VerificationError:
        equal, components["incomparable"] = False, 1.0
    if not equal and options.judge and len(given.text) <= LONGEST and judge_is_named():
        question = str(fields.get("question") or task.messages[-1]["content"])
        return Doubt(Pair(question, expected, given.text), components)
    return Grade(float(equal), components)


def _decided(doubt: Doubt, verdict: bool | JudgeError) -> Grade:
    if isinstance(verdict, UnreadableVerdict):
        return Grade(0.0, {**doubt.components, "unreadable_verdict": 1.0})
    if isinstance(verdict, JudgeError):
        return Grade.failed(str(verdict))
    return Grade(float(verdict), {**doubt.components, "judge": float(verdict)})


def _all_or_none(grades: list[Grade]) -> list[Grade]:
    """Where one answer of a task cannot be judged, none is graded: the others would be the right ones."""
    error = next((grade.error for grade in grades if grade.error is not None), None)
    return grades if error is None else [Grade.failed(error) for _ in grades]


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


@dataclass(frozen=True, slots=True)
class Given:
    """What an answer gives as its result: the content of a box, a number, or text that holds it."""

    text: str
    boxed: bool


def extract(text: str, *, boxed_only: bool = False) -> Given | None:
    """The last boxed value of an answer without its thinking; without a box, the last number, or the end.

    boxed_only: an answer without a box gives nothing.
    """
    boxed = last_boxed(text)
    if boxed is not None:
        return Given(without_delimiters(boxed), boxed=True) if boxed else None
    if boxed_only or not text:
        return None
    tail = text[-PLAIN_TAIL:]
    if "$" in tail or "\\" in tail:  # LaTeX: math-verify finds what it says
        return Given(tail, boxed=False)
    found = NUMBER.findall(tail)
    return Given(found[-1], boxed=False) if found else None
